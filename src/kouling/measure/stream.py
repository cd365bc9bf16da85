"""Accuracy on streams: commands found in a long noisy recording, and false alarms in hours of speech."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import SAMPLE_RATE_HZ
from kouling.commands import Command
from kouling.measure import noise
from kouling.measure.accuracy import label_of
from kouling.measure.recordings import labelled
from kouling.recognizer import Recognizer

# An event counts as the command whose time it overlaps, give or take this much.
TOLERANCE_S = 0.3
LONGEST_MINUTES = 24 * 60  # of a stream, which is made in memory


@dataclass(frozen=True)
class Spoken:
    """A command in a stream, and when it is said."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class StreamResult:
    spoken: int
    found: int
    false_alarms: int
    hours: float
    wrong: tuple[tuple[str, float], ...]  # the false alarms: command, time in seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "spoken": self.spoken,
            "found": self.found,
            "false_alarms": self.false_alarms,
            "hours": round(self.hours, 4),
            "false_alarms_per_hour": round(self.false_alarms / max(self.hours, 1e-9), 3),
            "wrong": [{"command": name, "at_s": round(at_s, 2)} for name, at_s in self.wrong],
        }


def compose(
    folder: Path, names: list[str], minutes: float, count: int, snr_db: float, noises: Path | None, seed: int = 0
) -> tuple[NDArray[np.int16], list[Spoken]]:
    """A stream of `count` commands drawn from the clips of `folder`, spread over `minutes`, in noise throughout.

    Every command is brought to the level of the middle one, and the noise, recordings from `noises` one after the other
    or pink, is `snr_db` below it. Clips are said again where there are fewer.
    Raises: ValueError where the folder holds no clip of a command, or the commands do not fit.
    """
    if not 0 < minutes <= LONGEST_MINUTES or count < 1 or not -200 <= snr_db <= 200:
        raise ValueError(
            f"{count} commands in {minutes} minutes at {snr_db} dB; "
            f"allowed: 1 or more, up to {LONGEST_MINUTES} minutes, -200 to 200 dB"
        )
    rng = np.random.default_rng(seed)
    clips = [(label_of(label, names), name, file) for label, name, file in labelled(folder)]
    clips = [clip for clip in clips if clip[0] in names]
    if not clips:
        raise ValueError(f"{folder}: no clip of {', '.join(names)}")
    total = round(minutes * 60 * SAMPLE_RATE_HZ)
    slot = total // count
    stream = np.zeros(total, dtype=np.float32)
    spoken: list[Spoken] = []
    said: list[tuple[slice, float]] = []  # where a clip lies, and its level
    for number, index in enumerate(np.resize(rng.permutation(len(clips)), count)):
        label, name, file = clips[index]
        samples = audio.read(file, name)
        if len(samples) > slot:
            raise ValueError(
                f"{count} commands do not fit into {minutes} minutes: {name} is longer than its share of the time"
            )
        start = number * slot + int(rng.integers(slot - len(samples) + 1))
        stream[start : start + len(samples)] += samples
        first, last = noise.speech_bounds(samples)
        spoken.append(Spoken(label, (start + first) / SAMPLE_RATE_HZ, (start + last) / SAMPLE_RATE_HZ))
        said.append((slice(start, start + len(samples)), max(noise.speech_rms(samples), 1.0)))
    level = float(np.median([own for _, own in said]))
    for place, own in said:
        stream[place] *= np.float32(level / own)
    stream += np.float32(level * 10 ** (-snr_db / 20)) * _background(total, noises, rng)
    return noise.to_int16(stream), spoken


def _background(length: int, noises: Path | None, rng: np.random.Generator) -> NDArray[np.float32]:
    """(length,) of RMS about 1: every recording in random order, each brought to the same level, or pink noise."""
    if noises is None:
        return noise.colored_noise(length, 1.0, int(rng.integers(2**31)))
    recordings = [audio.read(file, name) for _, name, file in labelled(noises)]
    parts: list[NDArray[np.float32]] = []
    while sum(map(len, parts)) < length:
        samples = recordings[rng.integers(len(recordings))]
        parts.append(noise.recorded_noise(samples, len(samples), 0))
    return np.concatenate(parts)[:length]


def hear(recognizer: Recognizer, samples: NDArray[np.int16], block_s: float = 1.0) -> list[Command]:
    """All commands of a recording, streamed through a recogniser that starts afresh."""
    recognizer.reset()
    size = round(block_s * SAMPLE_RATE_HZ)
    heard: list[Command] = []
    for start in range(0, len(samples), size):
        heard += recognizer.accept(samples[start : start + size])
    return heard + recognizer.finish()


def live(samples: NDArray[np.int16], size: int, silence_s: float) -> Iterator[NDArray[np.int16]]:
    """A recording and the silence behind it, in the portions of `size` samples in which a live stream comes."""
    heard = np.concatenate([samples, np.zeros(round(silence_s * SAMPLE_RATE_HZ), np.int16)])
    return (heard[start : start + size] for start in range(0, len(heard), size))


def time_to_command_s(
    recognizer: Recognizer, samples: NDArray[np.int16], name: str, portions: Iterable[NDArray[np.int16]]
) -> float | None:
    """Seconds from the end of the word in `samples`, by its energy, to the event `name`, when it is heard in portions;
    negative where it is decided before the word is over, None where it is not. portions: of the samples, and of what
    comes behind them. Computing is not in it."""
    recognizer.reset()
    fed = 0
    for portion in portions:
        fed += len(portion)
        if any(event.name == name for event in recognizer.accept(portion)):
            return (fed - noise.speech_bounds(samples)[1]) / SAMPLE_RATE_HZ
    return None


def score(heard: list[Command], spoken: list[Spoken], seconds: float) -> StreamResult:
    """Each spoken command is found by at most one event; every other event is a false alarm."""
    left = list(spoken)
    wrong = []
    for event in heard:
        match = next((s for s in left if s.name == event.name and _overlap(s, event)), None)
        if match is None:
            wrong.append((event.name, event.end_s))
        else:
            left.remove(match)
    return StreamResult(len(spoken), len(spoken) - len(left), len(wrong), seconds / 3600, tuple(wrong))


def _overlap(spoken: Spoken, event: Command) -> bool:
    return event.end_s >= spoken.start_s - TOLERANCE_S and event.start_s <= spoken.end_s + TOLERANCE_S


def false_alarms(
    recognizer: Recognizer, path: Path, report: Callable[[int], None] = lambda recordings: None
) -> StreamResult:
    """Listen to recordings in which nothing is meant as a command; every event counts, words truly said among them too.

    Raises: ValueError where the folder holds no recording, or one cannot be read.
    """
    wrong, seconds = [], 0.0
    for done, (_, name, file) in enumerate(labelled(path), start=1):
        samples = audio.read(file, name)
        wrong += [(event.name, seconds + event.end_s) for event in hear(recognizer, samples)]
        seconds += len(samples) / SAMPLE_RATE_HZ
        report(done)
    return StreamResult(0, 0, len(wrong), seconds / 3600, tuple(wrong))
