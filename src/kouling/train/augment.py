"""Augmentation: everything random is drawn first, into small frozen records, and then applied by pure functions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from torch import Tensor

from kouling.audio import SAMPLE_RATE_HZ
from kouling.config import FeatureConfig
from kouling.features import mel_edges, to_hz, to_mel
from kouling.measure.noise import FULL_SCALE, Floats
from kouling.train.data import Clip
from kouling.train.precision import put
from kouling.train.recipe import Augment

NUM_ROOMS = 96
ROOM_S = 0.4
FILTER_KNOTS = 6


@dataclass(frozen=True)
class ClipDraw:
    """How one clip is heard."""

    offset: int  # first sample taken from the clip; negative: silence first
    speed: float
    gain_db: float
    room: int | None

    def heard_at(self, *samples: int) -> list[float]:
        """Where samples of the clip are heard, in samples of what is rendered."""
        return [(sample - self.offset) / self.speed for sample in samples]


@dataclass(frozen=True)
class NoiseDraw:
    """What is heard besides. Power falls with frequency to `color`; where it is None, a recording, or made-up calls."""

    color: float | None
    snr_db: float
    level_db: float  # re full scale, where there is no speech to measure an SNR against
    seed: int
    speed: float = 1.0  # of recorded noise: a dog at another speed is another dog
    reverse: bool = False
    calls: bool = False


@dataclass(frozen=True)
class SceneDraw:
    gain_db: float
    noise: NoiseDraw | None


def draw_clip(rng: np.random.Generator, clip: Clip, length: int, augment: Augment) -> ClipDraw:
    """`length` samples of the clip with its speech inside them, or as much of the speech as fits."""
    speed = 1 + rng.uniform(-1, 1) * augment.speed_percent / 100
    span = int(length * speed)
    margin = SAMPLE_RATE_HZ // 20
    earliest, latest = clip.speech_end + margin - span, clip.speech_start - margin
    if earliest > latest:
        middle = (clip.speech_start + clip.speech_end - span) // 2
        earliest, latest = middle, middle + 1
    # Nearly a third begins with the clip itself, as a file that someone recognises does.
    from_start = earliest <= 0 <= latest and rng.random() < 0.3
    offset = 0 if from_start else int(rng.integers(earliest, latest + 1))
    gain_db = rng.uniform(-1, 1) * augment.clip_gain_db
    room = int(rng.integers(NUM_ROOMS)) if rng.random() * 100 < augment.room_percent else None
    return ClipDraw(offset, speed, gain_db, room)


def apply_clip(samples: NDArray[np.int16], length: int, draw: ClipDraw, rooms: Floats) -> Floats:
    """samples: (clip,) -> (length,), resampled by linear interpolation, silent where the clip holds nothing."""
    position = draw.offset + np.arange(length) * draw.speed
    index = np.floor(position).astype(np.int64)
    fraction = (position - index).astype(np.float32)
    padded = np.zeros(len(samples) + 2, dtype=np.float32)
    padded[1:-1] = samples
    left = padded[np.clip(index + 1, 0, len(padded) - 1)]
    right = padded[np.clip(index + 2, 0, len(padded) - 1)]
    heard = (left + (right - left) * fraction) * np.float32(10 ** (draw.gain_db / 20))
    if draw.room is not None:
        heard = fftconvolve(heard, rooms[draw.room])[:length].astype(np.float32)
    result: Floats = heard
    return result


def splice(
    first: NDArray[np.int16], first_clip: Clip, last: NDArray[np.int16], last_clip: Clip, share: float
) -> tuple[NDArray[np.int16], Clip]:
    """The first `share` of one clip's speech, then the rest of another's, as loud, and where the result's speech is."""
    cut = first_clip.speech_start + int(share * (first_clip.speech_end - first_clip.speech_start))
    resume = last_clip.speech_start + int(share * (last_clip.speech_end - last_clip.speech_start))
    fade = min(SAMPLE_RATE_HZ // 100, cut, len(last) - resume)
    gain = first_clip.speech_rms / max(last_clip.speech_rms, 1.0)
    head, tail = first[:cut].astype(np.float32), last[resume:] * np.float32(min(gain, 8.0))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    middle = head[cut - fade :] * (1 - ramp) + tail[:fade] * ramp
    whole = np.concatenate([head[: cut - fade], middle, tail[fade:]])
    joined = np.clip(whole, -FULL_SCALE, FULL_SCALE).astype(np.int16)
    speech_end = min(cut - fade + last_clip.speech_end - resume, len(joined))
    clip = Clip(0, len(joined), first_clip.speech_start, speech_end, first_clip.speech_rms, "", first_clip.name)
    return joined, clip


def draw_scene(rng: np.random.Generator, augment: Augment, always_noise: bool = False) -> SceneDraw:
    noise = None
    if always_noise or rng.random() * 100 < augment.noise_percent:
        color = None if rng.random() < (0.85 if always_noise else 0.65) else float(rng.choice([0.0, 1.0, 2.0]))
        calls = color is None and bool(rng.random() * 100 < augment.calls_percent)
        snr_db, level_db = rng.uniform(augment.snr_low_db, augment.snr_high_db), rng.uniform(-55, 0)
        speed, reverse = float(np.exp(rng.uniform(-0.5, 0.5))), bool(rng.random() < 0.5)
        noise = NoiseDraw(color, snr_db, level_db, int(rng.integers(2**31)), speed, reverse, calls)
    return SceneDraw(rng.uniform(-1, 1) * augment.gain_db, noise)


def vary_noise(samples: NDArray[np.int16], clip: Clip, length: int, draw: NoiseDraw) -> NDArray[np.int16]:
    """A recording of noise at the drawn speed and in the drawn direction: what lies `length` to either side of a moment
    at which it is loud. A dog barks once in five seconds, and it is the bark that sounds like a word."""
    reach, last = int(length * draw.speed), max(clip.speech_end, clip.speech_start + 1)
    loud = int(np.random.default_rng(draw.seed).integers(clip.speech_start, last))
    near = samples[max(loud - reach, 0) : loud + reach]
    taken = near[(np.arange(int(len(near) / draw.speed)) * draw.speed).astype(np.int64)]
    return taken[::-1] if draw.reverse else taken


def apply_scene(clean: Floats, noise: Floats | None, speech_rms: float, draw: SceneDraw, augment: Augment) -> Floats:
    """Add the noise (of RMS 1), set the level, and round and clip to 16 bits as a recorder would. (S,) -> (S,)."""
    scene = clean
    if draw.noise is not None and noise is not None:
        silent = speech_rms == 0
        reference, level_db = (FULL_SCALE, draw.noise.level_db) if silent else (speech_rms, -draw.noise.snr_db)
        level = reference * 10 ** (level_db / 20)
        scene = clean + noise * np.float32(level)
    peak = float(np.abs(scene).max()) + 1.0
    headroom_db = 20 * np.log10(FULL_SCALE / peak) + augment.overdrive_db
    gain = 10 ** (min(draw.gain_db, headroom_db) / 20)
    return np.clip(np.round(scene * np.float32(gain)), -FULL_SCALE - 1, FULL_SCALE).astype(np.float32)


def load_rooms(cache: Path) -> Floats:
    """(NUM_ROOMS, taps) impulse responses of simulated rooms (image sources), the direct sound first; made once."""
    path = cache / f"rooms-{NUM_ROOMS}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f"rooms-{os.getpid()}.tmp.npy"
        np.save(temporary, np.stack([simulate_room(np.random.default_rng(seed)) for seed in range(NUM_ROOMS)]))
        os.replace(temporary, path)
    rooms: Floats = np.load(path)
    return rooms


def simulate_room(rng: np.random.Generator) -> Floats:
    """(taps,) A shoebox of 2 to 8 m with a reverberation time of 0.1 to 0.6 s, talker and microphone anywhere in it."""
    import pyroomacoustics as pra

    size = rng.uniform([2.5, 2.0, 2.2], [8.0, 6.0, 3.5])
    reverberation_s = max(rng.uniform(0.1, 0.6), 0.05 * float(size.max()))
    absorption, order = pra.inverse_sabine(reverberation_s, size)
    room = pra.ShoeBox(size, fs=SAMPLE_RATE_HZ, materials=pra.Material(absorption), max_order=min(order, 12))
    room.add_source(rng.uniform(0.4, size - 0.4))
    room.add_microphone(rng.uniform(0.4, size - 0.4))
    room.compute_rir()
    response = np.asarray(room.rir[0][0])
    direct = int(np.argmax(np.abs(response)))
    taps = np.zeros(int(ROOM_S * SAMPLE_RATE_HZ), dtype=np.float32)
    tail = response[max(direct - 8, 0) :][: len(taps)]
    taps[: len(tail)] = tail / np.sqrt(np.sum(tail**2))
    return taps


def add_noise_features(
    features: Tensor, heard: Tensor, noise: Tensor, rng: np.random.Generator, augment: Augment, config: FeatureConfig
) -> Tensor:
    """Rows heard in further noise: powers of mel bands add up, as those of unrelated sounds do on average. What is
    rendered once serves for several epochs, and its noise is learned by heart; this noise is another each time.

    features: (B, T, M); heard: (B, T) the frames whose mean power the SNR is measured against; noise: (B, T, M) the
    features of nothing but noise, one for each row -> (B, T, M).
    """
    chosen = np.flatnonzero(rng.random(len(features)) * 100 < augment.more_noise_percent)
    if not len(chosen):
        return features
    frames = features.shape[1]
    # Each row of noise from another moment on, round and round, every second one backwards.
    order = (np.arange(frames) - rng.integers(frames, size=(len(chosen), 1))) % frames
    order = np.where(rng.random((len(chosen), 1)) < 0.5, frames - 1 - order, order)
    device, snr_db = features.device, rng.uniform(augment.more_noise_low_db, augment.snr_high_db, len(chosen))
    rows = put(chosen, device)
    turned = noise[rows[:, None], put(order, device)]
    # Counted from the power of the floor, at which features are 0: the silence of both stays silence.
    clean, added = (torch.expm1(x * config.log_scale) for x in (features[rows], turned))
    where = heard[rows]
    power = (clean.mean(dim=2) * where).sum(dim=1) / where.sum(dim=1).clamp(min=1)
    gain = power * put(10 ** (-snr_db / 10), device).float() / added.mean(dim=(1, 2)).clamp(min=1e-3)
    return features.index_copy(0, rows, torch.log1p(clean + added * gain[:, None, None]) / config.log_scale)


def mask_features(features: Tensor, rng: np.random.Generator, augment: Augment) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv:1904.08779). features: (B, T, M) -> (B, T, M)."""
    batch, frames, mels = features.shape
    in_time = masked(
        rng, batch, frames, round(augment.time_masks_per_s * frames / 100), round(augment.time_mask_s * 100)
    )
    in_mels = masked(rng, batch, mels, augment.mel_masks, augment.mel_mask_bands)
    hidden = put(in_time, features.device)[:, :, None] | put(in_mels, features.device)[:, None, :]
    return features.masked_fill(hidden, 0.0)


def masked(rng: np.random.Generator, rows: int, length: int, count: int, widest: int) -> NDArray[np.bool_]:
    """(rows, length) where `count` masks a row lie, each of any width up to `widest`, at any place."""
    widths = rng.integers(min(widest, length) + 1, size=(rows, count, 1))
    starts = (rng.random((rows, count, 1)) * (length - widths + 1)).astype(np.int64)
    place = np.arange(length)
    inside = (starts <= place) & (place < starts + widths)
    return np.asarray(np.logical_or.reduce(inside, axis=1), dtype=np.bool_)


def warp_features(features: Tensor, rng: np.random.Generator, augment: Augment, config: FeatureConfig) -> Tensor:
    """Every row heard from another vocal tract (VTLP; Jaitly and Hinton 2013): its frequencies times a factor of its
    own. features: (B, T, M) -> (B, T, M)."""
    if not augment.warp_percent:
        return features
    centers = mel_edges(config)[1:-1]
    factors = 1 + rng.uniform(-1, 1, (len(features), 1)) * augment.warp_percent / 100
    position = np.interp(to_mel(to_hz(centers) * factors), centers, np.arange(len(centers)))  # (B, M)
    # Linear interpolation as a matrix a row, (M heard, M read); what lies beyond the bands is like the last of them.
    weights = np.maximum(1 - np.abs(np.arange(len(centers))[:, None] - position[:, None, :]), 0)
    return torch.bmm(features, put(weights.astype(np.float32), features.device))


def filter_features(features: Tensor, rng: np.random.Generator, augment: Augment, config: FeatureConfig) -> Tensor:
    """Every row heard by another microphone (FilterAugment; Nam et al. 2022, arXiv:2110.03282): a gain at each of
    FILTER_KNOTS frequencies, straight lines between them. features: (B, T, M) -> (B, T, M); silence stays silent."""
    if not augment.filter_db:
        return features
    nats = augment.filter_db * np.log(10) / 10 / config.log_scale
    gains = rng.uniform(-nats, nats, (len(features), FILTER_KNOTS))
    at = np.linspace(0, FILTER_KNOTS - 1, features.shape[2])
    before = np.minimum(at.astype(np.int64), FILTER_KNOTS - 2)
    curve = gains[:, before] * (before + 1 - at) + gains[:, before + 1] * (at - before)
    louder = features + put(curve.astype(np.float32), features.device)[:, None]
    return louder.clamp(min=0).masked_fill(features == 0, 0)
