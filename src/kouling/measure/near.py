"""What was almost heard: commands that were missed by little, and other sounds that nearly were one, or were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import SAMPLE_RATE_HZ
from kouling.commands import Command
from kouling.measure.detection import Heard, logit
from kouling.measure.mining import safe_name
from kouling.measure.recordings import blocks_of, labelled

MISSED, ALMOST, ALARM = "missed", "almost", "alarm"
MOST = 12  # of each kind
BEFORE_S, AFTER_S = 0.5, 0.7


@dataclass(frozen=True)
class Near:
    kind: str  # MISSED: said, and not sure enough; ALMOST: not said, and nearly sure enough; ALARM: not said, and heard
    source: Path  # folder or tar of the recording
    recording: str
    label: str  # what was said; SILENCE, UNKNOWN
    event: Command
    threshold: float
    clip: str = ""  # file to listen to, within the report

    def to_dict(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "recording": f"{self.source}/{self.recording}",
            "said": self.label,
            "command": self.event.name,
            "at_s": self.event.start_s,
            "confidence": self.event.confidence,
            "threshold": self.threshold,
            "clip": self.clip,
        }


def find(heard: Mapping[Path, Sequence[Heard]], thresholds: Mapping[str, float], most: int = MOST) -> list[Near]:
    """The nearest of each kind, the nearest first. heard: by source, with the events far below the thresholds."""
    found: dict[str, list[Near]] = {MISSED: [], ALMOST: [], ALARM: []}
    seen: set[tuple[str, str, float]] = set()  # noise may lie among the clips too
    for source, recordings in heard.items():
        for each in recordings:
            for event in each.events:
                place = each.name, event.name, event.start_s
                if place in seen:
                    continue
                seen.add(place)
                threshold = thresholds[event.name]
                over = event.confidence >= threshold
                if event.name == each.label:
                    if over or event.confidence < each.confidence(event.name):
                        continue
                    kind = MISSED
                else:
                    kind = ALARM if over else ALMOST
                found[kind].append(Near(kind, source, each.name, each.label, event, threshold))
    for kind, entries in found.items():
        entries.sort(key=lambda near: abs(logit(near.event.confidence) - logit(near.threshold)), reverse=kind == ALARM)
    return [near for entries in found.values() for near in entries[:most]]


def write_clips(found: Sequence[Near], folder: Path) -> list[Near]:
    """A WAV file for each in `folder`, which is emptied of those of an earlier report -> the same, with their clips.

    Raises: AudioError where one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    written: dict[int, Near] = {}
    for source in {near.source for near in found}:
        wanted: dict[str, list[int]] = {}
        for index, near in enumerate(found):
            if near.source == source:
                wanted.setdefault(near.recording, []).append(index)
        for _, name, file in labelled(source):
            for index in wanted.get(name, []):
                near = found[index]
                samples = excerpt(blocks_of(file, name), near.event.start_s - BEFORE_S, near.event.end_s + AFTER_S)
                recording = safe_name(name.rpartition(".")[0])
                clip = folder / f"{near.kind}-{safe_name(near.event.name)}-{recording}-{near.event.start_s:.2f}.wav"
                audio.write(clip, samples)
                written[index] = replace(near, clip=f"{folder.name}/{clip.name}")
    return [written[index] for index in sorted(written)]


def excerpt(blocks: Iterable[NDArray[np.int16]], start_s: float, end_s: float) -> NDArray[np.int16]:
    """The samples from `start_s` to `end_s`, as far as there are any."""
    start, end = max(round(start_s * SAMPLE_RATE_HZ), 0), round(end_s * SAMPLE_RATE_HZ)
    parts, first = [np.zeros(0, np.int16)], 0
    for block in blocks:
        parts.append(block[max(start - first, 0) : max(end - first, 0)])
        first += len(block)
        if first >= end:
            break
    return np.concatenate(parts)
