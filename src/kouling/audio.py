"""Files, raw PCM and the microphone, all as one thing: int16 mono samples at 16 kHz.

Shapes: N samples. Channels are averaged, other rates are resampled (soxr), values beyond full scale are clipped.
"""

from __future__ import annotations

import importlib
import io
import logging
import math
import os
import queue
import stat
import threading
import wave
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16000
FULL_SCALE = np.float32(32768)  # int16 for 1.0
READ_BLOCK_S = 10.0  # `read` takes most clips whole, and needs no copy of a long recording as float
MICROPHONE_BACKLOG_S = 10.0  # what the microphone keeps for a slow reader
MICROPHONE_TIMEOUT_S = 5.0  # a live microphone never pauses: in silence it delivers near-zeros
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1000, 768_000  # outside of it a header is wrong; 1 Hz would grow 16000-fold
LARGEST_FRAMES = 2**62  # libsndfile gives more where the header does not tell, as in FLAC from a pipe
# Read as int16 these give their samples exactly. libsndfile would not scale float files, would truncate 24 bits, and
# wraps loud Opus and Vorbis around (a clipped 300 Hz square wave came back with errors of 65535).
INT16_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8")
FORMATS = "WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3, AIFF, CAF"  # and more that libsndfile knows
logger = logging.getLogger(__name__)
_stderr_lock = threading.Lock()


class AudioError(ValueError):
    """A recording or device that cannot be used; one line that names it and says what is wrong."""


def read(source: str | Path | BinaryIO, name: str | None = None) -> NDArray[np.int16]:
    """A whole recording, from its path or an open file (read from its start): (N,) at 16 kHz.

    `name` stands for the recording in errors. Raises: AudioError.
    """
    with ExitStack() as opened:
        blocks = list(_Recording(source, name, opened).blocks(READ_BLOCK_S))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.int16), *blocks])


def stream(path: str | Path, block_s: float = 1.0) -> Iterator[NDArray[np.int16]]:
    """The samples of `read` in blocks of about `block_s` seconds, in bounded memory, however long the file.

    Raises: AudioError; for a damaged file, after the blocks before the damage.
    """
    with ExitStack() as opened:
        yield from _Recording(path, None, opened).blocks(block_s)


def pcm_stream(file: BinaryIO, block_s: float = 0.1) -> Iterator[NDArray[np.int16]]:
    """Raw little-endian int16 mono samples at 16 kHz, as soon as they arrive, at most `block_s` seconds at a time.

    A last odd byte is dropped. Raises: AudioError where the (blocking) file cannot be read.
    """
    read_available = getattr(file, "read1", file.read)  # read() of a pipe would wait for a full block
    num_bytes = 2 * _num_frames(block_s, SAMPLE_RATE_HZ)
    odd_byte = b""
    try:
        while received := read_available(num_bytes):
            received = odd_byte + received
            num_samples, num_odd_bytes = divmod(len(received), 2)
            odd_byte = received[-1:] if num_odd_bytes else b""
            if num_samples:
                yield np.frombuffer(received, dtype="<i2", count=num_samples).astype(np.int16)
    except OSError as error:
        raise AudioError(f"{getattr(file, 'name', 'input')}: cannot be read: {error.strerror or error}") from None


def microphone(block_s: float = 0.1, device: int | str | None = None) -> Iterator[NDArray[np.int16]]:
    """Samples of the microphone, live and endless, in blocks of about `block_s` seconds.

    `device` is a number or part of a name, as sounddevice has them. A reader more than 10 s behind loses samples; that,
    or a loss in the device, is logged as a warning. Raises: AudioError.
    """
    num_blocks = math.ceil(MICROPHONE_BACKLOG_S * SAMPLE_RATE_HZ / _num_frames(block_s, SAMPLE_RATE_HZ))
    blocks: queue.Queue[tuple[bytes, int]] = queue.Queue(num_blocks)
    num_lost = 0  # samples since the last block that went into the queue; only the callback touches it

    def callback(samples: Any, num_frames: int, time: Any, status: Any) -> None:
        nonlocal num_lost  # runs on the audio thread: it must not wait
        num_lost += bool(status.input_overflow)  # PortAudio does not say how many
        try:
            blocks.put_nowait((bytes(samples), num_lost))
            num_lost = 0
        except queue.Full:
            num_lost += num_frames

    input_stream, rate_hz = _open_microphone(block_s, device, callback)

    def received() -> Iterator[NDArray[np.int16]]:
        while True:
            try:
                samples, num_lost_before = blocks.get(timeout=MICROPHONE_TIMEOUT_S + block_s)
            except queue.Empty:
                raise AudioError(f"microphone: no samples for {MICROPHONE_TIMEOUT_S:g} s; was it unplugged?") from None
            if num_lost_before:
                logger.warning("microphone: %d or more samples lost; they are not taken fast enough", num_lost_before)
            yield np.frombuffer(samples, dtype=np.int16).copy()

    with closing(input_stream):
        scaled = (block.astype(np.float32) / FULL_SCALE for block in received())
        yield from received() if rate_hz == SAMPLE_RATE_HZ else _resample(scaled, rate_hz)


