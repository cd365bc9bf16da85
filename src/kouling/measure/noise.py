"""Noise, and levels: the disturbances that training draws from and that measuring applies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kouling.audio import SAMPLE_RATE_HZ

FULL_SCALE = 32767.0
SAMPLES_PER_BLOCK = 160  # energies are measured over 10 ms

Floats = NDArray[np.float32]


def colored_noise(length: int, color: float, seed: int) -> Floats:
    """(length,) noise of RMS 1 whose power falls as 1 / f ** color: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    frequency = np.maximum(np.arange(len(spectrum)), length * 20 / SAMPLE_RATE_HZ)  # flat below 20 Hz
    noise = np.fft.irfft(spectrum / frequency ** (color / 2), length)
    level: Floats = (noise / (noise.std() + 1e-9)).astype(np.float32)
    return level


def recorded_noise(samples: NDArray[np.int16], length: int, seed: int) -> Floats:
    """(length,) of RMS 1 (0 where the recording is silent) from anywhere in the recording, repeated if it is short."""
    start = np.random.default_rng(seed).integers(max(1, len(samples) - length + 1))
    noise = np.resize(samples[start : start + length], length).astype(np.float32)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1.0)


def block_energies_db(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """(S // 160,) energy of each 10 ms, in dB of int16 squared."""
    blocks = len(samples) // SAMPLES_PER_BLOCK
    squared = samples[: blocks * SAMPLES_PER_BLOCK].astype(np.float64).reshape(blocks, SAMPLES_PER_BLOCK) ** 2
    energies: NDArray[np.float64] = 10 * np.log10(squared.mean(axis=1) + 1.0)
    return energies


def speech_bounds(samples: NDArray[np.int16]) -> tuple[int, int]:
    """First and last sample of what stands out of the recording's own background: of the word in a clip of one word."""
    energies = block_energies_db(samples)
    if len(energies) < 3:
        return 0, len(samples)
    smooth = np.convolve(energies, np.ones(3) / 3, mode="same")
    floor, peak = np.percentile(smooth, 10), smooth.max()
    loud = np.flatnonzero(smooth >= floor + 0.3 * (peak - floor))
    return int(loud[0]) * SAMPLES_PER_BLOCK, int(loud[-1] + 1) * SAMPLES_PER_BLOCK


def speech_rms(samples: NDArray[np.int16]) -> float:
    """RMS, at int16 scale, of the part between the speech bounds."""
    first, last = speech_bounds(samples)
    voiced = samples[first:last].astype(np.float64)
    return float(np.sqrt(np.mean(voiced**2))) if len(voiced) else 0.0


def to_int16(samples: Floats, gain_db: float = 0.0) -> NDArray[np.int16]:
    """Scaled, rounded and clipped, as a recorder with that gain would have written it."""
    scaled = np.round(samples * np.float32(10 ** (gain_db / 20)))
    return np.clip(scaled, -FULL_SCALE - 1, FULL_SCALE).astype(np.int16)
