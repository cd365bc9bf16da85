"""Recordings, raw samples and the microphone become int16 mono at 16 kHz; what cannot is refused in one line."""

from __future__ import annotations

import gc
import io
import itertools
import logging
import os
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from kouling import audio
from kouling.audio import AudioError, microphone, pcm_stream, read, stream

ONE_LSB = 1 / 32768


def voice(num_samples: int, seed: int = 0) -> NDArray[np.int16]:
    """A 440 Hz tone in noise."""
    rng = np.random.default_rng(seed)
    tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / 16000)
    return np.rint(tone + 1500 * rng.standard_normal(num_samples)).astype(np.int16)


def encoded(samples: NDArray[Any], subtype: str = "PCM_16", format: str = "WAV", rate_hz: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=format, subtype=subtype)
    return file.getvalue()


def refusal(work: Callable[[], Any], name: str | Path) -> str:
    """The message of the AudioError that `work` ends in, after checking that it is one line with the name."""
    with pytest.raises(AudioError) as caught:
        work()
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1
    return message


def both_refusals(path: Path) -> str:
    """The message in which `read` and `stream` agree."""
    message = refusal(lambda: read(path), path)
    assert refusal(lambda: list(stream(path)), path) == message
    return message


# Conversion


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "CAF"])
def test_16_bit_recordings_are_read_exactly(tmp_path: Path, format: str) -> None:
    samples = np.concatenate([voice(16000), np.array([-32768, 32767, 0, -1], dtype=np.int16)])
    path = tmp_path / "recording"
    path.write_bytes(encoded(samples, format=format))
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        result = read(source)
        assert result.dtype == np.int16
        np.testing.assert_array_equal(result, samples)


def test_8_bit_recordings_are_read_at_full_scale() -> None:
    samples = np.arange(-128, 128, dtype=np.int16) * 256
    np.testing.assert_array_equal(read(io.BytesIO(encoded(samples, "PCM_U8"))), samples)


