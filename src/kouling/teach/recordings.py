"""Recordings that users bring: looked at before anything is learned from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import SAMPLE_RATE_HZ, AudioError
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.noise import FULL_SCALE, block_energies_db, speech_bounds
from kouling.measure.recordings import audio_files

QUIETEST_DB = 25.0  # above int16's last bit; a silent room through a microphone is below
LEAST_CONTRAST_DB = 6.0  # of the loudest 10 ms over the background: with less, nothing was said
MOST_CLIPPED = 0.02  # of the samples of speech
SHORTEST_S, LONGEST_S = 0.15, 8.0


@dataclass
class Usable:
    """The recordings that can be learned from, gathered in one folder; None where there are none."""

    folder: Path | None = None
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def problem_of(samples: NDArray[np.int16], longest_s: float = LONGEST_S) -> str:
    """What is wrong with a recording of a command; empty: nothing that can be seen without a model."""
    seconds = len(samples) / SAMPLE_RATE_HZ
    if seconds < SHORTEST_S:
        return f"{seconds:.2f} s long; needed: {SHORTEST_S} s or more"
    energies = block_energies_db(samples)
    if energies.max() < QUIETEST_DB:
        return "silent"
    first, last = speech_bounds(samples)
    if energies.max() - np.percentile(energies, 10) < LEAST_CONTRAST_DB and seconds > 1.0:
        return "nothing stands out of its background"
    if (last - first) / SAMPLE_RATE_HZ > longest_s:
        return f"{(last - first) / SAMPLE_RATE_HZ:.1f} s of sound; allowed: {longest_s:g} s or less; cut it out"
    clipped = float((np.abs(samples[first:last].astype(np.int32)) >= FULL_SCALE - 1).mean()) if last > first else 0.0
    if clipped > MOST_CLIPPED:
        return f"clipped: {clipped:.0%} of it is at full scale; record it with less gain"
    return ""


def read_checked(
    files: Sequence[Path], longest_s: float = LONGEST_S
) -> tuple[list[tuple[Path, NDArray[np.int16]]], list[str]]:
    """The recordings that can be used, and a line for each that cannot. longest_s: of the sound in one."""
    good: list[tuple[Path, NDArray[np.int16]]] = []
    problems: list[str] = []
    for file in files:
        try:
            samples = audio.read(file)
        except (AudioError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        problem = problem_of(samples, longest_s)
        if problem:
            problems.append(f"{file}: {problem}")
        else:
            good.append((file, samples))
    return good, problems


def gather(
    given: Path | None,
    kept: Path | None,
    known: Mapping[str, str],
    into: Path,
    phrases_of: Mapping[str, Sequence[str]],
    tell: Callable[[NDArray[np.int16], Sequence[str]], str | None] | None = None,
) -> Usable:
    """Copy what can be used of `given` and `kept`, DIR/<command or phrase>/*.wav, into one folder of as many.

    known: the labels that are taught; `_unknown_` holds what must not fire. phrases_of: each command, as far as its
    phrases are listed. tell: which of several is said in a recording of their command, if any; None: nothing knows yet.
    Raises: ValueError for a folder that is missing, holds no recording, or is named after no command, and where no
    recording can be used.
    """
    result = Usable()
    shutil.rmtree(into, ignore_errors=True)
    for folder in (given, kept):
        if folder is None:
            continue
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; needed: DIR/<command>/*.wav")
        files = audio_files(folder)
        if not files:
            raise ValueError(f"{folder}: no recording in it; needed: DIR/<command>/*.wav")
        labels = {file.parent.name: label_of(file.parent.name, known, phrases_of) for file in files}
        for name, label in labels.items():
            if label is None and name in phrases_of and tell is None:
                listed = ", ".join(phrase.replace(" ", "_") for phrase in phrases_of[name][:12])
                raise ValueError(
                    f"{folder}: {name!r} has several phrases, and which of them is said must be known; "
                    f"allowed: folders named {listed}"
                )
            if label is None and name not in phrases_of:
                listed = ", ".join(sorted(known)[:12])
                raise ValueError(f"{folder}: {name!r} is no command; allowed: {listed}, or {UNKNOWN}")
        good, problems = read_checked(files)
        result.problems += problems
        for number, (file, samples) in enumerate(good):
            name = file.parent.name
            label = labels[name]
            if label is None:
                assert tell is not None
                label = tell(samples, phrases_of[name])
            if label is None:
                result.problems.append(
                    f"{file}: none of the phrases of {name!r} can be made out; put it into a folder named after its own"
                )
                continue
            path = into / label / f"{folder.name}-{number:04d}-{file.stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, samples)
            result.counts[label] = result.counts.get(label, 0) + 1
        if not result.counts:
            raise ValueError(f"{folder}: none of its {len(files)} recordings can be used; the first: {problems[0]}")
        result.folder = into
    return result


def label_of(folder: str, known: Mapping[str, str], phrases_of: Mapping[str, Sequence[str]]) -> str | None:
    """The taught label that a folder's name stands for: the only phrase of its command; itself, or with spaces for its
    underscores, or words that are taught. None for a command that has several phrases, and for what is none of these.
    """
    phrases = phrases_of.get(folder, ())
    if phrases and folder not in phrases:
        return phrases[0] if len(phrases) == 1 else None
    if folder in known or folder == UNKNOWN:
        return folder
    spaced = folder.replace("_", " ")
    return spaced if spaced in known or all(word in known for word in spaced.split()) else None
