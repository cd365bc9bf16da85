"""Points of the time grid, and a model with another one: what can be changed in its weights without training.

- The step, to any multiple of the subsampling: the same numbers, several encoder frames at once.
- The cached frames, downwards: the biases of far distances are left out. There is none for a distance never trained.
  A local window narrows with them; linear attention has none, and its sums are the same whatever they are.
- The lookahead (chunk - step), downwards: the frames that are no longer waited for are taken to be like the last one,
  by adding their weights in the stem to its own. This costs accuracy, unless it was trained with
  (`training.varying_chunk`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import recognizer
from kouling.checkpoint import ModelInfo
from kouling.config import EncoderConfig

CHUNKS, CACHED, STEPS = (5, 10, 15), (25, 50, 100), (3, 5, 10)  # with the model's own: 10/100/5 and 5/50/3 among them
MOST_FRAMES_PER_STEP = 64  # of the engine

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Setting:
    """One point of the grid, in feature frames of 10 ms; printed as chunk/cached/step."""

    chunk: int
    cached: int
    step: int
    threshold: float | None = None  # None: the model's own

    def __str__(self) -> str:
        return f"{self.chunk}/{self.cached}/{self.step}" + ("" if self.threshold is None else f" at {self.threshold:g}")

    @property
    def delay_ms(self) -> int:
        """The step and its lookahead: from the beginning of a step's own frames to the last frame it needs."""
        return self.chunk * 10

    def axes(self) -> dict[str, Any]:
        """By name, the threshold only where there is one."""
        threshold = {} if self.threshold is None else {"threshold": self.threshold}
        return {"chunk": self.chunk, "cached": self.cached, "step": self.step, **threshold}


def own_setting(encoder: EncoderConfig) -> Setting:
    return Setting(encoder.streaming_chunk_size, encoder.max_cached_frames, encoder.streaming_step_size)


def grid(
    own: EncoderConfig,
    chunks: Sequence[int] = (),
    cached: Sequence[int] = (),
    steps: Sequence[int] = (),
    thresholds: Sequence[float] = (),
) -> list[Setting]:
    """Every combination. What is empty is the usual values, and those that fit the model: its own, the step of two
    encoder frames, and of these steps the chunks with and without its lookahead."""
    fitting = (own.streaming_step_size, 2 * own.subsampling)
    widest = {"windowed": max(CACHED), "local": own.local_frames - 1, "linear": 0}[own.attention]
    narrower = [each for each in CACHED if each <= widest]  # what makes a difference to the window
    axes = [
        sorted(set(given or (*usual, *more)))
        for given, usual, more in (
            (chunks, CHUNKS, [step + ahead for step in fitting for ahead in (0, own.lookahead)]),
            (cached, narrower, [own.max_cached_frames]),
            (steps, STEPS, fitting),
        )
    ]
    return [
        Setting(chunk, left, step, threshold)
        for chunk, left, step in product(*axes)
        for threshold in thresholds or (None,)
    ]


def adapt(info: ModelInfo, weights: Weights, setting: Setting) -> tuple[ModelInfo, dict[str, NDArray[Any]]]:
    """The model with another setting, as a checkpoint has it. Raises: ValueError where the numbers do not go together,
    or the model would have to be trained with them."""
    own = info.config.encoder
    if setting.chunk < setting.step:
        raise ValueError(f"chunk {setting.chunk} is smaller than step {setting.step}")
    if setting.step % own.subsampling:
        raise ValueError(f"step {setting.step} is not a multiple of the model's subsampling, {own.subsampling}")
    if setting.step > MOST_FRAMES_PER_STEP * own.subsampling:
        raise ValueError(f"step {setting.step} is longer than the engine's {MOST_FRAMES_PER_STEP * own.subsampling}")
    local = own.attention == "local"
    encoder = replace(
        own,
        streaming_chunk_size=setting.chunk,
        max_cached_frames=setting.cached,
        streaming_step_size=setting.step,
        local_frames=min(own.local_frames, setting.cached) if local else own.local_frames,
    )
    if encoder.lookahead > own.lookahead:
        raise ValueError(f"lookahead {encoder.lookahead} (chunk - step): trained with {own.lookahead}; needs training")
    if encoder.left_context > own.left_context:
        raise ValueError(f"cached {setting.cached}: trained with {own.max_cached_frames}; needs training")
    changed = dict(weights)
    for key, value in weights.items():
        if key.endswith("attention.distance_bias"):
            changed[key] = value[:, : encoder.left_context + 1]
    window = encoder.subsampling + encoder.lookahead
    patch = weights["stem.patch.weight"].astype(np.float32)  # (C, 1, window, 5)
    held = patch[:, :, :window].copy()
    held[:, :, -1] += patch[:, :, window:].sum(axis=2)
    changed["stem.patch.weight"] = held if window < patch.shape[2] else weights["stem.patch.weight"]
    decoder = dict(info.decoder) if setting.threshold is None else {**info.decoder, "threshold": setting.threshold}
    provenance = dict(info.provenance)
    if setting != own_setting(own):
        provenance["tuned"] = str(setting)
    adapted = replace(info, config=replace(info.config, encoder=encoder), decoder=decoder, provenance=provenance)
    recognizer.overlay_decoder(adapted)  # an impossible threshold is told here
    return adapted, changed
