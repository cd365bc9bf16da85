"""Thresholds for the commands of a user's set: few misses, at no more false alarms an hour than asked for.

Speech holds few false alarms, and thresholds that lie just above the surest one of each command would, of twenty
commands, let about twenty through in the next speech of that length. So the rate of each command is a tail, exponential
in the logit of the confidence. Its size and slope lean on those of all commands where the command has few alarms of its
own, and all on a slope of 1 (Gamma priors); thresholds have to keep this rate and the plain count within what is asked.

Few clips, or synthetic ones, are heard so surely that any threshold finds them all. People who are not among them are
heard less surely, so the rate that is asked for is spent and no threshold is higher than it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import write_whole
from kouling.commands import CommandSet
from kouling.measure.accuracy import SILENCE, UNKNOWN
from kouling.measure.detection import Heard, listen, logit, recognizer_with, thresholds_of
from kouling.measure.intervals import CONFIDENCE, NONE_SEEN, poisson, wilson
from kouling.recognizer import Engine, Runner

LOW, HIGH = 0.2, 0.99  # below, a command is mostly wrong; above, confidence tells one event from another no longer
LOGITS = np.linspace(logit(LOW), logit(HIGH), 201)
GRID = 1 / (1 + np.exp(-LOGITS))  # the thresholds that are tried
WEIGHTS = {"words": 0.8, UNKNOWN: 0.1, SILENCE: 0.1}  # of the clips, however many there are of each
PRIOR_SLOPE = 1.0  # an alarm of ten times the odds is ten times as rare; two models, 1.6 h of speech: 0.92 and 1.05
PRIOR_EVENTS = 10.0  # how many events weigh as much as what is known before
# How sure models taught from text are of people, logistic in the logit: six words of Mycroft's and Hymel's, 938 clips.
PEOPLE_LOGIT, PEOPLE_SPREAD = 1.6, 1.5
PRIOR_CLIPS = 10.0  # how many clips of a command weigh as much as that
ROUNDS = 6  # of hearing all again, where thresholds turn out to let more through

Curve = NDArray[np.float64]  # a number for each threshold of GRID


class CannotReach(Exception):
    """No thresholds reach the rate; the text says what can be reached, and `per_hour` is that."""

    def __init__(self, text: str, per_hour: float) -> None:
        super().__init__(text)
        self.per_hour = per_hour


@dataclass(frozen=True)
class Calibrated:
    """One command's threshold, and what it did on the recordings that it was chosen on."""

    name: str
    before: float
    threshold: float
    clips: int  # that say the command
    found: int
    alarms: int

    @property
    def recall(self) -> float | None:
        return self.found / self.clips if self.clips else None


@dataclass(frozen=True)
class Calibration:
    commands: tuple[Calibrated, ...]
    asked_per_hour: float
    hours: float  # of speech in which nothing is meant as a command
    clips: int  # that say no command, and how many of them gave one
    clips_wrong: int

    @property
    def alarms(self) -> int:
        return sum(command.alarms for command in self.commands)

    @property
    def interval_per_hour(self) -> tuple[float, float]:
        low, high = poisson(self.alarms)
        return low / self.hours, high / self.hours

    @property
    def proven(self) -> bool:
        """Whether there was enough speech for the rate to mean anything."""
        return self.hours * self.asked_per_hour >= NONE_SEEN

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval_per_hour
        clips, found = (sum(getattr(command, key) for command in self.commands) for key in ("clips", "found"))
        return {
            "thresholds": {command.name: command.threshold for command in self.commands},
            "asked_per_hour": self.asked_per_hour,
            "proven": self.proven,
            "hours": round(self.hours, 4),
            "false_alarms": self.alarms,
            "false_alarms_per_hour": round(self.alarms / self.hours, 4),
            "interval_per_hour": [round(low, 4), round(high, 4)],
            "clips": clips,
            "recall": round(found / max(clips, 1), 6),
            "recall_interval": [round(bound, 6) for bound in wilson(found, clips)],
            "other_clips": self.clips,
            "other_clips_wrong": self.clips_wrong,
            "per_command": {
                c.name: {
                    "before": c.before,
                    "threshold": c.threshold,
                    "clips": c.clips,
                    "recall": None if c.recall is None else round(c.recall, 6),
                    "false_alarms": c.alarms,
                }
                for c in self.commands
            },
        }


