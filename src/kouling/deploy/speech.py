"""Audio that an export is calibrated by and proven with; never the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio
from kouling.deploy.graph import Graph, log_softmax
from kouling.features import LogMel

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
LONGEST_S = 300.0  # of each half
LEAST_S = 10.0  # of calibration
PIECE_S = 4.0  # of a recording that is heard at one gain
GAINS_DB = (-20.0, 10.0)  # calibration hears every recording louder or softer: a device's microphone is not ours
LEAST_HEARD = 0.02  # of the frames of calibration must be something else than blank to the model

Samples = NDArray[np.int16]
Features = NDArray[np.float32]


def halves(path: Path) -> tuple[Samples, Samples]:
    """Recordings, a file or all files below a folder -> what to calibrate by and what to verify with: every other
    recording, or of a single one its two halves. 16 kHz.

    Raises: ValueError where there is no recording, or too little for calibration; audio.AudioError.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such folder or recording")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{path}: holds no recording ending in {', '.join(SUFFIXES)}")
    if len(files) == 1:
        whole = audio.read(files[0])
        parts = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    else:
        order = np.random.default_rng(0).permutation(len(files))  # folders are often one word after the other
        parts = _joined([files[i] for i in order[::2]]), _joined([files[i] for i in order[1::2]])
    seconds = len(parts[0]) / audio.SAMPLE_RATE_HZ
    if seconds < LEAST_S:
        raise ValueError(f"{path}: {seconds:.1f} s to calibrate by; needed: {LEAST_S:g} s, and as much again to verify")
    return parts


def _joined(files: Sequence[Path]) -> Samples:
    found: list[Samples] = []
    size, most = 0, round(LONGEST_S * audio.SAMPLE_RATE_HZ)
    for file in files:
        found.append(audio.read(file)[: most - size])
        size += len(found[-1])
        if size >= most:
            break
    return np.concatenate(found)


def calibration(graph: Graph, samples: Samples) -> NDArray[np.float32]:
    """(frames, M) what static int8 is calibrated by: the recordings, each at a gain of its own, and silence.

    Raises: ValueError where the recordings are silent, or the model hears no speech in them.
    """
    rng = np.random.default_rng(1)
    piece = round(PIECE_S * audio.SAMPLE_RATE_HZ)
    if not samples.any():
        raise ValueError("the recordings to calibrate by are silent")
    parts = []
    for start in range(0, len(samples), piece):
        gain = 10 ** (rng.uniform(*GAINS_DB) / 20)
        parts.append(np.clip(np.rint(samples[start : start + piece] * gain), -32768, 32767).astype(np.int16))
    log_mel = LogMel(graph.info.config.features)
    features = np.concatenate(
        [log_mel.accept(np.concatenate(parts)), np.zeros((100, log_mel.config.num_mels), np.float32)]
    )
    heard = np.concatenate([graph.module(*inputs)[0].numpy()[0] for inputs in graph.calls(features)])
    spoken = float((np.exp(log_softmax(heard)[:, 0]) < 0.5).mean())
    if spoken < LEAST_HEARD:
        raise ValueError(
            f"the model hears speech in {spoken:.1%} of the recordings to calibrate by; needed: {LEAST_HEARD:.0%}, "
            "or the ranges of its numbers do not cover speech"
        )
    return features


def made_up(seconds: float) -> Samples:
    """Bursts of filtered noise: no speech, but numbers of every size, where there are no recordings."""
    rng = np.random.default_rng(2)
    count = round(seconds * audio.SAMPLE_RATE_HZ)
    time = np.arange(count) / audio.SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    loudness = 10 ** (-2 + 1.5 * np.sin(2 * np.pi * 0.9 * time) * np.sin(2 * np.pi * 0.13 * time))
    samples = loudness * (np.asarray(hum) + rng.standard_normal(count)) * 4000
    return np.clip(samples, -32768, 32767).astype(np.int16)
