"""`kouling enrol`: a command from a few recordings, without training, by how the phone model hears them.

The model spells each recording in phones. The spellings that together explain all recordings best become the phrases of
the command, so an enrolled set is an ordinary one, and runs wherever the model does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio, commands, recognizer
from kouling.audio import SAMPLE_RATE_HZ
from kouling.measure import detection, thresholds
from kouling.measure.accuracy import SILENCE
from kouling.measure.detection import Heard
from kouling.measure.noise import speech_bounds
from kouling.measure.recordings import labelled
from kouling.recognizer import Engine, Runner
from kouling.teach import BACKGROUND
from kouling.teach.phones import PHONES
from kouling.teach.recordings import read_checked

BEAM = 24
LEAST = -9.0  # log-probability of a phone in a frame below which it is not followed up
MOST_SPELLINGS = 12
FEWEST_PHONES = 3  # a spelling of fewer is in every sentence

FEWEST, MOST = 3, 8  # recordings
MARGIN_S = 0.3  # of silence around what was said
ODD = 12.0  # nats by which a recording may be worse explained by the others' spellings than they are by each other's
BACKGROUND_MINUTES = 20.0  # of speech in which nothing may be heard

Spelling = tuple[int, ...]
Spelled = tuple[Path, NDArray[np.int16], NDArray[np.float32]]  # a recording, and how the model hears it


@dataclass
class _Prefix:
    """Log-probabilities of a prefix in CTC's prefix search: with a blank last, and with its own last unit."""

    blank: float = -math.inf
    unit: float = -math.inf

    @property
    def total(self) -> float:
        return float(np.logaddexp(self.blank, self.unit))


def spellings(log_probs: NDArray[np.float32], beam: int = BEAM) -> list[tuple[Spelling, float]]:
    """The likeliest strings of units and their log-probabilities, the likeliest first.

    log_probs: (N, V), 0 blank. CTC prefix search (Graves 2012, "Supervised Sequence Labelling", 7.5).
    """
    beams: dict[Spelling, _Prefix] = {(): _Prefix(blank=0.0)}
    for frame in log_probs:
        likely = [int(unit) for unit in np.flatnonzero(frame > LEAST) if unit > 0]
        grown: dict[Spelling, _Prefix] = {}
        for prefix, score in beams.items():
            same = grown.setdefault(prefix, _Prefix())
            same.blank = float(np.logaddexp(same.blank, score.total + frame[0]))
            if prefix:
                same.unit = float(np.logaddexp(same.unit, score.unit + frame[prefix[-1]]))
            for unit in likely:
                before = score.blank if prefix and prefix[-1] == unit else score.total
                if before == -math.inf:
                    continue
                longer = grown.setdefault((*prefix, unit), _Prefix())
                longer.unit = float(np.logaddexp(longer.unit, before + frame[unit]))
        best = sorted(grown.items(), key=lambda item: -item[1].total)[:beam]
        beams = dict(best)
    return [(prefix, score.total) for prefix, score in beams.items()]


def score(log_probs: NDArray[np.float32], spelling: Spelling) -> float:
    """Log-probability that the frames say exactly a spelling: the forward recursion of CTC (Graves et al. 2006)."""
    states = np.full(2 * len(spelling) + 1, -np.inf)
    labels = np.zeros(len(states), dtype=np.int64)
    labels[1::2] = spelling
    skips = np.zeros(len(states), dtype=bool)  # over the blank between two different units
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    states[0] = 0.0
    for frame in log_probs:
        moved = states.copy()
        moved[1:] = np.logaddexp(moved[1:], states[:-1])
        moved[2:] = np.where(skips[2:], np.logaddexp(moved[2:], states[:-2]), moved[2:])
        states = moved + frame[labels]
    return float(np.logaddexp(states[-1], states[-2])) if len(states) > 1 else float(states[-1])


def chosen(recordings: Sequence[NDArray[np.float32]], most: int = MOST_SPELLINGS) -> list[tuple[Spelling, float]]:
    """Of the spellings of all recordings, few that explain each of them well: each next one is what helps most.

    recordings: log-probabilities (N, V) of each -> spellings and how much each added, in nats.
    """
    found = {spelling for each in recordings for spelling, _ in spellings(each) if len(spelling) >= FEWEST_PHONES}
    pool = sorted(found)
    if not pool:
        return []
    scores = np.array([[score(each, spelling) for each in recordings] for spelling in pool])
    explained = np.full(len(recordings), -30.0)
    picked: list[tuple[Spelling, float]] = []
    while len(picked) < most:
        together = np.logaddexp(explained, scores)
        gains = (together - explained).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] < 0.1:
            break
        picked.append((pool[best], float(gains[best])))
        explained = together[best]
        scores[best] = -np.inf
    return picked


@dataclass(frozen=True)
class Enrolled:
    """What came of it."""

    name: str
    phrases: tuple[str, ...]
    threshold: float
    recordings: int
    heard: int  # of the recordings, by a set that lacks the spellings of the one that is tried
    alarms: int  # in the background at this threshold
    hours: float
    problems: tuple[str, ...]