@pytest.mark.parametrize("format, subtype", [("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_recordings_keep_level_and_shape(format: str, subtype: str) -> None:
    samples = voice(32000)
    result = read(io.BytesIO(encoded(samples, subtype, format)))
    assert abs(len(result) - len(samples)) <= 1
    kept = result[: len(samples)].astype(float)
    original = samples[: len(kept)].astype(float)
    assert np.corrcoef(kept, original)[0, 1] > 0.95
    assert kept.std() == pytest.approx(original.std(), rel=0.05)


@pytest.mark.parametrize("format, subtype", [("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_loud_lossy_recordings_clip_and_do_not_wrap_around(format: str, subtype: str) -> None:
    square = np.where(np.sin(2 * np.pi * 300 * np.arange(16000) / 16000) > 0, 32700, -32700).astype(np.int16)
    data = encoded(square, subtype, format)
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float64")
    assert np.abs(decoded).max() > 1.1  # the case is one where int16 overflows
    expected = np.clip(decoded * 32768, -32768, 32767)
    assert np.abs(read(io.BytesIO(data)) - expected).max() < 1


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE", "PCM_24", "PCM_32"])
def test_finer_recordings_are_rounded(subtype: str) -> None:
    values = np.array([0.5, -0.5, 1000.6 * ONE_LSB, 1000.4 * ONE_LSB, -1000.6 * ONE_LSB, -0.4 * ONE_LSB, -1.0])
    result = read(io.BytesIO(encoded(values, subtype)))
    assert result.tolist() == [16384, -16384, 1001, 1000, -1001, 0, -32768]


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_floats_beyond_full_scale_are_clipped(subtype: str, num_channels: int) -> None:
    values = np.array([1.0, 1.5, -1.5, 3e38, -3e38])
    result = read(io.BytesIO(encoded(np.stack([values] * num_channels, axis=1), subtype)))
    assert result.tolist() == [32767, 32767, -32768, 32767, -32768]


def test_one_wild_sample_does_not_ring_through_the_resampler() -> None:
    values = np.full(48000, 0.25)
    values[24000] = 1e30
    result = read(io.BytesIO(encoded(values, "FLOAT", rate_hz=48000)))
    assert np.abs(result[1000:7900] - 8192).max() <= 1  # it sits at 8000
    assert np.abs(result[8100:-1000] - 8192).max() <= 1


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_other_rates_are_resampled_in_place_and_level(rate_hz: int, subtype: str) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate_hz) / rate_hz)
    result = read(io.BytesIO(encoded(tone, subtype, rate_hz=rate_hz)))
    assert result.dtype == np.int16
    assert abs(len(result) - 32000) <= 1
    middle = np.arange(2000, 30000)  # the ends see the silence around the recording
    expected = 16384 * np.sin(2 * np.pi * 440 * middle / 16000)
    assert np.abs(result[middle] - expected).max() < 4


def test_resampling_removes_what_16_khz_cannot_hold() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 10000 * np.arange(48000) / 48000)  # would fold to 6 kHz
    result = read(io.BytesIO(encoded(tone, rate_hz=48000)))
    assert np.abs(result[1000:-1000]).max() <= 2


@pytest.mark.parametrize("levels", [(1000, 3000), (4000, 0), (-3000, 0, 6000), (32767, 32767)])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_channels_are_averaged(levels: tuple[int, ...], subtype: str) -> None:
    channels = np.tile(np.array(levels) / 32768, (100, 1))
    result = read(io.BytesIO(encoded(channels, subtype)))
    assert result.tolist() == [round(np.mean(levels))] * 100


def test_channels_are_averaged_before_resampling() -> None:
    opposite = np.stack([voice(48000), -voice(48000)], axis=1)
    assert not read(io.BytesIO(encoded(opposite, rate_hz=48000))).any()


# Streaming

RECORDINGS = {
    "wav": ("WAV", "PCM_16", 16000, 1),
    "flac": ("FLAC", "PCM_16", 16000, 1),
    "float stereo": ("WAV", "FLOAT", 16000, 2),
    "8 kHz": ("WAV", "PCM_16", 8000, 1),
    "44.1 kHz stereo 24 bit": ("FLAC", "PCM_24", 44100, 2),
    "odd rate": ("WAV", "PCM_16", 12345, 1),
    "opus": ("OGG", "OPUS", 16000, 1),
    "opus 48 kHz stereo": ("OGG", "OPUS", 48000, 2),
    "vorbis": ("OGG", "VORBIS", 44100, 1),
    "mp3": ("MP3", "MPEG_LAYER_III", 16000, 1),
    "mp3 44.1 kHz": ("MP3", "MPEG_LAYER_III", 44100, 2),
}


@pytest.mark.parametrize("block_s", [0.01, 0.333, 1.0, 60.0])
@pytest.mark.parametrize("recording", RECORDINGS)
def test_stream_equals_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: str, block_s: float) -> None:
    monkeypatch.setattr(audio, "READ_BLOCK_S", 0.7)  # several blocks in `read` too
    format, subtype, rate_hz, num_channels = RECORDINGS[recording]
    channels = np.stack([voice(round(2.3 * rate_hz), seed) for seed in range(num_channels)], axis=1)
    path = tmp_path / "recording"
    path.write_bytes(encoded(channels, subtype, format, rate_hz))
    blocks = list(stream(path, block_s))
    assert all(block.dtype == np.int16 and len(block) for block in blocks)
    assert max(map(len, blocks)) <= max(2 * block_s, block_s + 0.2) * 16000  # soxr lets go of up to 0.1 s at once
    np.testing.assert_array_equal(np.concatenate(blocks), read(path))


@pytest.mark.parametrize("rate_hz, num_channels", [(16000, 1), (48000, 2)])
def test_stream_memory_does_not_grow_with_the_recording(tmp_path: Path, rate_hz: int, num_channels: int) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(np.zeros((60 * rate_hz, num_channels), dtype=np.int16), rate_hz=rate_hz))
    blocks = stream(path, 0.5)
    next(blocks)  # imports and buffers
    tracemalloc.start()
    try:
        num_samples = sum(len(block) for block in blocks)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_samples > 59 * 16000
    assert peak_bytes < 60 * 16000 * 2 / 2


def test_stream_left_early_closes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "recording.wav"
    path.write_bytes(encoded(voice(16000)))
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    blocks = stream(path, 0.1)
    next(blocks)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del blocks  # a file left open would be a ResourceWarning, an error here
    gc.collect()
    if before is not None:
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("block_s", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_block_sizes_are_refused(tmp_path: Path, block_s: float) -> None:
    path = tmp_path / "recording.wav"
    path.write_bytes(encoded(voice(100)))
    for blocks in (stream(path, block_s), pcm_stream(io.BytesIO(b"1234"), block_s), microphone(block_s)):
        with pytest.raises(ValueError, match="block_s is .*; allowed: above 0"):
            next(blocks)


# Where a recording comes from


class ReadOnly:
    """A seekable file of few talents."""

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.read, self.seek, self.seekable = file.read, file.seek, file.seekable


class Pipe(io.BytesIO):
    """What cannot seek, as standard input."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


def test_open_files_are_read_from_their_start_wherever_they_are() -> None:
    samples = voice(1000)
    file = io.BytesIO(encoded(samples))
    file.seek(0, io.SEEK_END)
    np.testing.assert_array_equal(read(file), samples)
    assert not file.closed
    np.testing.assert_array_equal(read(Pipe(encoded(samples))), samples)
    read_only: Any = ReadOnly(encoded(samples))
    np.testing.assert_array_equal(read(read_only), samples)


def test_errors_name_the_recording(tmp_path: Path) -> None:
    assert "not a recording" in refusal(lambda: read(io.BytesIO(b"text"), "clips.tar/a.ogg"), "clips.tar/a.ogg")
    assert "not a recording" in refusal(lambda: read(io.BytesIO(b"text")), "recording")
    path = tmp_path / "a.wav"
    path.write_bytes(b"text")
    with path.open("rb") as file:
        assert "not a recording" in refusal(lambda: read(file), path)
    assert "not a recording" in refusal(lambda: read(path, "the first"), "the first")


# Refusals


def test_missing_files_are_refused(tmp_path: Path) -> None:
    assert "No such file" in both_refusals(tmp_path / "missing.wav")
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be read" in both_refusals(tmp_path / "file" / "below.wav")
    assert "null" in both_refusals(tmp_path / "a\0b.wav")


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in both_refusals(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        assert "is a pipe or device" in both_refusals(tmp_path / "pipe.wav")  # and does not wait for its writer


def test_files_without_permission_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(encoded(voice(100)))
    if os.name == "posix" and os.geteuid() != 0:
        path.chmod(0)
    else:  # everything is allowed to root

        def denied(*_: Any) -> BinaryIO:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read: Permission denied" in both_refusals(path)


def test_empty_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    assert "empty (0 bytes)" in both_refusals(path)
    assert "empty (0 bytes)" in refusal(lambda: read(io.BytesIO()), "recording")


# libsndfile takes any content for headerless audio under some of these names.
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.raw", "a.au", "a.gsm", "a.vox", "a", "a.txt"])
@pytest.mark.parametrize("content", [b"turn on the lights\n" * 100, b"x", b"RIFF", b"OggS", b"ID3", b"\xff\xfb" * 9])
def test_other_files_are_refused_under_any_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = both_refusals(path)
    assert "not a recording" in message
    assert "allowed: WAV, FLAC" in message


def test_recordings_without_samples_are_refused(tmp_path: Path) -> None:
    for format, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")):
        path = tmp_path / f"empty.{subtype}"
        path.write_bytes(encoded(np.zeros(0, dtype=np.int16), subtype, format))
        assert "no samples" in both_refusals(path)


@pytest.mark.parametrize("rate_hz", [1, 999, 768001, 2_000_000])
def test_impossible_rates_are_refused(tmp_path: Path, rate_hz: int) -> None:
    data = bytearray(encoded(voice(1000)))
    data[24:28] = struct.pack("<I", rate_hz)
    path = tmp_path / "odd.wav"
    path.write_bytes(data)
    assert f"{rate_hz} Hz; allowed: 1000 to 768000" in both_refusals(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate_hz, num_channels", [(16000, 1), (16000, 2), (48000, 1)])
def test_values_that_are_not_finite_are_refused_with_their_time(
    tmp_path: Path, value: float, subtype: str, rate_hz: int, num_channels: int
) -> None:
    samples = np.zeros((2 * rate_hz, num_channels))
    samples[rate_hz * 5 // 4, -1] = value
    samples[rate_hz * 3 // 2 :] = value
    path = tmp_path / "odd.wav"
    path.write_bytes(encoded(samples, subtype, rate_hz=rate_hz))
    assert "the sample at 1.2500 s is NaN or infinite" in both_refusals(path)


# Files cut short


def test_one_sample_is_a_recording() -> None:
    assert read(io.BytesIO(encoded(np.array([-7], dtype=np.int16)))).tolist() == [-7]
    assert read(io.BytesIO(encoded(np.array([0.5]), "FLOAT"))).tolist() == [16384]


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000, 192000])
def test_one_sample_of_another_rate_is_at_most_a_few(rate_hz: int) -> None:
    result = read(io.BytesIO(encoded(np.array([1000], dtype=np.int16), rate_hz=rate_hz)))
    assert result.dtype == np.int16
    assert len(result) <= 2


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_cut_short_is_refused_with_what_could_be_read(tmp_path: Path, subtype: str) -> None:
    samples = voice(64000)
    data = encoded(samples, subtype, "FLAC")
    path = tmp_path / "cut.flac"
    path.write_bytes(data[: len(data) // 2])
    message = refusal(lambda: read(path), path)
    assert "damaged or cut short: only 1." in message
    assert " of 4.00 s could be read" in message

    blocks: list[NDArray[np.int16]] = []
    assert refusal(lambda: blocks.extend(stream(path, 0.1)), path) == message
    readable = np.concatenate([block for block, _ in zip(stream(path, 0.1), range(15), strict=False)])
    np.testing.assert_array_equal(readable, samples[: 15 * 1600])


def test_flac_cut_behind_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    path.write_bytes(encoded(voice(64000), format="FLAC")[:500])
    assert "could be read" in both_refusals(path)


def test_flac_of_unknown_length_is_read_whole(tmp_path: Path) -> None:
    samples = voice(64000)
    data = bytearray(encoded(samples, format="FLAC"))
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples, 0 for unknown
    data[22:26] = bytes(4)
    path = tmp_path / "piped.flac"
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path), samples)
    path.write_bytes(data[: len(data) // 2])
    message = both_refusals(path)
    assert "s could be read" in message
    assert " of " not in message


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_ogg_with_a_lost_page_is_refused(tmp_path: Path, subtype: str) -> None:
    data = bytearray(encoded(voice(64000), subtype, "OGG"))
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)  # a page of a wrong checksum: libsndfile goes on behind it
    path = tmp_path / "damaged.ogg"
    path.write_bytes(data)
    assert " of 4.00 s could be read" in both_refusals(path)


def test_wav_and_mp3_cut_short_give_what_they_hold(tmp_path: Path) -> None:
    samples = voice(64000)
    data = encoded(samples)
    path = tmp_path / "cut"
    path.write_bytes(data[: 44 + 2 * 30000])
    np.testing.assert_array_equal(read(path), samples[:30000])
    data = encoded(samples, "MPEG_LAYER_III", "MP3")
    path.write_bytes(data[: len(data) // 2])
    assert 24000 < len(read(path)) < 40000


def test_nothing_is_written_to_stdout_or_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mp3 = encoded(voice(64000), "MPEG_LAYER_III", "MP3")
    hole = bytearray(mp3)
    hole[8000:11000] = bytes(3000)
    odd_tag = b"ID3\x03\0\0\0\0\0\x10TIT2\0\0\0\x06\0\0\x09abcde" + mp3
    path = tmp_path / "odd.mp3"
    for content in (mp3[:8000], bytes(hole), odd_tag, b"ID3" + bytes(100), b"text " * 100, mp3[100:]):
        path.write_bytes(content)
        for work in (lambda: read(path), lambda: list(stream(path, 0.01))):
            try:
                work()
            except AudioError:
                pass
    os.write(2, b"still open\n")
    assert capfd.readouterr() == ("", "still open\n")


class Failing(io.BytesIO):
    """A recording on a disk that fails after 60 kB."""

    def readinto(self, buffer: Any) -> int:
        if self.tell() >= 60000:
            raise OSError(5, "Input/output error")
        part = self.read(min(len(buffer), 60000 - self.tell()))
        buffer[: len(part)] = part
        return len(part)


def test_failures_below_libsndfile_are_refused_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert "only 1.87 of 4.00 s" in refusal(lambda: read(Failing(encoded(voice(64000)))), "recording")
    before_the_start = bytearray(encoded(voice(1000), format="AIFF"))
    for position in range(4, 54):  # sizes and offsets of the header
        damaged = before_the_start.copy()
        damaged[position] = 0xF7
        try:
            read(io.BytesIO(damaged))
        except AudioError:
            pass
    assert capfd.readouterr() == ("", "")


# Raw samples


class Chunks:
    """A file whose reads give these chunks, one each; it has no read1."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = iter(chunks)

    def read(self, num_bytes: int) -> bytes:
        chunk = next(self.chunks, b"")
        assert len(chunk) <= num_bytes
        return chunk


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2, 3), (2, 5, 6, 13), (7, 8, 9, 10, 199)])
@pytest.mark.parametrize("odd_tail", [b"", b"\x7f"])
def test_raw_samples_survive_reads_of_any_size(cuts: tuple[int, ...], odd_tail: bytes) -> None:
    samples = np.concatenate([voice(98), np.array([-32768, 32767], dtype=np.int16)])
    data = samples.astype("<i2").tobytes() + odd_tail
    edges = [0, *cuts, len(data)]
    file: Any = Chunks([data[start:end] for start, end in itertools.pairwise(edges)])
    blocks = list(pcm_stream(file))
    assert all(block.dtype == np.int16 and len(block) and block.flags.writeable for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), samples)


