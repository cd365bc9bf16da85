"""Recordings: found, decoded once into a cache of plain samples, and described clip by clip.

The cache holds samples, not features, because every scene is augmented as a waveform (rooms, clipping, noise); decoding
is the slow part of a clip, and reading it back from the memory map costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from kouling import audio
from kouling.measure.noise import SAMPLES_PER_BLOCK, block_energies_db, speech_bounds, speech_rms
from kouling.measure.recordings import audio_files, labelled
from kouling.train import download, speak
from kouling.train.recipe import Source

CACHE_VERSION = 4


@dataclass(frozen=True)
class Clip:
    """A stretch of the cache's samples. Positions in samples."""

    start: int
    length: int
    speech_start: int  # within the clip
    speech_end: int
    speech_rms: float  # at int16 scale, between speech_start and speech_end
    label: str
    name: str


class Corpus:
    """The clips of one source and their samples, (total,) int16, memory-mapped."""

    def __init__(self, samples: NDArray[np.int16], clips: list[Clip]) -> None:
        self.samples = samples
        self.clips = clips

    def of(self, clip: Clip) -> NDArray[np.int16]:
        return self.samples[clip.start : clip.start + clip.length]

    def part(self, source: Source, part: str) -> list[Clip]:
        """The clips for training or for validation, by a hash of the names; the same for ever."""
        if source.part != "both":
            return list(self.clips) if source.part == part else []
        # What is cut out of one recording stays together.
        hashes = [name_hash(clip.name.partition("@")[0]) for clip in self.clips]
        valid = [value % 100 < source.valid_percent for value in hashes]
        return [clip for clip, held in zip(self.clips, valid, strict=True) if held == (part == "valid")]


def name_hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def find(path: str, folders: Sequence[Path]) -> Path:
    """Raises: ValueError listing every place that was searched."""
    candidates = [Path(path)] if Path(path).is_absolute() else [folder / path for folder in folders]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise ValueError(f"data {path!r} not found; looked for {looked}; name its folder with --data or KOULING_DATA")


def locate(source: Source, folders: Sequence[Path]) -> Path:
    """The source's data, downloaded into the first folder if need be and possible. Raises: as `find` and `fetch`."""
    try:
        return find(source.path, folders)
    except ValueError:
        if not source.download:
            raise
        return download.fetch(source.download, folders[0])


def load(source: Source, folders: Sequence[Path], cache: Path, progress: bool = True) -> Corpus:
    """Decode a source, or map the cache of an earlier run.

    Raises: ValueError where the data is missing, holds no clip, or one cannot be decoded.
    """
    path = locate(source, folders)
    stat = path.stat()
    identity = f"{CACHE_VERSION} {path.name} {stat.st_size} {int(stat.st_mtime)} {source.speakers_per_word}"
    if path.suffix == ".json":  # it may be written again with the same texts in it
        identity = f"{CACHE_VERSION} {path.read_text(encoding='utf-8')}"
    if path.is_dir():
        identity += " ".join(
            sorted(f"{f.relative_to(path)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in audio_files(path))
        )
    # No dots: `with_suffix` would take all behind the last one, the hash too, for a suffix.
    stem = cache / f"{path.stem.replace('.', '_')}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not all(stem.with_suffix(suffix).exists() for suffix in (".json", ".pcm")):  # someone may have tidied up
        _build(path, source, stem, progress)
    clips = [Clip(*entry) for entry in json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))]
    # Speech Commands brings its own split, by speaker.
    official = download.partition(path) if (path / "validation_list.txt").exists() else None
    wanted = ("train", "valid") if source.part == "both" else (source.part,)
    kept = [
        Clip(c.start, c.length, c.speech_start, c.speech_end, c.speech_rms, source.rename.get(c.label, c.label), c.name)
        for c in clips
        if c.label not in source.exclude and (official is None or official(c.name) in wanted)
    ]
    if source.cuts:
        kept = cut_out(kept, find(source.cuts, folders))
    return Corpus(np.memmap(stem.with_suffix(".pcm"), dtype=np.int16, mode="r"), kept)