def enrol(model: str | Path, name: str, files: Sequence[Path], per_hour: float, taken: Sequence[str] = ()) -> Enrolled:
    """A command from three to eight recordings of it. taken: phrases that the set has already.

    Raises: ValueError, one line, for a model that does not spell in phones, too few or too many recordings, and where
    too few can be used, with what is wrong with the first.
    """
    if not FEWEST <= len(files) <= MOST:
        raise ValueError(f"{len(files)} recordings; allowed: {FEWEST} to {MOST}")
    runner = recognizer.load_runner(model)
    if not set(PHONES) <= set(runner.info.units):
        raise ValueError(f"{runner.info.name} does not spell in phones; allowed: en-phones, or one made like it")
    good, problems = read_checked(files)
    heard_by = recognizer.recognizer_of(runner)
    spelled = [(file, samples, heard_by.log_probs(around(samples))) for file, samples in good]
    spelled, odd = without_odd(spelled)
    problems += odd
    if len(spelled) < FEWEST:
        raise ValueError(f"{len(spelled)} of {len(files)} recordings can be used; needed: {FEWEST}; {problems[0]}")
    picked = [spelling for spelling, _ in chosen([log_probs for *_, log_probs in spelled])]
    if not picked:
        raise ValueError(f"{name!r}: no sound in the recordings that stands out; needed: longer words, or louder")
    units = runner.info.units
    phrases = tuple(" ".join(units[unit] for unit in spelling) for spelling in picked)
    phrases = tuple(phrase for phrase in phrases if phrase not in set(taken))
    if not phrases:
        raise ValueError(f"{name!r} sounds like a command that the set has already; allowed: one that differs")
    sounds = [samples for _, samples, _ in spelled]
    threshold, heard, alarms, hours = threshold_for(runner, name, phrases, sounds, per_hour)
    return Enrolled(name, phrases, threshold, len(sounds), heard, alarms, hours, tuple(problems))


def around(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """The sound of a recording with a little silence around it."""
    first, last = speech_bounds(samples)
    margin = round(MARGIN_S * SAMPLE_RATE_HZ)
    taken = samples[max(first - margin, 0) : last + margin]
    return np.concatenate([np.zeros(margin, np.int16), taken, np.zeros(margin, np.int16)])


def without_odd(spelled: Sequence[Spelled]) -> tuple[list[Spelled], list[str]]:
    """The recordings that say the same, and a line for each that says something else than the others."""
    if len(spelled) < FEWEST:
        return list(spelled), []
    explained = []
    for number, (*_, own) in enumerate(spelled):
        others = [log_probs for i, (*_, log_probs) in enumerate(spelled) if i != number]
        scores = [score(own, spelling) for spelling, _ in chosen(others)]
        explained.append(max(scores, default=-math.inf))
    middle = float(np.median(explained))
    kept = [each for each, value in zip(spelled, explained, strict=True) if value >= middle - ODD]
    odd = [
        f"{file}: sounds unlike the other recordings"
        for (file, *_), value in zip(spelled, explained, strict=True)
        if value < middle - ODD
    ]
    return kept, odd


def threshold_for(
    runner: Runner | Engine, name: str, phrases: Sequence[str], sounds: Sequence[NDArray[np.int16]], per_hour: float
) -> tuple[float, int, int, float]:
    """The threshold for so many false alarms an hour; how many of the recordings are heard at it, each by a set made of
    the others would be fairer but takes as many times as long; false alarms, and hours of background."""
    table = {"command": [{"name": name, "phrases": list(phrases)}]}
    low = detection.recognizer_with(runner, commands.parse(table, runner.info.units, name), detection.LOWEST)
    clips = [heard_in(low, name, samples) for samples in sounds]
    running = [heard_in(low, "", samples) for samples in background(BACKGROUND_MINUTES)]
    hours = sum(each.seconds for each in running) / 3600
    allowed = math.floor(per_hour * hours)
    picked = thresholds.choose(clips, running, [name], per_hour, hours, allowed) or {name: thresholds.HIGH}
    heard = sum(each.confidence(name) >= picked[name] for each in clips)
    alarms = sum(event.confidence >= picked[name] for each in running for event in each.events)
    return picked[name], heard, alarms, hours


def heard_in(heard_by: recognizer.Recognizer, label: str, samples: NDArray[np.int16]) -> Heard:
    events, seconds = detection.hear(heard_by, [samples])
    return Heard(label or SILENCE, "", seconds, events)


def background(minutes: float) -> Iterator[NDArray[np.int16]]:
    """That much of the running speech that comes with kouling, always the same."""
    left = minutes * 60
    for label, name, file in labelled(BACKGROUND):
        if label == "speech" and left > 0:
            samples = audio.read(file, name)
            left -= len(samples) / SAMPLE_RATE_HZ
            yield samples