def test_raw_samples_come_in_blocks_of_the_given_size() -> None:
    samples = voice(4000)
    blocks = list(pcm_stream(io.BytesIO(samples.astype("<i2").tobytes()), 0.1))
    assert [len(block) for block in blocks] == [1600, 1600, 800]
    np.testing.assert_array_equal(np.concatenate(blocks), samples)


@pytest.mark.parametrize("data", [b"", b"\x01"])
def test_no_raw_samples_are_no_blocks(data: bytes) -> None:
    assert list(pcm_stream(io.BytesIO(data))) == []


def test_raw_samples_of_a_live_pipe_do_not_wait_for_a_full_block() -> None:
    reading_end, writing_end = os.pipe()
    first_seen = threading.Event()

    def speak() -> None:
        os.write(writing_end, bytes(20) + b"\x05")
        first_seen.wait(5)
        os.write(writing_end, b"\x00\x06\x00")
        os.close(writing_end)

    speaker = threading.Thread(target=speak)
    speaker.start()
    with open(reading_end, "rb") as file:
        blocks = pcm_stream(file, 0.1)
        assert next(blocks).tolist() == [0] * 10  # more would mean that it waited for the end
        first_seen.set()
        assert np.concatenate(list(blocks)).tolist() == [5, 6]
    speaker.join()


