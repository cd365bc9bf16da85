"""Clips of what went wrong at the microphone, kept as its user says: `kouling teach --more` learns from them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import SAMPLE_RATE_HZ
from kouling.commands import Command
from kouling.measure.accuracy import UNKNOWN

REMEMBERED_S = 30.0  # of sound; what is older cannot be kept
MISS_S = 3.0  # of sound that is kept where nothing was heard of a command
MARGIN_S = 0.4  # on both sides of what was heard
HELP = "a number: that was a false alarm; a number and a command: it was that; m and a command: that was missed"


@dataclass
class Keeper:
    """The last half minute of sound, and the numbered events in it."""

    folder: Path
    names: tuple[str, ...]  # of the commands
    kept: int = 0
    _blocks: deque[NDArray[np.int16]] = field(default_factory=deque)
    _samples: int = 0  # so far
    _events: dict[int, Command] = field(default_factory=dict)

    def hear(self, samples: NDArray[np.int16]) -> None:
        """The next samples of the stream."""
        self._blocks.append(samples)
        self._samples += len(samples)
        most = REMEMBERED_S * SAMPLE_RATE_HZ
        while sum(map(len, self._blocks)) - len(self._blocks[0]) > most:
            self._blocks.popleft()

    def number(self, event: Command) -> int:
        """The number by which an event is called."""
        self._events[len(self._events) + 1] = event
        return len(self._events)

    def answer(self, line: str) -> str:
        """What a line that was typed keeps, in words. Raises: ValueError for one that means nothing, and what does."""
        first, _, name = line.strip().partition(" ")
        name = name.strip()
        if name and name not in self.names:
            raise ValueError(f"no command {name!r}; allowed: {', '.join(self.names)}")
        if first == "m" and name:
            return self._write(name, self._samples / SAMPLE_RATE_HZ - MISS_S, self._samples / SAMPLE_RATE_HZ)
        if first.isdecimal() and int(first) in self._events:
            event = self._events[int(first)]
            return self._write(name or UNKNOWN, event.start_s - MARGIN_S, event.end_s + MARGIN_S)
        raise ValueError(f"{line.strip()!r} means nothing here; allowed: {HELP}")

    def _write(self, label: str, start_s: float, end_s: float) -> str:
        sound = np.concatenate([*self._blocks, np.zeros(0, dtype=np.int16)])
        first = self._samples - len(sound)
        start, end = (round(at * SAMPLE_RATE_HZ) - first for at in (start_s, end_s))
        clip = sound[max(start, 0) : max(end, 0)]
        if not len(clip):
            raise ValueError(f"that was more than {REMEMBERED_S:g} s ago; it is forgotten")
        path = self.folder / label / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.kept:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, clip)
        self.kept += 1
        return f"kept {len(clip) / SAMPLE_RATE_HZ:.1f} s as {path}"