def _open_microphone(block_s: float, device: int | str | None, callback: Any) -> tuple[Any, int]:
    """A started input stream and its rate in Hz: 16 kHz, or the device's own where it refuses that."""
    try:
        sounddevice = importlib.import_module("sounddevice")
    except ImportError:
        raise AudioError("microphone: needs the package sounddevice: pip install 'kouling[mic]'") from None
    except OSError as error:  # sounddevice is there, the library that it wraps is not
        raise AudioError(f"microphone: {error}; install PortAudio, on Debian: apt install libportaudio2") from None

    def open_at(rate_hz: int) -> tuple[Any, int]:
        settings = {"device": device, "channels": 1, "dtype": "int16", "callback": callback}
        opened = sounddevice.RawInputStream(samplerate=rate_hz, blocksize=_num_frames(block_s, rate_hz), **settings)
        opened.start()
        return opened, rate_hz

    try:
        try:
            return open_at(SAMPLE_RATE_HZ)
        except sounddevice.PortAudioError:
            return open_at(int(sounddevice.query_devices(device, "input")["default_samplerate"]))
    except (sounddevice.PortAudioError, ValueError, OSError) as error:  # ValueError: no device of that name
        which = "microphone" if device is None else f"microphone {device!r}"
        raise AudioError(f"{which}: {' '.join(str(error).split())}; `python -m sounddevice` lists devices") from None


def write(path: str | Path, samples: NDArray[np.int16]) -> None:
    """Write samples (N,) as a 16 kHz mono WAV file of 16 bits; the file appears whole or not at all.

    Raises: AudioError for samples of another type or shape, and where the file cannot be written.
    """
    path = Path(path)
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise AudioError(f"{path}: samples are {samples.dtype} of shape {samples.shape}; allowed: int16, one dimension")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file, wave.open(file, "wb") as wav:
            wav.setparams((1, 2, SAMPLE_RATE_HZ, len(samples), "NONE", ""))
            wav.writeframes(samples.tobytes())
        os.replace(temporary, path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


class _Source:
    """What libsndfile reads from. Its callbacks must not raise, so a failure is the end of the file to it."""

    def __init__(self, file: Any) -> None:
        self.file, self.tell = file, file.tell

    def seek(self, offset: int, whence: int) -> None:
        with suppress(OSError, ValueError):  # a damaged header can name a place before the start
            self.file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self.file.readinto(buffer))
        except OSError:
            return 0


