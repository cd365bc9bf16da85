"""Labelled recordings: `DIR/<label>/*.wav`, or a tar of such a folder."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from kouling import audio

BLOCK_S = 20.0  # of long recordings, in memory at once
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus")


def labelled(path: Path) -> Iterator[tuple[str, str, BinaryIO | Path]]:
    """(label, name, file) of each recording; a folder's in the order of their names, a tar's in its own.

    Raises: ValueError where the path is missing, no folder or tar, or holds no such recording.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such folder or tar")
    count = 0
    for entry in _in_folder(path) if path.is_dir() else _in_tar(path):
        count += 1
        yield entry
    if not count:
        raise ValueError(f"{path}: holds no <label>/<recording> ending in {', '.join(AUDIO_SUFFIXES)}")


def check(*paths: Path | None) -> None:
    """Find out before long work whether there is a recording in each. Raises: ValueError as `labelled`."""
    for path in paths:
        if path is not None:
            next(labelled(path))


def count(path: Path) -> int | None:
    """How many recordings `labelled` will give; None where that would take a while, as of a tar."""
    return len(audio_files(path)) if path.is_dir() else None


def blocks_of(file: BinaryIO | Path, name: str) -> Iterator[NDArray[np.int16]]:
    """The samples of a recording that `labelled` gave; a file's in blocks. Raises: AudioError."""
    return audio.stream(file, BLOCK_S) if isinstance(file, Path) else iter([audio.read(file, name)])


def none_readable(path: Path, skipped: list[str]) -> ValueError:
    """The error to raise where each recording of `path` gave a line of `skipped`."""
    return ValueError(f"{path}: none of its {len(skipped)} recordings can be read; the first: {skipped[0]}")


def audio_files(folder: Path) -> list[Path]:
    """Recordings one level down. Speech Commands' folder of long noises and hidden folders are no labels."""
    return sorted(f for f in folder.glob("*/*") if _is_recording(f))


def _is_recording(path: PurePath) -> bool:
    label = path.parent.name
    hidden = label in ("", "_background_noise_") or label.startswith(".") or path.name.startswith(".")
    return not hidden and path.suffix.lower() in AUDIO_SUFFIXES


def _in_folder(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for file in audio_files(folder):
        yield file.parent.name, f"{file.parent.name}/{file.name}", file


def _in_tar(path: Path) -> Iterator[tuple[str, str, BinaryIO]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePath(member.name)
                if member.isfile() and _is_recording(name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name.parent.name, f"{name.parent.name}/{name.name}", BytesIO(content.read())
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)  # a damaged header ends the loop as the end of the archive does
            if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged after {archive.offset} bytes")
            while archive.fileobj.read(2**20):  # to its end, where a compressed one is checked
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).splitlines()[0].rstrip(":")  # tarfile adds a line for each way that it tried
        raise ValueError(f"{path}: neither a folder nor a readable tar: {reason}") from None