def calibrate(
    runner: Runner | Engine,
    command_set: CommandSet,
    data: Path,
    speech: Path | None,
    per_hour: float,
    skipped: list[str],
    unproven: bool = False,
    report: Callable[[str, int], None] = lambda phase, recordings: None,
) -> Calibration:
    """Thresholds with the fewest errors on the clips of `data` at `per_hour` false alarms in `speech`; without
    `speech`, in the clips that say no command. Commands without clips are taken to be missed as the others are.
    unproven: also where there is too little speech to show such a rate.

    Raises: ValueError where there are no clips of commands, no recordings without, or too few of them; CannotReach.
    """
    before = thresholds_of(runner.info, command_set)
    low = recognizer_with(runner, command_set, LOW)
    clips = listen(low, data, skipped, lambda done: report("clips", done))
    if not any(heard.commanded for heard in clips):
        found = sorted({heard.name.split("/")[0] for heard in clips})
        raise ValueError(
            f"{data}: no folder is named after a command; folders: {_listed(found)}; commands: {_listed(before)}"
        )
    running = listen(low, speech, skipped, lambda done: report("speech", done)) if speech else _others(clips)
    hours = sum(heard.seconds for heard in running) / 3600
    if not hours:
        raise ValueError(
            f"{data}: every recording says a command; give speech without any to --speech, or folders of other words"
        )
    if per_hour * hours < NONE_SEEN and not unproven:
        raise ValueError(
            f"{_duration(hours)} without commands cannot show {per_hour:g} false alarms an hour: that takes "
            f"{_duration(NONE_SEEN / per_hour)} with none ({CONFIDENCE:.0%} confidence); these can show "
            f"{_up(NONE_SEEN / hours):g}; give more with --speech, ask for that, or choose with --unproven"
        )
    allowed = math.floor(per_hour * hours + 1e-9)
    wanted = allowed
    for _ in range(ROUNDS):
        thresholds = choose(clips, running, list(before), per_hour, hours, wanted)
        if thresholds is None:
            break
        chosen = recognizer_with(runner, command_set, thresholds)
        alarms = listen(chosen, speech, [], lambda done: report("checking", done)) if speech else None
        heard = listen(chosen, data, [], lambda done: report("checking", done))
        result = _result(before, thresholds, heard, _others(heard) if alarms is None else alarms, per_hour)
        if result.alarms <= allowed:
            return result
        wanted -= max(result.alarms - allowed, 1)  # an event may stand in another's way only while it is heard
        if wanted < 0:
            break
    raise _reachable(clips, running, hours, per_hour)


def choose(
    clips: Sequence[Heard], running: Sequence[Heard], names: Sequence[str], per_hour: float, hours: float, allowed: int
) -> dict[str, float] | None:
    """Thresholds with the fewest errors on the clips, at no more than `per_hour` alarms expected and `allowed` counted.
    What is expected gives way where it cannot be had; None where the count cannot."""
    errors = {name: error_curve(clips, name) for name in names if any(heard.label == name for heard in clips)}
    middle = np.mean(list(errors.values()), axis=0)
    costs = np.array([errors.get(name, middle) for name in names])
    events = {name: np.array([e.confidence for h in running for e in h.events if e.name == name]) for name in names}
    counts = np.array([(events[name][:, None] >= GRID).sum(axis=0) for name in names])
    rates = tail_rates([events[name] for name in names], hours)
    rows = np.arange(len(names))

    def at(weight: float) -> NDArray[np.int64]:
        """The best threshold of each command where an alarm an hour costs `weight`."""
        best: NDArray[np.int64] = np.argmin(costs + weight * rates, axis=1)
        return best

    for limit in (per_hour, math.inf):  # inf: the count alone

        def kept(picked: NDArray[np.int64], limit: float = limit) -> bool:
            return bool(rates[rows, picked].sum() <= limit and counts[rows, picked].sum() <= allowed)

        low, high = -18.0, 18.0  # of log weight
        if not kept(at(math.exp(high))):
            continue
        for _ in range(50):
            weight = (low + high) / 2
            low, high = (low, weight) if kept(at(math.exp(weight))) else (weight, high)
        picked = at(math.exp(high))
        return {name: round(float(GRID[index]), 3) for name, index in zip(names, picked, strict=True)}
    return None


def error_curve(clips: Sequence[Heard], name: str) -> Curve:
    """What a command adds to the share of wrong clips, for each threshold: its own missed, and others taken for it."""
    curve = np.zeros(len(GRID))
    commands = len({heard.label for heard in clips if heard.commanded})
    own = np.array([heard.confidence(name) for heard in clips if heard.label == name])
    missed = (own[:, None] < GRID).sum(axis=0) + PRIOR_CLIPS * missed_of_people()
    curve += WEIGHTS["words"] / commands * missed / (len(own) + PRIOR_CLIPS)
    for kind in WEIGHTS:
        others = [h for h in clips if h.label != name and (h.label == kind or (kind == "words" and h.commanded))]
        if others:
            taken = [h.confidence(name) if h.confidence(name) > h.confidence(h.label) else 0.0 for h in others]
            curve += WEIGHTS[kind] * (np.array(taken)[:, None] >= GRID).mean(axis=0)
    return curve


