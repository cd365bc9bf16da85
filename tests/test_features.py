"""Features stream, keep to their definition, and are the same in every implementation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling.config import FeatureConfig
from kouling.features import LogMel

Voice = Callable[[int, int], NDArray[np.int16]]

CONFIGS = {
    "default": FeatureConfig(),
    "other": FeatureConfig(frame_length_ms=32, num_mels=40, low_hz=100.0, high_hz=8000.0, log_floor=2.0, log_scale=3.0),
}


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> FeatureConfig:
    made: FeatureConfig = request.param
    return made


def as_defined(samples: NDArray[np.int16], config: FeatureConfig) -> NDArray[np.float64]:
    """The definition at the top of `features.py`, step by step in plain numpy, sharing no code with it."""
    length, hop = config.frame_length_ms * 16, 160
    window = [(0.5 - 0.5 * math.cos(2 * math.pi * i / (length - 1))) ** 0.85 for i in range(length)]

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    low, high = mel(config.low_hz), mel(config.high_hz)
    triangles = np.zeros((config.num_mels, 256))
    for band in range(config.num_mels):
        left, center, right = (low + (high - low) * (band + i) / (config.num_mels + 1) for i in range(3))
        for bin_number in range(256):
            here = mel(bin_number * 16000 / 512)
            if left < here <= center:
                triangles[band, bin_number] = (here - left) / (center - left)
            elif center < here < right:
                triangles[band, bin_number] = (right - here) / (right - center)

    rows = []
    for start in range(0, len(samples) - length + 1, hop):
        frame = samples[start : start + length].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.fft(frame * window, 512)[:256]) ** 2
        log_mel = np.log(np.maximum(triangles @ power, 1e-30))
        rows.append((np.maximum(log_mel, config.log_floor) - config.log_floor) / config.log_scale)
    return np.array(rows).reshape(-1, config.num_mels)


def portions(samples: NDArray[np.int16], sizes: list[int]) -> Iterator[NDArray[np.int16]]:
    """The samples in portions of these sizes, over and over."""
    start = number = 0
    while start < len(samples):
        yield samples[start : start + sizes[number % len(sizes)]]
        start += sizes[number % len(sizes)]
        number += 1


def test_features_are_what_the_definition_says(config: FeatureConfig, voice: Voice) -> None:
    samples = voice(16000, 1)
    made, defined = LogMel(config).accept(samples), as_defined(samples, config)
    assert made.dtype == np.float32
    assert (defined > 0).mean() > 0.8 and (defined == 0).any()  # both sides of the floor
    np.testing.assert_allclose(made, defined, rtol=0, atol=1e-3 / config.log_scale)


@pytest.mark.parametrize(
    "sizes", [[1], [159], [160], [161], [400], [0, 399, 1], [1600, 3], [7, 0, 997, 160, 2500]], ids=str
)
def test_any_portioning_equals_feeding_at_once(sizes: list[int], voice: Voice) -> None:
    samples = voice(5000, 2)
    log_mel = LogMel(FeatureConfig())
    streamed = [log_mel.accept(portion) for portion in portions(samples, sizes)]
    np.testing.assert_array_equal(np.concatenate(streamed), LogMel(FeatureConfig()).accept(samples))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_a_frame_comes_with_its_last_sample(samples: int, frames: int, voice: Voice) -> None:
    assert LogMel(FeatureConfig()).accept(voice(samples, 3)).shape == (frames, 64)


def test_a_long_stream_stays_exact(voice: Voice) -> None:
    """Over a minute, in portions: the last frames depend on the last samples alone."""
    samples = voice(16000 * 64, 4)
    log_mel = LogMel(FeatureConfig())
    streamed = np.concatenate([log_mel.accept(portion) for portion in portions(samples, [16007])])
    assert len(streamed) == 1 + (len(samples) - 400) // 160
    tail = (len(streamed) - 50) * 160
    np.testing.assert_array_equal(streamed[-50:], LogMel(FeatureConfig()).accept(samples[tail:]))


@pytest.mark.parametrize("heard", [1, 399, 400, 4321])
def test_reset_equals_fresh(heard: int, voice: Voice) -> None:
    log_mel = LogMel(FeatureConfig())
    log_mel.accept(voice(heard, 5))
    log_mel.reset()
    samples = voice(3000, 6)
    np.testing.assert_array_equal(log_mel.accept(samples), LogMel(FeatureConfig()).accept(samples))


def test_two_streams_do_not_touch(voice: Voice) -> None:
    one, other = LogMel(FeatureConfig()), LogMel(FeatureConfig())
    samples = voice(3000, 7)
    streamed = []
    for portion in portions(samples, [500]):
        streamed.append(one.accept(portion))
        other.accept(voice(333, 8))
    np.testing.assert_array_equal(np.concatenate(streamed), LogMel(FeatureConfig()).accept(samples))


@pytest.mark.parametrize("level", [0, 1, -1, 32767, -32768])
def test_silence_is_exactly_zero(level: int) -> None:
    """Digital silence, with or without an offset of the recorder."""
    features = LogMel(FeatureConfig()).accept(np.full(4000, level, np.int16))
    assert features.shape == (23, 64)
    assert not features.any()


def test_features_are_never_negative_and_of_the_promised_size(voice: Voice) -> None:
    square = np.where(np.arange(8000) // 40 % 2, 32767, -32768).astype(np.int16)
    noise = np.random.default_rng(9).integers(-2, 3, 8000).astype(np.int16)  # around the floor
    features = np.concatenate([LogMel(FeatureConfig()).accept(s) for s in (voice(8000, 10), square, noise)])
    assert features.min() == 0
    assert 2.5 < features.max() < 5


def test_twice_the_amplitude_adds_ln_4_of_power(config: FeatureConfig) -> None:
    """+6 dB: every level is a step of the same size, so a gain is a shift; only what lies below the floor stays."""
    quiet = (np.random.default_rng(11).standard_normal(8000) * 10 ** np.linspace(0, 3, 8000)).astype(np.int16)
    before, after = LogMel(config).accept(quiet), LogMel(config).accept(quiet * 2)
    above = before > 0
    assert 0.3 < above.mean() < 1
    np.testing.assert_allclose((after - before)[above], math.log(4) / config.log_scale, rtol=0, atol=1e-5)
    assert (after - before)[~above].max() <= math.log(4) / config.log_scale + 1e-5


@pytest.mark.parametrize("seed", [12, 13])
def test_batched_features_equal_the_streamed_ones(config: FeatureConfig, voice: Voice, seed: int) -> None:
    torch = pytest.importorskip("torch", reason="batched features are for training, which needs torch")
    from kouling.train.logmel import BatchLogMel

    clips = [voice(6000, seed), voice(6000, seed + 100) // 50, np.zeros(6000, np.int16)]
    batch = torch.from_numpy(np.stack(clips).astype(np.float32))
    streamed = np.stack([LogMel(config).accept(clip) for clip in clips])
    np.testing.assert_allclose(BatchLogMel(config)(batch).numpy(), streamed, rtol=0, atol=1e-3 / config.log_scale)


@pytest.mark.parametrize(
    ("samples", "given"),
    [
        (np.zeros(400, np.float32), "float32 of shape (400,)"),
        (np.zeros(400, np.int32), "int32 of shape (400,)"),
        (np.zeros((1, 400), np.int16), "int16 of shape (1, 400)"),
        (np.int16(1) * np.ones((), np.int16), "int16 of shape ()"),
    ],
)
def test_anything_but_a_vector_of_int16_is_refused(samples: Any, given: str) -> None:
    log_mel = LogMel(FeatureConfig())
    with pytest.raises(ValueError, match="expected a vector of int16 samples, got ") as caught:
        log_mel.accept(np.asarray(samples))
    assert given in str(caught.value)
    assert len(log_mel.accept(np.zeros(400, np.int16))) == 1  # what was refused was not heard
