"""Whether an exported step hears what PyTorch hears: both run free over the same audio, and what they decide is
compared. An export that fails this is no export."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.commands import Command
from kouling.deploy.graph import DYNAMIC, FLOAT, STATIC
from kouling.recognizer import Recognizer, Runner

# Of each scheme: the least signal-to-noise ratio of the log-probabilities, in dB, and the share of commands that may be
# decided otherwise. The shipped models reach 100 dB and more as float, 29 and more as static int8.
TOLERANCES = {FLOAT: (60.0, 0.0), DYNAMIC: (18.0, 0.03), STATIC: (18.0, 0.05)}
APART_S = 0.3  # the same command at most this far apart is the same
PORTION_S = 5.0


@dataclass(frozen=True)
class Parity:
    scheme: str
    seconds: float
    snr_db: float
    commands: int  # that PyTorch decided
    differing: tuple[str, ...]  # a line for each one that only one of both decided

    @property
    def passed(self) -> bool:
        least_db, share = TOLERANCES[self.scheme]
        return self.snr_db >= least_db and len(self.differing) <= math.ceil(share * self.commands)

    @property
    def line(self) -> str:
        least_db, share = TOLERANCES[self.scheme]
        decided = f"{len(self.differing)} decisions differ next to {self.commands} commands ({share:.0%} allowed)"
        if not self.commands and not self.differing:
            decided = "no command heard by either, so no decision was compared: give --recordings of commands"
        heard = f"{self.seconds:.0f} s beside PyTorch: {self.snr_db:.1f} dB signal to noise ({least_db:g} needed)"
        return f"{heard}, {decided}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


class _Watched:
    """A runner that keeps the log-probabilities it gives."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self.info = runner, runner.info
        self.kept: list[NDArray[np.float32]] = []

    def initial_state(self) -> Any:
        return self._runner.initial_state()

    def step(self, features: NDArray[np.float32], state: Any) -> tuple[NDArray[np.float32], Any]:
        log_probs, following = self._runner.step(features, state)
        self.kept.append(log_probs)
        return log_probs, following


def compare(
    runner: Runner,
    reference: Runner,
    scheme: str,
    samples: NDArray[np.int16],
    report: Callable[[int], None] = lambda seconds: None,
) -> Parity:
    """Both hear the same stream, 16 kHz, from its beginning to its end without a reset. report: gets seconds done."""
    watched = [_Watched(each) for each in (runner, reference)]
    recognizers = [Recognizer(each) for each in watched]
    for each in watched:
        each.kept.clear()  # of the silence before
    heard: list[list[Command]] = [[], []]
    rate = runner.info.config.features.sample_rate_hz
    portion = round(PORTION_S * rate)
    for start in range(0, len(samples), portion):
        for commands, recognizer in zip(heard, recognizers, strict=True):
            commands += recognizer.accept(samples[start : start + portion])
        report(start // rate)
    for commands, recognizer in zip(heard, recognizers, strict=True):
        commands += recognizer.finish()
    found, wanted = (np.concatenate(each.kept).astype(np.float64) for each in watched)
    noise = float(np.square(found - wanted).sum())
    snr_db = float(10 * np.log10(float(np.square(wanted).sum()) / max(noise, 1e-30)))
    return Parity(scheme, len(samples) / rate, snr_db, len(heard[1]), tuple(differences(*heard)))


def differences(found: Sequence[Command], wanted: Sequence[Command]) -> list[str]:
    """A line for each command that only one of both decided."""
    left, missing = list(found), []
    for each in wanted:
        same = [other for other in left if other.name == each.name and abs(other.start_s - each.start_s) <= APART_S]
        if same:
            left.remove(same[0])
        else:
            missing.append(f"{each.name} at {each.start_s:.2f} s: PyTorch alone")
    return missing + [f"{each.name} at {each.start_s:.2f} s: not PyTorch" for each in left]