def test_raw_input_that_fails_is_refused(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        name = "<stdin>"

        def read(self, size: int = -1) -> bytes:
            raise IsADirectoryError(21, "Is a directory")

    file: Any = Broken()
    assert "cannot be read: Is a directory" in refusal(lambda: list(pcm_stream(file)), "<stdin>")


# The microphone


class PortAudioError(Exception):
    """As in sounddevice."""


class FakeMicrophone(ModuleType):
    """A stand-in for the module sounddevice whose device speaks when a test says so."""

    PortAudioError = PortAudioError

    def __init__(self, rates_hz: tuple[int, ...] = (16000,), problem: Exception | None = None) -> None:
        super().__init__("sounddevice")
        self.rates_hz, self.problem = rates_hz, problem
        self.started = self.closed = False
        self.settings: dict[str, Any] = {}

    def query_devices(self, device: int | str | None, kind: str) -> dict[str, float]:
        assert kind == "input"
        if self.problem:
            raise self.problem
        return {"default_samplerate": float(self.rates_hz[0])}

    def RawInputStream(self, **settings: Any) -> FakeMicrophone:
        if self.problem:
            raise self.problem
        if settings["samplerate"] not in self.rates_hz:
            raise PortAudioError("Error opening RawInputStream: Invalid sample rate [PaErrorCode -9997]")
        self.settings = settings
        return self

    def start(self) -> None:
        self.started = True

    def close(self) -> None:
        self.closed = True

    def say(self, samples: NDArray[np.int16], overflow: bool = False) -> None:
        """Hands over the samples as PortAudio does: in a buffer that is its own and soon used again."""
        buffer = bytearray(samples.tobytes())
        self.settings["callback"](memoryview(buffer), len(samples), None, SimpleNamespace(input_overflow=overflow))
        buffer[:] = b"\xff" * len(buffer)


def listening(
    monkeypatch: pytest.MonkeyPatch, fake: FakeMicrophone, first: NDArray[np.int16], **arguments: Any
) -> Iterator[NDArray[np.int16]]:
    """The open microphone after its first block, which is `first`."""
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    blocks = microphone(**arguments)

    def speak() -> None:
        fake.started = True
        fake.say(first)

    monkeypatch.setattr(fake, "start", speak)
    np.testing.assert_array_equal(next(blocks), first)
    return blocks


def test_microphone_gives_what_it_hears_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMicrophone()
    blocks = listening(monkeypatch, fake, voice(320), block_s=0.02, device="USB")
    assert fake.started
    settings = {key: value for key, value in fake.settings.items() if key != "callback"}
    assert settings == {"samplerate": 16000, "blocksize": 320, "device": "USB", "channels": 1, "dtype": "int16"}
    for seed in (1, 2):
        fake.say(voice(320, seed))
    for seed in (1, 2):
        block = next(blocks)
        assert block.dtype == np.int16
        np.testing.assert_array_equal(block, voice(320, seed))
    assert not fake.closed
    blocks.close()  # type: ignore[attr-defined]
    assert fake.closed


def test_microphone_without_16_khz_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMicrophone(rates_hz=(48000,))
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(audio, "MICROPHONE_TIMEOUT_S", 0.0)
    tone = np.rint(16384 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)).astype(np.int16)

    def speak() -> None:
        for block in np.split(tone, 10):
            fake.say(block)

    monkeypatch.setattr(fake, "start", speak)
    heard: list[NDArray[np.int16]] = []
    with pytest.raises(AudioError, match="no samples"):
        for block in microphone(0.1):
            heard.append(block)
    assert fake.settings["blocksize"] == 4800
    result = np.concatenate(heard)
    assert 0.9 * 16000 < len(result) <= 16000  # the resampler holds back a little
    middle = np.arange(2000, len(result))
    assert np.abs(result[middle] - 16384 * np.sin(2 * np.pi * 440 * middle / 16000)).max() < 4