def missed_of_people() -> Curve:
    curve: Curve = 1 / (1 + np.exp((PEOPLE_LOGIT - LOGITS) / PEOPLE_SPREAD))
    return curve


def tail_rates(events: Sequence[NDArray[np.float64]], hours: float) -> NDArray[np.float64]:
    """events: of each command, the confidences of its false alarms -> (commands, GRID) expected alarms an hour."""
    excess = [np.array([logit(value) - logit(LOW) for value in each if value >= LOW]) for each in events]
    counts = np.array([len(each) for each in excess], dtype=np.float64)
    sums = np.array([each.sum() for each in excess])
    mean = max(counts.mean(), 0.5 / len(events))  # half an event, where there is none
    slope = (counts.sum() + PRIOR_EVENTS) / (sums.sum() + PRIOR_EVENTS / PRIOR_SLOPE)
    shrunk = (counts + 1.0) / (1.0 + 1.0 / mean)
    slopes = (counts + PRIOR_EVENTS) / (sums + PRIOR_EVENTS / slope)
    beyond = LOGITS - LOGITS[0]
    rates: NDArray[np.float64] = shrunk[:, None] / hours * np.exp(-slopes[:, None] * beyond)
    return rates


def _others(clips: Sequence[Heard]) -> list[Heard]:
    return [heard for heard in clips if not heard.commanded]


def _result(
    before: Mapping[str, float],
    thresholds: Mapping[str, float],
    clips: Sequence[Heard],
    running: Sequence[Heard],
    per_hour: float,
) -> Calibration:
    wrong = [event.name for heard in running for event in heard.events]
    rows = []
    for name, old in before.items():
        own = [heard for heard in clips if heard.label == name]
        found = sum(heard.confidence(name) > 0 for heard in own)
        rows.append(Calibrated(name, old, thresholds[name], len(own), found, wrong.count(name)))
    hours = sum(heard.seconds for heard in running) / 3600
    others = _others(clips)
    return Calibration(tuple(rows), per_hour, hours, len(others), sum(bool(heard.events) for heard in others))


def _reachable(clips: Sequence[Heard], running: Sequence[Heard], hours: float, per_hour: float) -> CannotReach:
    alarms = sum(event.confidence >= HIGH for heard in running for event in heard.events)
    said = [heard.confidence(heard.label) >= HIGH for heard in clips if heard.commanded]
    can = _up(alarms / hours)
    return CannotReach(
        f"{per_hour:g} false alarms an hour cannot be reached: with every threshold at {HIGH} there are {alarms} in "
        f"{_duration(hours)}, {can:g} an hour, and {np.mean(said):.0%} of the commands are heard; longer phrases are "
        "less often heard in other speech",
        can,
    )


def _listed(names: Any, most: int = 12) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _up(rate: float) -> float:
    """Rounded up to two digits, so that a rate which is offered can be had."""
    digits = 1 - math.floor(math.log10(rate)) if rate > 0 else 1
    rounded: float = math.ceil(rate * 10**digits - 1e-9) / 10**digits
    return rounded


def write(source: Path, output: Path, thresholds: Mapping[str, float]) -> None:
    """Write the command set `source` with these thresholds to `output`, all else as it stands, comments too.

    Raises: ValueError where it is no TOML; OSError where it cannot be written.
    """
    import tomlkit

    text = source.read_bytes().decode("utf-8")
    document: Any = tomlkit.parse(text)
    line_end = "\r\n" if "\r\n" in text else "\n"
    for entry in document["command"]:
        threshold = thresholds[entry["name"]]
        if "threshold" in entry or not isinstance(entry, tomlkit.items.Table):
            entry["threshold"] = threshold
            continue
        body = entry.value.body  # what stands between this command and the next, comments on that one, stays below
        below: list[Any] = []
        while body and body[-1][0] is None:
            below.insert(0, body.pop())
        if body and not body[-1][1].trivia.trail:  # the last line of the file has no end
            body[-1][1].trivia.trail = line_end
        entry.append("threshold", threshold)
        entry["threshold"].trivia.trail = line_end
        body.extend(below)
    write_whole(output.resolve(), tomlkit.dumps(document).encode())