class _Recording:
    """An open file and its decoder; both are closed by the `opened` stack that it is given."""

    def __init__(self, source: str | Path | BinaryIO, name: str | None, opened: ExitStack) -> None:
        self.name = name or str(source if isinstance(source, str | Path) else getattr(source, "name", "recording"))
        # A handle, not a path, goes to libsndfile: given a path it takes any file named .au, .gsm or .vox for audio.
        if isinstance(source, str | Path):
            source = opened.enter_context(self._open_path(Path(source)))
        try:
            if not (source.seekable() and hasattr(source, "readinto")):
                source = io.BytesIO(source.read())
            source.seek(0)
            head = source.read(3)
            source.seek(0)
        except OSError as error:
            raise AudioError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        if not head:
            raise AudioError(f"{self.name}: the file is empty (0 bytes)")
        maybe_mp3 = head == b"ID3" or head[0] == 0xFF
        self.quietly: Callable[[], AbstractContextManager[None]] = _stderr_muted if maybe_mp3 else nullcontext
        try:
            with self.quietly():
                self.file = opened.enter_context(soundfile.SoundFile(_Source(source)))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise AudioError(f"{self.name}: not a recording ({reason}); allowed: {FORMATS}") from None
        # Else soundfile seeks after every read, which makes MP3 in blocks wrong, by up to 0.23 of full scale.
        self.file.seekable = lambda: False
        self.rate_hz: int = self.file.samplerate
        if not LOWEST_RATE_HZ <= self.rate_hz <= HIGHEST_RATE_HZ:
            raise AudioError(f"{self.name}: rate is {self.rate_hz} Hz; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}")

    def _open_path(self, path: Path) -> BinaryIO:
        try:
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):  # opening a pipe would wait for its writer
                return path.open("rb")
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise AudioError(f"{self.name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        kind = "folder" if stat.S_ISDIR(mode) else "pipe or device"
        raise AudioError(f"{self.name}: is a {kind}; allowed: a recording")

    def blocks(self, block_s: float) -> Iterator[NDArray[np.int16]]:
        """The samples at 16 kHz. Raises: AudioError."""
        exact = self.rate_hz == SAMPLE_RATE_HZ and self.file.channels == 1 and self.file.subtype in INT16_SUBTYPES
        decoded = self._decoded(_num_frames(block_s, self.rate_hz), "int16" if exact else "float32")
        if exact:
            return (block for _, block in decoded)
        mono = (self._mono(block, start) for start, block in decoded)
        return map(_to_int16, mono) if self.rate_hz == SAMPLE_RATE_HZ else _resample(mono, self.rate_hz)

    def _decoded(self, num_frames: int, dtype: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """(frames before the block, block), the block of shape (N,) or (N, channels) at the rate of the file."""
        total, done, error_text = self.file.frames, 0, ""
        while done < total:
            try:
                with self.quietly():
                    block = self.file.read(min(num_frames, total - done), dtype=dtype)
            except soundfile.LibsndfileError as error:
                done = self.file.tell()
                error_text = f" ({error.error_string.removeprefix('Error : ').rstrip('.')})"
                break
            if not len(block):
                break
            yield done, block
            done += len(block)
        # Without a Xing header the length of an MP3 is a guess from its first frame, so falling short proves nothing.
        total_known = total < LARGEST_FRAMES and self.file.format != "MP3"
        if error_text or (total_known and done < total):
            total_s = f" of {total / self.rate_hz:.2f}" if total_known else ""
            readable = f"only {done / self.rate_hz:.2f}{total_s} s could be read"
            raise AudioError(f"{self.name}: damaged or cut short: {readable}{error_text}")
        if not done:
            raise AudioError(f"{self.name}: the recording has no samples")

    def _mono(self, block: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """(N,) or (N, channels) from `start` frames on -> (N,) within full scale."""
        if not np.isfinite(block).all():
            first = int(np.argmin(np.isfinite(block).reshape(len(block), -1).all(axis=1)))
            at_s = (start + first) / self.rate_hz
            raise AudioError(f"{self.name}: the sample at {at_s:.4f} s is NaN or infinite; allowed: finite values")
        # float64 sums do not overflow, and clipping now keeps one wild value from ringing through the resampler.
        mono = block if block.ndim == 1 else block.mean(axis=1, dtype=np.float64)
        return np.clip(mono, -1.0, 1.0).astype(np.float32, copy=False)


def _num_frames(block_s: float, rate_hz: int) -> int:
    if not 0 < block_s <= 3600:  # also refuses NaN
        raise ValueError(f"block_s is {block_s}; allowed: above 0, at most 3600")
    return max(1, math.ceil(block_s * rate_hz))


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples within +-1 -> int16, rounded and clipped."""
    scaled: NDArray[np.float32] = np.clip(samples, -1.0, 32767 / 32768) * FULL_SCALE
    return np.rint(scaled).astype(np.int16)


def _resample(blocks: Iterable[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.int16]]:
    """Blocks at `rate_hz` -> blocks at 16 kHz; the result does not depend on how they are cut."""
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in blocks:
        if len(resampled := resampler.resample_chunk(block)):
            yield _to_int16(resampled)
    if len(resampled := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield _to_int16(resampled)


@contextmanager
def _stderr_muted() -> Iterator[None]:
    """Drop what mpg123, inside libsndfile, notes about odd files on file descriptor 2; it has no switch for that."""
    with _stderr_lock, ExitStack() as undo:  # the lock: two threads would save each other's muted descriptor
        with suppress(OSError):  # no stderr, nothing to mute
            saved = undo.enter_context(os.fdopen(os.dup(2), "wb"))
            os.dup2(undo.enter_context(open(os.devnull, "wb")).fileno(), 2)
            undo.callback(os.dup2, saved.fileno(), 2)
        yield