def test_microphone_reports_samples_lost_to_a_slow_reader(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeMicrophone()
    blocks = listening(monkeypatch, fake, voice(1600))
    for seed in range(105):  # 10 s of room, 0.5 s too many
        fake.say(voice(1600, seed))
    for seed in range(100):
        np.testing.assert_array_equal(next(blocks), voice(1600, seed))
    assert not caplog.records
    fake.say(voice(1600, 200))
    np.testing.assert_array_equal(next(blocks), voice(1600, 200))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "microphone: 8000 or more samples lost" in caplog.text
    fake.say(voice(1600, 201))
    next(blocks)
    assert len(caplog.records) == 1  # once


def test_microphone_reports_samples_lost_in_the_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeMicrophone()
    blocks = listening(monkeypatch, fake, voice(1600))
    fake.say(voice(1600, 1), overflow=True)
    fake.say(voice(1600, 2))
    next(blocks)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "microphone: 1 or more samples lost" in caplog.text
    next(blocks)
    assert len(caplog.records) == 1


def test_microphone_that_stops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMicrophone()
    monkeypatch.setattr(audio, "MICROPHONE_TIMEOUT_S", 0.01)
    blocks = listening(monkeypatch, fake, voice(160), block_s=0.01)
    assert "no samples for 0.01 s; was it unplugged?" in refusal(lambda: next(blocks), "microphone")
    assert fake.closed


@pytest.mark.parametrize(
    "problem",
    [
        PortAudioError("Error querying device -1"),
        ValueError("No input device matching 'USB'"),
        ValueError("Multiple input devices found for 'USB':\n[0] USB one\n[1] USB two"),
    ],
)
def test_no_such_microphone_is_refused(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone(problem=problem))
    words = " ".join(str(problem).split())
    assert words in refusal(lambda: next(microphone()), "microphone")
    assert words in refusal(lambda: next(microphone(device="USB")), "microphone 'USB'")


def test_microphone_without_sounddevice_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "pip install 'kouling[mic]'" in refusal(lambda: next(microphone()), "microphone")


def test_microphone_without_portaudio_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(lambda: next(microphone()), "microphone")
    assert "PortAudio library not found" in message
    assert "install PortAudio" in message


# Writing


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a"])
def test_written_recordings_are_wav_and_read_back(tmp_path: Path, name: str) -> None:
    samples = np.concatenate([voice(1000), np.array([-32768, 32767], dtype=np.int16)])
    path = tmp_path / name
    path.write_bytes(b"older")
    audio.write(path, samples)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16000, 1)
    np.testing.assert_array_equal(read(path), samples)
    audio.write(str(path), samples[::-3])  # not contiguous
    np.testing.assert_array_equal(read(path), samples[::-3])
    assert os.listdir(tmp_path) == [name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"older")

    def full(*_: Any) -> None:
        assert len(os.listdir(tmp_path)) == 2  # written under another name first
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "cannot be written: No space left" in refusal(lambda: audio.write(path, voice(10)), path)
    assert os.listdir(tmp_path) == ["a.wav"]
    assert path.read_bytes() == b"older"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("missing/a.wav", "file/a.wav", "folder"):
        path = tmp_path / name
        assert "cannot be written" in refusal(lambda path=path: audio.write(path, voice(10)), path)  # type: ignore[misc]
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("samples", [np.zeros(3), np.zeros((3, 1), dtype=np.int16), np.zeros(3, dtype=np.uint16)])
def test_samples_of_another_kind_are_not_written(tmp_path: Path, samples: NDArray[Any]) -> None:
    path = tmp_path / "a.wav"
    assert "allowed: int16" in refusal(lambda: audio.write(path, samples), path)
    assert not os.listdir(tmp_path)
