"""Streaming log-mel features.

The one definition, which every other implementation must reproduce to 1e-3:
1. frame n is the 25 ms of samples from n * 10 ms, at int16 scale (+-32768); no padding, no dither;
2. subtract the frame's mean; pre-emphasis x[i] - 0.97 x[i-1], with x[0] - 0.97 x[0] at the left edge;
3. multiply by Povey's window (Hann to the power 0.85); FFT of 512; power |X|^2;
4. `num_mels` triangles, evenly spaced and linear on the mel scale 1127 ln(1 + f / 700);
5. natural logarithm; then (max(log mel, log_floor) - log_floor) / log_scale.
Steps 1 to 4 are Kaldi's and are left to kaldi-native-fbank. Step 5 is fixed, not fitted to a clip, so it can stream.
The floor lies at the rounding noise of 16-bit audio, so 0 means digital silence, and the
zeros that an encoder starts with are silence heard so far.
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

from kouling.config import FeatureConfig

FFT_SIZE = 512
PREEMPHASIS = 0.97


class LogMel:
    """Samples in, in any portions; features out. One instance is one stream."""

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = config.sample_rate_hz
        options.frame_opts.frame_shift_ms = config.frame_shift_ms
        options.frame_opts.frame_length_ms = config.frame_length_ms
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = True
        options.frame_opts.window_type = "povey"
        options.frame_opts.preemph_coeff = PREEMPHASIS
        options.frame_opts.remove_dc_offset = True
        options.mel_opts.num_bins = config.num_mels
        options.mel_opts.low_freq = config.low_hz
        options.mel_opts.high_freq = config.high_hz
        options.mel_opts.debug_mel = False
        options.use_energy = False
        self._options = options
        self.reset()

    def reset(self) -> None:
        """Forget everything heard."""
        self._fbank = knf.OnlineFbank(self._options)
        self._next_frame = 0

    def accept(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """samples: (any number,) int16 at 16 kHz -> the frames that they complete, (T, num_mels), T may be 0."""
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise ValueError(f"expected a vector of int16 samples, got {samples.dtype} of shape {samples.shape}")
        self._fbank.accept_waveform(self.config.sample_rate_hz, samples.astype(np.float32))
        ready = self._fbank.num_frames_ready
        frames = np.empty((ready - self._next_frame, self.config.num_mels), dtype=np.float32)
        for row, index in enumerate(range(self._next_frame, ready)):
            frames[row] = self._fbank.get_frame(index)
        self._fbank.pop(ready - self._next_frame)
        self._next_frame = ready
        return normalize(frames, self.config)


def normalize(log_mel: NDArray[np.float32], config: FeatureConfig) -> NDArray[np.float32]:
    """Step 5 of the definition: natural-log mel power -> features of about 0 to 3."""
    scaled: NDArray[np.float32] = (np.maximum(log_mel, np.float32(config.log_floor)) - np.float32(config.log_floor)) / (
        np.float32(config.log_scale)
    )
    return scaled


def povey_window(config: FeatureConfig) -> NDArray[np.float64]:
    """(window_samples,) Kaldi's default window."""
    size = config.window_samples
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))
    window: NDArray[np.float64] = hann**0.85
    return window


def to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    mel: NDArray[np.float64] = 1127.0 * np.log1p(hz / 700.0)
    return mel


def to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hz: NDArray[np.float64] = 700.0 * np.expm1(mel / 1127.0)
    return hz


def mel_edges(config: FeatureConfig) -> NDArray[np.float64]:
    """(num_mels + 2,) mel at which the triangles begin, peak and end: one begins where the one before it peaks."""
    low, high = to_mel(np.array([config.low_hz, config.high_hz]))
    return np.linspace(low, high, config.num_mels + 2)


def mel_filters(config: FeatureConfig) -> NDArray[np.float64]:
    """(FFT_SIZE / 2 + 1, num_mels) weight of each FFT bin in each mel; Kaldi's, so the Nyquist bin weighs nothing."""

    edges = mel_edges(config)
    bins = to_mel(np.arange(FFT_SIZE // 2 + 1) * config.sample_rate_hz / FFT_SIZE)[:, None]
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
    weights: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0.0, None)
    weights[-1] = 0.0
    return weights
