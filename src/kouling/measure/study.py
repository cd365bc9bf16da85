"""All that `kouling evaluate --report` finds out about a model and its commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kouling.commands import CommandSet
from kouling.measure import near
from kouling.measure.accuracy import SILENCE, UNKNOWN, Evaluation, disturbance, evaluate
from kouling.measure.detection import (
    LOWEST,
    DetPoint,
    Heard,
    det,
    detection_times,
    listen,
    recognizer_with,
    thresholds_of,
)
from kouling.measure.intervals import poisson, wilson
from kouling.measure.near import Near
from kouling.measure.recordings import count
from kouling.recognizer import Engine, Runner

SNRS_DB = (None, 20.0, 15.0, 10.0, 5.0, 0.0)  # None: as recorded
GAINS_DB = (-20.0, -10.0, 0.0, 10.0)
TIMED_CLIPS = 400  # of which detection times are taken: a live stream comes in small portions, which takes longer
CURVE_POINTS = 200  # of a DET curve that go into `result.json`

Report = Callable[[int], None]


@dataclass(frozen=True)
class Running:
    """What was heard where nothing is meant as a command."""

    hours: float
    alarms: int
    curve: list[DetPoint]

    @property
    def interval_per_hour(self) -> tuple[float, float]:
        low, high = poisson(self.alarms)
        return low / self.hours, high / self.hours

    def to_dict(self) -> dict[str, Any]:
        kept = self.curve[:: max(len(self.curve) // CURVE_POINTS, 1)]
        return {
            "hours": round(self.hours, 4),
            "false_alarms": self.alarms,
            "false_alarms_per_hour": round(self.alarms / self.hours, 4),
            "interval_per_hour": [round(bound, 4) for bound in self.interval_per_hour],
            "det": [
                {
                    "shift": round(point.shift, 3),
                    "misses": round(point.misses, 6),
                    "per_hour": round(point.alarms / self.hours, 4),
                }
                for point in kept
            ],
        }


@dataclass(frozen=True)
class Shares:
    """Shares that are right, and how many clips there are: of commands, unknown words, silence."""

    commands: tuple[int, int]
    unknown: tuple[int, int]
    silence: tuple[int, int]

    @staticmethod
    def of(figures: Evaluation) -> Shares:
        sums = {"commands": [0, 0], UNKNOWN: [0, 0], SILENCE: [0, 0]}
        for label, decided in figures.decided.items():
            right = sums[label if label in (UNKNOWN, SILENCE) else "commands"]
            right[0] += decided[label]
            right[1] += sum(decided.values())
        return Shares(*((right, total) for right, total in sums.values()))

    def to_dict(self) -> dict[str, Any]:
        return {
            kind: {
                "clips": total,
                "right": round(right / total, 6),
                "interval": [round(bound, 6) for bound in wilson(right, total)],
            }
            for kind, (right, total) in (
                ("commands", self.commands),
                ("unknown", self.unknown),
                ("silence", self.silence),
            )
            if total
        }


@dataclass
class Study:
    figures: Evaluation
    thresholds: dict[str, float]
    as_unknown: list[str]  # folders that are named after no command
    running: dict[str, Running] = field(default_factory=dict)  # "speech", "noise"
    by_snr: dict[float | None, Shares] = field(default_factory=dict)
    by_gain: dict[float, Shares] = field(default_factory=dict)
    noise_recorded: bool = False  # that of `by_snr`; pink if not
    times_s: list[float] = field(default_factory=list)  # from the end of the word to the event
    near: list[Near] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What `evaluate --json` prints, and all the rest."""
        times = {}
        if self.times_s:
            median, p95 = np.percentile(self.times_s, [50, 95])
            times = {"count": len(self.times_s), "median_s": round(float(median), 3), "p95_s": round(float(p95), 3)}
        return {
            **self.figures.to_dict(),
            "groups": Shares.of(self.figures).to_dict(),
            "folders_as_unknown": self.as_unknown,
            "thresholds": self.thresholds,
            "running": {kind: running.to_dict() for kind, running in self.running.items()},
            "snr_db": {"clean" if snr is None else f"{snr:g}": s.to_dict() for snr, s in self.by_snr.items()},
            "gain_db": {f"{gain:g}": shares.to_dict() for gain, shares in self.by_gain.items()},
            "detection_s": times,
            "near": [each.to_dict() for each in self.near],
            "skipped": self.skipped,
        }


def passes(folder: Path, speech: Path | None, noises: Path | None) -> int | None:
    """How many recordings `study` goes through; None where that is not known."""
    clips = count(folder)
    if clips is None:
        return None
    others = sum(2 * (count(path) or 0) for path in (speech, noises) if path)
    return clips * (2 + len(SNRS_DB) - 1 + len(GAINS_DB) - 1) + others + min(TIMED_CLIPS, clips)


def study(
    runner: Runner | Engine,
    command_set: CommandSet,
    folder: Path,
    speech: Path | None,
    noises: Path | None,
    out: Path,
    report: Report = lambda recordings: None,
) -> Study:
    """Everything about the clips of `folder`, and false alarms in `speech` and `noises`. Near misses are written as
    clips into `out`/near. report: called with the recordings gone through, of `passes`.

    Raises: ValueError where a folder holds no recording that can be read; OSError.
    """
    thresholds = thresholds_of(runner.info, command_set)
    heard_by = recognizer_with(runner, command_set, thresholds)
    low = recognizer_with(runner, command_set, LOWEST)
    passed = 0

    def through(done: int) -> None:
        report(passed + done)

    def evaluated(gain_db: float = 0.0, snr_db: float | None = None, listed: list[str] | None = None) -> Evaluation:
        nonlocal passed
        disturb = disturbance(gain_db, snr_db, noises)
        figures = evaluate(heard_by, folder, disturb, through, None, [] if listed is None else listed)
        passed += figures.clips
        return figures

    skipped: list[str] = []
    plain = evaluated(listed=skipped)
    clips = listen(low, folder, [], through)
    passed += len(clips)
    names = set(thresholds)
    folders = {each.name.split("/")[0] for each in clips if each.label == UNKNOWN} - {UNKNOWN}
    made = Study(plain, thresholds, sorted(folders), noise_recorded=noises is not None, skipped=skipped)

    heard: dict[Path, list[Heard]] = {folder: clips}
    for kind, path in (("speech", speech), ("noise", noises)):
        if path is None:
            continue
        others = listen(low, path, skipped, through)
        passed += len(others)
        alarms = sum(len(each.events) for each in listen(heard_by, path, [], through))
        passed += len(others)
        # Folders of speech are named after anything: nothing in them is meant as a command.
        heard[path] = [Heard(UNKNOWN, each.name, each.seconds, each.events) for each in others]
        hours = sum(each.seconds for each in others) / 3600
        made.running[kind] = Running(hours, alarms, det(clips, heard[path], thresholds))

    for snr_db in SNRS_DB:
        made.by_snr[snr_db] = Shares.of(plain if snr_db is None else evaluated(snr_db=snr_db))
    for gain_db in GAINS_DB:
        made.by_gain[gain_db] = Shares.of(plain if gain_db == 0 else evaluated(gain_db=gain_db))

    found = [c.name for c in clips if c.label in names and c.confidence(c.label) >= thresholds[c.label]]
    chosen = {found[i] for i in np.linspace(0, len(found) - 1, min(TIMED_CLIPS, len(found))).astype(int)}
    made.times_s = detection_times(heard_by, folder, chosen, through)
    made.near = near.write_clips(near.find(heard, thresholds), out / "near")
    return made
