"""Labelled recordings: `DIR/<label>/*.wav`, or a tar of such a folder."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

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


def audio_files(folder: Path) -> list[Path]:
    """Recordings one level down. Speech Commands' folder of long noises and hidden folders are no labels."""
    files = (f for f in folder.glob("*/*") if f.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(f for f in files if f.parent.name != "_background_noise_" and not f.parent.name.startswith("."))


def _in_folder(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for file in audio_files(folder):
        yield file.parent.name, f"{file.parent.name}/{file.name}", file


def _in_tar(path: Path) -> Iterator[tuple[str, str, BinaryIO]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) >= 2 and Path(member.name).suffix.lower() in AUDIO_SUFFIXES:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield parts[-2], "/".join(parts[-2:]), BytesIO(content.read())
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: neither a folder nor a readable tar: {error}") from None
