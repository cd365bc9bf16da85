"""Made-up sounds that nobody says: barks, calls, squeaks, knocks, whistles, ticking.

Recordings of noise are few, and a model that knows them by heart still takes a new dog, or a new clock, for a word.
These have what words have, an onset, a pitch that moves, resonances, an end, in combinations drawn anew each time;
many of them have what words have not, a rhythm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, iirpeak, lfilter

from kouling.audio import SAMPLE_RATE_HZ
from kouling.measure.noise import Floats, colored_noise

TABLE = 1024  # points of one period
HIGHEST_HZ = 7600.0


def calls(length: int, seed: int) -> Floats:
    """(length,) of RMS 1: one to three kinds of sound, each some times or in a rhythm, over some background."""
    rng = np.random.default_rng(seed)
    heard = np.zeros(length)
    for _ in range(rng.integers(1, 4)):
        sound = call(rng)[:length]
        for start in beats(rng, length) if rng.random() < 0.4 else rng.integers(length, size=rng.integers(1, 5)):
            again = alike(rng, sound)[: length - int(start)]
            heard[start : start + len(again)] += again * 10 ** (rng.uniform(-12, 0) / 20)
    if rng.random() < 0.5:  # in a room
        decay = np.exp(-np.arange(SAMPLE_RATE_HZ // 2) / (SAMPLE_RATE_HZ * log_uniform(rng, 0.01, 0.12)))
        echoes = rng.standard_normal(len(decay)) * decay * rng.uniform(0.02, 0.2)
        heard += fftconvolve(heard, echoes)[:length]
    heard /= np.sqrt(np.mean(heard**2)) + 1e-9
    heard += 10 ** (-rng.uniform(10, 60) / 20) * colored_noise(length, rng.uniform(0, 2), seed)
    level: Floats = (heard / (np.sqrt(np.mean(heard**2)) + 1e-9)).astype(np.float32)
    return level


def beats(rng: np.random.Generator, length: int) -> NDArray[np.int64]:
    """Where a clock, a drop or an engine is heard: every 0.1 to 1.5 s, more or less exactly, from some time on."""
    period = log_uniform(rng, 0.1, 1.5) * SAMPLE_RATE_HZ
    times = np.arange(rng.uniform(0, period), length, period)
    jittered = times + rng.normal(0, period * log_uniform(rng, 0.001, 0.15), len(times))
    return np.clip(jittered, 0, length - 1).astype(np.int64)


def alike(rng: np.random.Generator, sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sound again, a little faster or slower: no dog barks twice the same."""
    speed = np.exp(rng.normal(0, 0.04))
    again: NDArray[np.float64] = np.interp(np.arange(int(len(sound) / speed)) * speed, np.arange(len(sound)), sound)
    return again


def call(rng: np.random.Generator) -> NDArray[np.float64]:
    """One sound of 4 to 700 ms, of peak 1: a tone of any timbre, hissing, or both, through a few resonances."""
    length = int(SAMPLE_RATE_HZ * log_uniform(rng, 0.004, 0.7))
    hiss = rng.standard_normal(length)
    voiced = rng.choice([0.0, 1.0, rng.random()], p=[0.25, 0.35, 0.4])
    sound = voiced * tone(rng, length) + (1 - voiced) * hiss
    for _ in range(rng.integers(4)):
        resonance = lfilter(*iirpeak(log_uniform(rng, 200, 6000), rng.uniform(2, 12), SAMPLE_RATE_HZ), sound)
        sound = resonance + rng.uniform(0, 0.3) * sound
    time = np.arange(length) / SAMPLE_RATE_HZ
    if rng.random() < 0.4:  # rough, as growls are
        depth, rate = rng.uniform(0.2, 1), log_uniform(rng, 15, 90)
        sound = sound * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate * time)))
    attack, decay = log_uniform(rng, 0.0005, 0.15), log_uniform(rng, 0.003, 0.4)
    last = length / SAMPLE_RATE_HZ
    sound = sound * np.minimum(time / attack, 1) * np.exp(-np.maximum(time - attack, 0) / decay)
    sound *= np.minimum((last - time) / 0.001, 1)  # no click at the end
    shaped: NDArray[np.float64] = sound / (np.abs(sound).max() + 1e-9)
    return shaped


def tone(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """(length,) of RMS 1: a harmonic sound of random timbre whose pitch glides, bends and trembles."""
    time = np.linspace(0, 1, length)
    octaves = rng.uniform(-1, 1) * time + rng.uniform(-0.8, 0.8) * (time - 0.5) ** 2
    octaves += rng.uniform(0, 0.04) * np.sin(2 * np.pi * rng.uniform(1, 8) * time)
    pitch = np.minimum(log_uniform(rng, 70, 2500) * 2**octaves, HIGHEST_HZ / 2)
    harmonics = np.arange(1, max(int(HIGHEST_HZ / pitch.max()), 1) + 1)
    strength = harmonics ** -rng.uniform(0, 2) * rng.uniform(0.2, 1, len(harmonics))
    spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
    spectrum[harmonics] = strength * np.exp(2j * np.pi * rng.random(len(harmonics)))
    period = np.fft.irfft(spectrum, TABLE)
    phase = np.cumsum(pitch) / SAMPLE_RATE_HZ % 1 * TABLE
    made = np.interp(phase, np.arange(TABLE + 1), np.append(period, period[0]))
    level: NDArray[np.float64] = made / (made.std() + 1e-9)
    return level


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
