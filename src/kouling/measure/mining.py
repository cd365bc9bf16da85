"""False alarms collected from hours of recordings, as clips that a model learns to leave alone.

What was found is written at once, and a recording is noted as done when it is over. So the work may end at any time and
go on from there; what is found a second time, in the recording in which it ended, is not written twice.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from kouling import audio, recognizer
from kouling.audio import SAMPLE_RATE_HZ, AudioError
from kouling.commands import Command
from kouling.measure.detection import recognizer_with, thresholds_of
from kouling.measure.recordings import AUDIO_SUFFIXES

SUFFIXES = (*AUDIO_SUFFIXES, ".mp3", ".aif", ".aiff", ".caf")
BLOCK_S = 10.0
CLIP_S = 1.5  # of a word; of a phrase, MARGIN_S on either side if that is longer
MARGIN_S = 0.3
# A command is decided at most so long after its beginning: 5 s of phrase, 1.2 s of doubt, a second of gap, and what the
# engine computes at once. Samples older than that are forgotten.
KEPT_S = 20.0
MINED, DONE = "mined.csv", "done.csv"
MINED_HEAD = ["file", "time_s", "command", "confidence", "clip"]
DONE_HEAD = ["file", "seconds", "false_alarms", "heard_by"]


@dataclass
class Mined:
    recordings: int = 0  # listened to now
    before: int = 0  # done already
    seconds: float = 0.0
    events: list[Command] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Miner:
    def __init__(
        self, model: str | Path, command_set: str | Path | None, folder: Path, confidence: float | None = None
    ) -> None:
        """confidence: from which an event is collected; the thresholds of the commands if left out.

        Raises: ValueError where the model, the set or the confidence is unusable, or the folder holds no recording.
        """
        if confidence is not None and not 0 < confidence <= 1:
            raise ValueError(f"--confidence {confidence}; allowed: above 0, at most 1")
        runner = recognizer.load_runner(model)
        chosen = recognizer.chosen_commands(runner.info, command_set)
        thresholds = thresholds_of(runner.info, chosen) if confidence is None else confidence
        self.recognizer = recognizer_with(runner, chosen, thresholds)
        # What was heard by another model, or for other commands, is worth hearing again.
        self.heard_by = hashlib.sha256(repr((runner.info, chosen, thresholds)).encode()).hexdigest()[:12]
        self.folder = folder
        self.files = _recordings(folder)
        self.lengths_s = [_seconds(file) for file in self.files]

    @property
    def seconds(self) -> float:
        """Of all recordings, by their headers."""
        return sum(self.lengths_s)

    def run(self, output: Path, report: Callable[[float], None] = lambda seconds: None) -> Mined:
        """Listen to all recordings that are not done. report: called with the seconds gone through.

        Raises: OSError where a clip or list cannot be written.
        """
        result = Mined()
        done = {row["file"] for row in _rows(output / DONE) if row["heard_by"] == self.heard_by}
        known = {row["clip"] for row in _rows(output / MINED)}
        passed = 0.0
        for file, length_s in zip(self.files, self.lengths_s, strict=True):
            name = file.name if file == self.folder else file.relative_to(self.folder).as_posix()
            if output.resolve() in file.resolve().parents:  # our own clips, where OUT lies in DIR
                continue
            if name in done:
                result.before += 1
            else:
                events = result.events
                before, start_s, heard_s = len(events), passed, 0.0
                try:
                    for event, samples, heard_s in excerpts(self.recognizer, audio.stream(file, BLOCK_S)):
                        if event is not None:
                            clip = _clip_name(name, event)
                            if clip not in known:
                                (output / clip).parent.mkdir(parents=True, exist_ok=True)
                                audio.write(output / clip, samples)
                                row = [name, f"{event.start_s:.2f}", event.name, f"{event.confidence:.4f}", clip]
                                _append(output / MINED, MINED_HEAD, row)
                                known.add(clip)
                            events.append(event)
                        report(start_s + heard_s)
                except AudioError as error:  # damaged: what was found before stays, and it is tried again next time
                    result.skipped.append(str(error))
                else:
                    result.recordings += 1
                    _append(output / DONE, DONE_HEAD, [name, f"{heard_s:.2f}", len(events) - before, self.heard_by])
                result.seconds += heard_s
            passed += length_s
            report(passed)
        return result


def excerpts(
    heard_by: recognizer.Recognizer, blocks: Iterable[NDArray[np.int16]]
) -> Iterator[tuple[Command | None, NDArray[np.int16], float]]:
    """(event, the samples around it, seconds listened to) of each event, in bounded memory; (None, no samples, seconds)
    after each block."""
    heard_by.reset()
    none = np.zeros(0, np.int16)
    kept, first, total = none, 0, 0  # samples still in memory, the place of their first, and how many came
    waiting: deque[tuple[Command, int, int]] = deque()  # whose clips are not whole yet

    def cut(end_of_recording: bool) -> Iterator[tuple[Command, NDArray[np.int16], float]]:
        while waiting and (end_of_recording or waiting[0][2] <= total):
            event, start, stop = waiting.popleft()
            yield event, kept[max(start - first, 0) : stop - first], total / SAMPLE_RATE_HZ

    for block in blocks:
        kept = np.concatenate([kept, block])
        total += len(block)
        waiting += [(event, *_bounds(event)) for event in heard_by.accept(block)]
        yield from cut(False)
        if len(kept) > round(KEPT_S * SAMPLE_RATE_HZ):
            forgotten = len(kept) - round(KEPT_S * SAMPLE_RATE_HZ)
            kept, first = kept[forgotten:].copy(), first + forgotten
        yield None, none, total / SAMPLE_RATE_HZ
    waiting += [(event, *_bounds(event)) for event in heard_by.finish()]
    yield from cut(True)


def _bounds(event: Command) -> tuple[int, int]:
    """First and last sample of an event's clip; the last may lie behind the recording's end."""
    middle_s = (event.start_s + event.end_s) / 2
    half_s = max(CLIP_S / 2, (event.end_s - event.start_s) / 2 + MARGIN_S)
    return max(round((middle_s - half_s) * SAMPLE_RATE_HZ), 0), round((middle_s + half_s) * SAMPLE_RATE_HZ)


def _recordings(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.exists():
        raise ValueError(f"{folder}: no such folder or recording")
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise ValueError(f"{folder}: holds no recording ending in {', '.join(SUFFIXES)}")
    return found


def _seconds(file: Path) -> float:
    """By the header; a guess for MP3, whose headers do not tell, and 0 for what cannot be read, which is told later."""
    if file.suffix.lower() == ".mp3":
        return file.stat().st_size / 16000  # 128 kbit/s
    try:
        with soundfile.SoundFile(file) as opened:
            seconds: float = opened.frames / opened.samplerate
            return min(seconds, 1e6)  # a header may tell anything
    except (soundfile.LibsndfileError, OSError):
        return 0.0


def _clip_name(recording: str, event: Command) -> str:
    """ "<command>/<recording>-<time>.wav", of letters that every file system takes."""
    command = safe_name(event.name)
    return f"{command}/{safe_name(recording.rpartition('.')[0] or recording)}-{event.start_s:08.2f}.wav"


def safe_name(text: str) -> str:
    """Letters, digits, - and _ stay; no file name is longer than 255 bytes, of which a letter may take four."""
    return re.sub(r"[^\w-]+", "_", text)[-50:]


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]  # a line cut short is no line
    except FileNotFoundError:
        return []


def _append(path: Path, head: Sequence[str], row: Sequence[object]) -> None:
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(head)
        writer.writerow(row)
