"""The recordings that come along, and what their running speech says: background.tar, background-words.tsv."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.measure.recordings import labelled

PACK = Path(__file__).parent / "background.tar"
WORDS = "yes no up down left right go stop zero one two three four five eight nine".split()
RARE = "bed bird cat dog happy house marvin off on seven sheila six tree wow".split()
LABELS = ("speech", "noise", *WORDS, *RARE)
LONGEST_S = 2.6  # of what is cut out of running speech
PAUSE_S = 0.15  # at which it is cut in any case


def speech() -> Iterator[NDArray[np.int16]]:
    """The recordings of its running speech."""
    return (audio.read(file, name) for label, name, file in labelled(PACK) if label == "speech")


def saying(phrases: Iterable[str]) -> set[str]:
    """The recordings of its running speech that say one of these phrases, word for word."""
    said: dict[str, list[str]] = defaultdict(list)
    for name, _, _, words in cuts():
        said[name] += words
    wanted = [f" {phrase.lower()} " for phrase in phrases]
    return {name for name, words in said.items() if any(each in f" {' '.join(words)} " for each in wanted)}


def all_but(label: str) -> list[str]:
    """The other labels of the pack."""
    return [other for other in LABELS if other != label]


def cuts() -> Iterator[tuple[str, float, float, list[str]]]:
    """(recording, from, to, words) of stretches of its English speech, seconds."""
    path = PACK.with_name("background-words.tsv")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for name, words in groupby(lines, key=lambda line: line[0]):
        run: list[str] = []
        start = end = 0.0
        for _, first, last, word in words:
            if run and (float(first) - end > PAUSE_S or float(last) - start > LONGEST_S):
                yield name, start, end, run
                run = []
            start = start if run else float(first)
            end = float(last)
            run = [*run, word]
        yield name, start, end, run
