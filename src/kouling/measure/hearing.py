"""How well a model hears, in one row of a comparison: what it decides as it is set, and what it misses at a given rate
of false alarms, which no setting of its thresholds flatters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kouling.measure import accuracy, detection, recordings
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.detection import Heard
from kouling.recognizer import Engine, Runner, chosen_commands


@dataclass(frozen=True)
class Hearing:
    clips: int
    accuracy: float  # share decided right, with the thresholds as they are
    speech_hours: float | None = None  # in which nothing is meant as a command
    false_alarms_per_hour: float | None = None  # the rate asked for
    misses: float | None = None  # share of the commands missed, all thresholds moved together until that rate is kept

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def passes(data: Path, speech: Path | None) -> int | None:
    """Recordings that `measure` goes through; None where that is not known beforehand."""
    clips, others = recordings.count(data), recordings.count(speech) if speech else 0
    if clips is None or others is None:
        return None
    return 2 * clips + others if speech else clips


def measure(
    runner: Runner | Engine,
    commands: Path | None,
    data: Path,
    speech: Path | None = None,
    rate: float = 0.5,
    skipped: list[str] | None = None,
    report: Callable[[int], None] = lambda recordings: None,
) -> Hearing:
    """The clips `data`/<label>/ as `evaluate` counts them; with `speech`, the misses at `rate` false alarms an hour in
    it, of all commands together. commands: a set; every word of the model if left out. skipped: gets a line for each
    recording that cannot be read. report: called with the recordings gone through, of `passes`.

    Raises: ValueError for a rate below 0, a set with words the model does not know, and folders without readable
    recordings.
    """
    if not rate >= 0:
        raise ValueError(f"{rate} false alarms an hour; allowed: 0 or more")
    command_set = chosen_commands(runner.info, commands)
    thresholds = detection.thresholds_of(runner.info, command_set)
    unread: list[str] = [] if skipped is None else skipped
    as_set = detection.recognizer_with(runner, command_set, thresholds)
    decided = accuracy.evaluate(as_set, data, report=report, skipped=unread)
    if speech is None:
        return Hearing(decided.clips, decided.accuracy)
    low = detection.recognizer_with(runner, command_set, detection.LOWEST)
    clips = detection.listen(low, data, [], lambda done: report(decided.clips + done))
    heard = detection.listen(low, speech, unread, lambda done: report(decided.clips + len(clips) + done))
    running = [
        Heard(UNKNOWN, each.name, each.seconds, each.events) for each in heard
    ]  # whatever its folders are called
    hours = sum(each.seconds for each in running) / 3600
    points = detection.det(clips, running, thresholds)
    misses = next((point.misses for point in points if point.alarms <= rate * hours), 1.0)
    return Hearing(decided.clips, decided.accuracy, hours, rate, misses)
