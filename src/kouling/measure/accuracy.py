"""Accuracy on labelled clips: what was decided for each, as it is, at another level, or in noise."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import AudioError
from kouling.commands import Command
from kouling.measure import noise
from kouling.measure.recordings import labelled, none_readable
from kouling.recognizer import Recognizer

SILENCE, UNKNOWN = "_silence_", "_unknown_"

Disturb = Callable[[NDArray[np.int16], str], NDArray[np.int16]]


@dataclass
class Evaluation:
    """What was decided, label by label. Labels that are no command of the set are counted as `_unknown_`."""

    decided: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reported: list[tuple[float, bool]] = field(default_factory=list)  # of each command: its confidence, whether right
    agreed: int | None = None  # clips that another model decides alike, where one was asked

    def add(self, label: str, decided: str | None, confidence: float = 1.0) -> None:
        """decided: the command, or None, which is right for silence and for unknown words alike."""
        nothing = label if label in (SILENCE, UNKNOWN) else UNKNOWN
        self.decided[label][decided or nothing] += 1
        if decided is not None:
            self.reported.append((confidence, decided == label))

    def reliability(self, edges: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)) -> list[tuple[float, float, int]]:
        """(mean confidence, share right, count) of the commands reported between each two `edges`; no empty rows."""
        table = []
        for low, high in pairwise(edges):
            inside = [entry for entry in self.reported if low <= entry[0] < high or entry[0] == high == edges[-1]]
            if inside:
                means = [sum(column) / len(inside) for column in zip(*inside, strict=True)]
                table.append((means[0], means[1], len(inside)))
        return table

    @property
    def clips(self) -> int:
        return sum(sum(counts.values()) for counts in self.decided.values())

    @property
    def accuracy(self) -> float:
        right = sum(counts[label] for label, counts in self.decided.items())
        return right / max(self.clips, 1)

    def recall(self, label: str) -> float:
        counts = self.decided.get(label, Counter())
        return counts[label] / max(sum(counts.values()), 1)

    def to_dict(self) -> dict[str, Any]:
        labels = sorted(self.decided, key=lambda label: (label.startswith("_"), label))
        compared = {} if self.agreed is None else {"agreement": round(self.agreed / max(self.clips, 1), 6)}
        return {
            "clips": self.clips,
            "accuracy": round(self.accuracy, 6),
            **compared,
            "per_label": {
                label: {"clips": sum(self.decided[label].values()), "recall": round(self.recall(label), 6)}
                for label in labels
            },
            "confusions": {label: dict(self.decided[label].most_common()) for label in labels},
        }


def disturbance(gain_db: float = 0.0, snr_db: float | None = None, noises: Path | None = None) -> Disturb:
    """A function (samples, name) -> samples: noise added at an SNR to the speech, then a gain, clipped to 16 bits.

    The noise is pink, or cut from the recordings in `noises`; which, and where, depends only on the clip's name.
    Raises: ValueError where `noises` holds no recording, and for levels that no recording has.
    """
    for level_db in (gain_db, 0.0 if snr_db is None else snr_db):
        if not -200 <= level_db <= 200:
            raise ValueError(f"gain and SNR are {gain_db} and {snr_db} dB; allowed: -200 to 200")
    recordings = [audio.read(file, name) for _, name, file in labelled(noises)] if noises else []

    def apply(samples: NDArray[np.int16], name: str) -> NDArray[np.int16]:
        heard = samples.astype(np.float32)
        if snr_db is not None and len(samples):
            seed = zlib.crc32(name.encode())
            if recordings:
                added = noise.recorded_noise(recordings[seed % len(recordings)], len(samples), seed)
            else:
                added = noise.colored_noise(len(samples), 1.0, seed)
            heard = heard + added * np.float32(noise.speech_rms(samples) * 10 ** (-snr_db / 20))
        return noise.to_int16(heard, gain_db)

    return apply


def decide(recognizer: Recognizer, samples: NDArray[np.int16]) -> Command | None:
    """The surest command of a clip, or None."""
    recognizer.reset()
    heard = recognizer.accept(samples) + recognizer.finish()
    return max(heard, key=lambda command: command.confidence, default=None)


def label_of(folder: str, names: Iterable[str]) -> str:
    """The label that a folder's clips count for."""
    if folder in (SILENCE, UNKNOWN):
        return folder
    return next((name for name in names if name.casefold() == folder.casefold()), UNKNOWN)


def evaluate(
    recognizer: Recognizer,
    folder: Path,
    disturb: Disturb = lambda samples, name: samples,
    report: Callable[[int], None] = lambda clips: None,
    against: Recognizer | None = None,
    skipped: list[str] | None = None,
) -> Evaluation:
    """Decide every clip of `folder`, `<label>/<clip>`. report: called with the number of clips done. against: another
    form of the model, to count in how many clips both decide the same. skipped: gets a line for each clip that cannot
    be read.

    Raises: ValueError where the folder holds no clip, or one cannot be read; with `skipped`, where none can.
    """
    names = [spec.name for spec in recognizer.command_set.commands]
    result = Evaluation(agreed=None if against is None else 0)
    for done, (label, name, file) in enumerate(labelled(folder), start=1):
        try:
            samples = disturb(audio.read(file, name), name)
        except AudioError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        command = decide(recognizer, samples)
        if against is not None and result.agreed is not None:
            other = decide(against, samples)
            result.agreed += (command and command.name) == (other and other.name)
        if command is None:
            result.add(label_of(label, names), None)
        else:
            result.add(label_of(label, names), command.name, command.confidence)
        report(done)
    if skipped and not result.clips:
        raise none_readable(folder, skipped)
    return result