def _build(path: Path, source: Source, stem: Path, progress: bool) -> None:
    """Write the cache under temporary names, the index last: an index that exists is complete."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    position = 0
    console = Console(stderr=True)  # stdout is for results
    pcm, index = stem.with_suffix(".pcm"), stem.with_suffix(".json")
    temporary = pcm.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out, ThreadPoolExecutor(2) as pool:
            entries = iter(_entries(path, source))
            shown = track(
                iter(lambda: list(islice(entries, 256)), []),
                f"decoding {path.name}",
                console=console,
                disable=not progress,
            )
            for portion in shown:  # not all at once: a tar would be held in memory
                decoded = pool.map(lambda entry: audio.read(entry[2], entry[1]), portion)
                for (label, name, _), samples in zip(portion, decoded, strict=True):
                    out.write(samples.tobytes())
                    clips.append(describe(samples, position, label, name))
                    position += len(samples)
        os.replace(temporary, pcm)
    finally:
        temporary.unlink(missing_ok=True)
    listed = index.with_suffix(f".{os.getpid()}.tmp")
    listed.write_text(
        json.dumps([list(clip.__dict__.values()) for clip in clips], ensure_ascii=False), encoding="utf-8"
    )
    os.replace(listed, index)


def _entries(path: Path, source: Source) -> Iterator[tuple[str, str, BinaryIO | Path]]:
    """(label, name, file) of each recording, in an order that does not depend on the file system."""
    if path.suffix == ".txt":
        words = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        words = [word for word in words if word and not word.startswith("#")]
        yield from speak.speak_list(words, source.speakers_per_word, seed=0)
    elif path.suffix == ".json":
        yield from speak.Texts.load(path).speak()
    else:
        yield from labelled(path)


def describe(samples: NDArray[np.int16], start: int, label: str, name: str) -> Clip:
    """The clip's place in the cache, and where in it the speech is."""
    return Clip(start, len(samples), *speech_bounds(samples), speech_rms(samples), label, name)


def cut_out(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """The stretches of recordings that a file names, one to a line: the recording's name, from and to which second, and
    the words that are said there, with tabs between.

    Raises: ValueError, one line, for a line that is none; OSError.
    """
    named = {clip.name: clip for clip in clips}
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, *times, said = line.split("\t")
            start, end = (round(float(time) * audio.SAMPLE_RATE_HZ) for time in times)
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {line!r}; needed: a recording, two times in seconds and words, tabs between"
            ) from None
        whole = named.get(name)
        if whole is not None and 0 <= start < end <= whole.length:
            length = end - start
            found.append(Clip(whole.start + start, length, 0, length, whole.speech_rms, said, f"{name}@{start}"))
    return found


def cut_pieces(corpus: Corpus, clips: Sequence[Clip], low_s: float = 0.3, high_s: float = 0.9) -> list[Clip]:
    """Word-long pieces of running speech, cut where it is quietest: unknown words in real voices."""
    pieces = []
    rate = audio.SAMPLE_RATE_HZ
    for clip in clips:
        samples = corpus.of(clip)
        energies = np.convolve(block_energies_db(samples), np.ones(5) / 5, mode="same")
        valleys = [
            i
            for i in range(4, len(energies) - 4)
            if energies[i] <= energies[i - 4 : i + 5].min() and energies[i] < energies.max() - 12
        ]
        rms = clip.speech_rms
        for number, first in enumerate(valleys):
            for last in valleys[number + 1 : number + 4]:
                length = (last - first) * SAMPLES_PER_BLOCK
                if low_s * rate <= length <= high_s * rate and energies[first:last].max() > energies.max() - 20:
                    start = clip.start + first * SAMPLES_PER_BLOCK
                    pieces.append(Clip(start, length, 0, length, rms, "", f"{clip.name}@{first}"))
                    break
    return pieces
