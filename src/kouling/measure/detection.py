"""What is heard in recordings, however unsure: the events below the thresholds too.

From these come the trade between misses and false alarms (DET), the near misses, and new thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import SAMPLE_RATE_HZ, AudioError
from kouling.checkpoint import ModelInfo
from kouling.commands import Command, CommandSet
from kouling.measure import stream
from kouling.measure.accuracy import SILENCE, UNKNOWN, label_of
from kouling.measure.recordings import blocks_of, labelled, none_readable
from kouling.recognizer import Engine, Recognizer, Runner, overlay_decoder, recognizer_of

LOWEST = 0.02  # confidence from which an event is looked at
LIVE_BLOCK_S = 0.05  # portions in which a clip comes where it matters when the command is decided
AFTER_S = 3.0  # silence behind such a clip: longer than any command waits


@dataclass(frozen=True)
class Heard:
    """What was heard in one recording."""

    label: str  # the command that was said; else SILENCE, UNKNOWN
    name: str  # of the recording: "folder/file"
    seconds: float
    events: tuple[Command, ...]

    @property
    def commanded(self) -> bool:
        return self.label not in (SILENCE, UNKNOWN)

    def confidence(self, name: str) -> float:
        """Of the surest event of that name, 0 without one."""
        return max((event.confidence for event in self.events if event.name == name), default=0.0)


def thresholds_of(info: ModelInfo, command_set: CommandSet) -> dict[str, float]:
    """The threshold of every command: its own, else the set's, else the model's."""
    common = overlay_decoder(info).threshold if command_set.threshold is None else command_set.threshold
    return {s.name: common if s.threshold is None else s.threshold for s in command_set.commands}


def recognizer_with(
    runner: Runner | Engine, command_set: CommandSet, thresholds: Mapping[str, float] | float
) -> Recognizer:
    """A recogniser of the set with these thresholds: of each command, or of all."""
    own = {s.name: thresholds for s in command_set.commands} if isinstance(thresholds, float) else thresholds
    specs = tuple(replace(spec, threshold=own[spec.name]) for spec in command_set.commands)
    chosen = replace(command_set, commands=specs)
    return recognizer_of(runner, chosen)


def hear(recognizer: Recognizer, blocks: Iterable[NDArray[np.int16]]) -> tuple[tuple[Command, ...], float]:
    """The events of one recording from its beginning, and its seconds."""
    recognizer.reset()
    heard: list[Command] = []
    samples = 0
    for block in blocks:
        samples += len(block)
        heard += recognizer.accept(block)
    return tuple(heard + recognizer.finish()), samples / SAMPLE_RATE_HZ


def listen(
    recognizer: Recognizer,
    path: Path,
    skipped: list[str],
    report: Callable[[int], None] = lambda recordings: None,
) -> list[Heard]:
    """What is heard in every recording of `path`, `<label>/<recording>`, in bounded memory. skipped: gets a line for
    each recording that cannot be read. report: called with the number of recordings done.

    Raises: ValueError where the folder holds no recording that can be read.
    """
    names = [spec.name for spec in recognizer.command_set.commands]
    heard = []
    before = len(skipped)
    for done, (label, name, file) in enumerate(labelled(path), start=1):
        try:
            events, seconds = hear(recognizer, blocks_of(file, name))
            heard.append(Heard(label_of(label, names), name, seconds, events))
        except AudioError as error:
            skipped.append(str(error))
        report(done)
    if not heard:
        raise none_readable(path, skipped[before:])
    return heard


@dataclass(frozen=True)
class DetPoint:
    """One point of the trade: all thresholds moved by the same step."""

    shift: float  # in logits: 0 is the set as it is
    misses: float  # share of the clips of commands in which theirs is not heard
    alarms: int  # in recordings that hold none


def det(clips: Sequence[Heard], running: Sequence[Heard], thresholds: Mapping[str, float]) -> list[DetPoint]:
    """Misses in `clips` against false alarms in `running`, as all thresholds move together, the lowest first.

    Each event counts by its own confidence, whatever else was heard about then: at a threshold a rival that is now
    too unsure cannot stand in its way, so the true curve is as good as this one or a little better in misses.
    """
    said = [logit(heard.confidence(heard.label)) - logit(thresholds[heard.label]) for heard in clips if heard.commanded]
    wrong = [logit(e.confidence) - logit(thresholds[e.name]) for heard in running for e in heard.events]
    over, above = np.sort(np.array(said)), np.sort(np.array(wrong))
    floor = max(logit(LOWEST) - logit(threshold) for threshold in thresholds.values())
    shifts = np.unique(np.concatenate([[max(floor, -12.0), 0.0], above, over[over > -12]]))
    shifts = shifts[shifts >= floor]
    misses = np.searchsorted(over, shifts, side="left") / max(len(over), 1)
    alarms = len(above) - np.searchsorted(above, shifts, side="left")
    return [DetPoint(float(s), float(m), int(a)) for s, m, a in zip(shifts, misses, alarms, strict=True)]


def logit(confidence: float) -> float:
    bounded = min(max(confidence, 1e-6), 1 - 1e-6)  # as in DecoderConfig.confidence
    return float(np.log(bounded / (1 - bounded)))


def detection_times(
    recognizer: Recognizer, path: Path, names: set[str], report: Callable[[int], None] = lambda clips: None
) -> list[float]:
    """Of the clips `names` in which the command is heard: seconds from the end of the word, by its energy, to the
    event. To the 50 ms of a portion; negative where the command is decided before the word is over.
    """
    commands = [spec.name for spec in recognizer.command_set.commands]
    times: list[float] = []
    done = 0
    for label, name, file in labelled(path):
        if name not in names:
            continue
        samples = audio.read(file, name)
        portions = stream.live(samples, round(LIVE_BLOCK_S * SAMPLE_RATE_HZ), AFTER_S)
        time_s = stream.time_to_command_s(recognizer, samples, label_of(label, commands), portions)
        times += [] if time_s is None else [time_s]
        done += 1
        report(done)
    return times
