"""Public data sets: downloaded, checked against their published SHA-256, unpacked.

A transfer that was interrupted goes on where it stopped, and a folder that exists is complete.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

PORTION_BYTES = 1 << 20
TIMEOUT_S = 60.0  # without a single byte


@dataclass(frozen=True)
class Archive:
    """A tar file on the web. Its members are unpacked with their own paths into a folder named as in `ARCHIVES`."""

    url: str
    sha256: str
    size_bytes: int


# The SHA-256 are those that torchaudio checks these files against; the sizes are what wget logged for the first and
# ESPnet's recipe checks for the second. The server is out of reach where this was written: the files were not seen.
ARCHIVES = {
    "speech-commands-v0.01": Archive(
        "http://download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
        1_489_096_277,
    ),
    "speech-commands-v0.02": Archive(
        "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        2_428_923_189,
    ),
}


def fetch(name: str, folder: Path, progress: bool = True) -> Path:
    """The folder `folder / name` with the unpacked archive, downloaded if it is not there; the archive stays beside it.

    Ctrl-C and broken connections leave a `.part` file, from which the next call goes on. Raises: ValueError, one line,
    for an unknown name, a failed transfer, a wrong SHA-256 or a dangerous archive; OSError on a full disk.
    """
    if name not in ARCHIVES:
        raise ValueError(f"no archive {name!r}; allowed: {', '.join(ARCHIVES)}")
    archive, unpacked = ARCHIVES[name], folder / name
    if unpacked.is_dir():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / archive.url.rsplit("/", 1)[-1]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)  # stdout is for results
    with Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=console, disable=not progress) as bars:
        if packed.exists():  # from an interrupted unpacking, or put there by hand
            if (found := _sha256(packed, bars)) != archive.sha256:
                raise ValueError(f"{packed}: SHA-256 is {found}, expected {archive.sha256}; delete it and try again")
        else:
            _download(archive, packed, bars)
        _unpack(packed, unpacked, bars)
    return unpacked


def _download(archive: Archive, packed: Path, bars: Progress) -> None:
    part = packed.with_name(f"{packed.name}.part")
    done = part.stat().st_size if part.exists() else 0
    if done > archive.size_bytes:
        part.unlink()
        done = 0
    if done < archive.size_bytes:
        _receive(archive, packed, part, done, bars)
    if (found := _sha256(part, bars)) != archive.sha256:
        part.unlink()
        raise ValueError(f"{archive.url}: SHA-256 is {found}, expected {archive.sha256}; deleted what was downloaded")
    os.replace(part, packed)


def _receive(archive: Archive, packed: Path, part: Path, done: int, bars: Progress) -> None:
    """Append to `part`, which holds `done` bytes, until it is whole."""
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={done}-"} if done else {})
    with _network_errors(archive, packed):
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    with response:
        if response.status != 206:  # the server starts over
            done = 0
        offered = response.headers["Content-Length"]
        if offered is not None and int(offered) != archive.size_bytes - done:
            raise _failure(archive, packed, f"the server offers {offered} bytes, not {archive.size_bytes - done}")
        task = bars.add_task(f"downloading {packed.name}", total=archive.size_bytes, completed=done)
        with open(part, "ab" if done else "wb") as file:
            while done < archive.size_bytes:
                with _network_errors(archive, packed):
                    received = response.read1(min(PORTION_BYTES, archive.size_bytes - done))
                if not received:
                    raise _failure(archive, packed, f"it ended after {done} of {archive.size_bytes} bytes")
                file.write(received)
                done += len(received)
                bars.update(task, completed=done)


@contextmanager
def _network_errors(archive: Archive, packed: Path) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise _failure(archive, packed, f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _failure(archive, packed, str(getattr(error, "reason", error)) or type(error).__name__) from None


def _failure(archive: Archive, packed: Path, reason: str) -> ValueError:
    advice = f"try again to go on from there, or put the file at {packed} by hand"
    return ValueError(f"download of {archive.url} failed: {reason}; {advice}")


def _sha256(path: Path, bars: Progress) -> str:
    with bars.open(path, "rb", description=f"checking {path.name}") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # BinaryIO has no readinto


def _unpack(packed: Path, unpacked: Path, bars: Progress) -> None:
    """Into a temporary folder, renamed at the end. Only plain files and folders that stay inside of it are accepted."""
    temporary = unpacked.with_name(f".{unpacked.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        with (
            bars.open(packed, "rb", description=f"unpacking {packed.name}") as file,
            tarfile.open(fileobj=file, mode="r|*") as tar,
        ):
            # Debian 12's Python (3.11.2) has no filters; the check in the loop holds there too.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            for member in tar:
                leaves = member.name.startswith("/") or ".." in member.name.split("/")
                if leaves or not (member.isfile() or member.isdir()):
                    raise ValueError(f"{packed}: refused: its member {member.name!r} leaves the folder or is a link")
                tar.extract(member, temporary, set_attrs=False)
        os.rename(temporary, unpacked)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{packed}: cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def partition(folder: Path) -> Callable[[str], str]:
    """The official split of Speech Commands: a function from `label/name.wav` to "train", "valid" or "test".

    Names that are in no list are "train"; so are those of `_background_noise_`, which is no word: leave it out.
    Raises: ValueError where `folder` lacks the lists that come with the recordings.
    """
    parts: dict[str, str] = {}
    for part, listing in (("valid", "validation_list.txt"), ("test", "testing_list.txt")):
        try:
            names = (folder / listing).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            raise ValueError(f"{folder}: no Speech Commands: {listing} is missing") from None
        parts.update(dict.fromkeys(names, part))
    return lambda name: parts.get(PurePath(name).as_posix(), "train")
