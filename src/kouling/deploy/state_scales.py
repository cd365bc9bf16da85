"""Scales of a state in int8: what each layer remembers is a whole number, -127 to 127, times a scale that is fixed.

They stand in a checkpoint beside its weights, the first block being 0:

- `state.<block>.keys`, `state.<block>.values`: one number each; linear attention, whose sums stay float, has none;
- `state.<block>.conv`, `state.<block>.middle` (C,): a scale for each channel of the convolution, and what is 0 there.
  A channel may lie around 700 and say what it has to say with one more or less.

They are the same for what a step is given and for what it returns. A frame's keys, values and convolution inputs are
rounded once, when they are made, and never again: however long a stream goes on, its error does not grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.config import BlockShape
from kouling.recognizer import priming

PREFIX = "state."
LARGEST = 127
FRAMES_AT_ONCE = 64  # encoder frames of all recordings that are computed together
MOST_FRAMES = 4096  # that scales are chosen by
FINEST = (
    16  # a channel that said nothing in calibration is rounded no finer than so much of most others: it may yet speak
)
REACHES = np.linspace(0.4, 1.0, 31)  # how much of the largest number is not cut off

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StateScales:
    """Of what one block remembers."""

    keys: float
    values: float
    conv: Floats  # (C,)
    middle: Floats  # (C,)


def none(shape: BlockShape) -> StateScales:
    """Those of a state that is not rounded to whole numbers."""
    return StateScales(1.0, 1.0, np.ones(shape.channels), np.zeros(shape.channels))


def without_scales(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The encoder's own tensors of a checkpoint."""
    return {key: value for key, value in weights.items() if not key.startswith(PREFIX)}


def sizes(info: ModelInfo, shape: BlockShape) -> dict[str, int]:
    """How many numbers a block has of each tensor."""
    attention = {} if info.config.encoder.attention == "linear" else {"keys": 1, "values": 1}
    return {**attention, "conv": shape.channels, "middle": shape.channels}


def of_checkpoint(info: ModelInfo, weights: Mapping[str, NDArray[Any]]) -> list[StateScales]:
    """Of every block. Raises: ValueError where the checkpoint has none, or one that is no number above 0."""
    found = []
    for block, shape in enumerate(info.config.encoder.blocks):
        own: dict[str, Any] = {"keys": 1.0, "values": 1.0}
        for name, size in sizes(info, shape).items():
            key = f"{PREFIX}{block}.{name}"
            if key not in weights:
                raise ValueError(f"{info.name}: a state in int8 needs {key}, which `state_scales.measure` finds")
            numbers = weights[key].astype(np.float64).ravel()
            least = -np.inf if name == "middle" else 0
            if numbers.size != size or not ((numbers > least) & (numbers < np.inf)).all():
                kind = "finite" if name == "middle" else "above 0"
                raise ValueError(f"{info.name}: {key} is no scale; allowed: {size} numbers, {kind}")
            own[name] = numbers if size == shape.channels and name in ("conv", "middle") else float(numbers[0])
        found.append(StateScales(**own))
    return found


def measure(
    info: ModelInfo, weights: Mapping[str, NDArray[Any]], features: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The scales of every block, as tensors for the checkpoint: those with which the float encoder's own keys, values
    and convolution inputs, over calibration features (R, T, M), are rounded with the least squared error.

    R recordings of T frames, T a multiple of the subsampling; each is heard as a stream hears it, after silence. Needs
    PyTorch. Raises: ValueError where weights do not fit the configuration, or there are no features.
    """
    import torch
    from torch.nn import functional as F

    from kouling.deploy import step
    from kouling.encoder import BlockState, EncoderState

    encoder, config = step.build(info, weights), info.config
    subsampling, recordings = config.encoder.subsampling, len(features)
    frames = recordings * (features.shape[1] // subsampling)
    if not frames:
        raise ValueError(f"{info.name}: calibration features are {features.shape}; allowed: recordings of some frames")
    found: dict[str, list[NDArray[np.float32]]] = {}

    def keep(name: str, made: torch.Tensor) -> None:
        rows = made.reshape(-1, made.shape[-1])
        found.setdefault(name, []).append(rows[:: max(frames // MOST_FRAMES, 1)].numpy())

    def attention_hook(block: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: Any, made: torch.Tensor) -> None:
            _, keys, values = made.chunk(3, dim=-1)
            keep(f"{block}.keys", keys)
            keep(f"{block}.values", values)

        return hook

    def convolution_hook(block: int) -> Callable[..., None]:
        return lambda module, given, made: keep(f"{block}.conv", F.glu(made))

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.expand(recordings, *tensor.shape[1:])

    with torch.no_grad():
        _, state = encoder(torch.from_numpy(priming(info))[None], encoder.initial_state())
        blocks = tuple(BlockState(*map(repeated, block)) for block in state.blocks)
        state = EncoderState(repeated(state.stem), blocks, repeated(state.frames_seen))
        for block in range(config.encoder.layers):
            layers = encoder.get_submodule(f"blocks.{block}")
            if config.encoder.attention != "linear":
                layers.get_submodule("attention.query_key_value").register_forward_hook(attention_hook(block))
            layers.get_submodule("convolution.gate").register_forward_hook(convolution_hook(block))
        heard = torch.from_numpy(np.ascontiguousarray(features[:, : frames // recordings * subsampling]))
        for start in range(0, heard.shape[1], FRAMES_AT_ONCE * subsampling):
            _, state = encoder(heard[:, start : start + FRAMES_AT_ONCE * subsampling], state)
    scales: dict[str, NDArray[Any]] = {}
    for name, parts in found.items():
        made = np.concatenate(parts).astype(np.float64)
        if name.endswith(".conv"):
            middle = made.mean(axis=0)
            scales[name.replace("conv", "middle")] = middle
            best = best_scales(made - middle)
            scales[name] = np.maximum(best, np.median(best) / FINEST)
        else:
            scales[name] = best_scales(made.reshape(-1, 1))
    return {f"{PREFIX}{name}": scale.astype(np.float32) for name, scale in scales.items()}


def best_scales(numbers: Floats) -> Floats:
    """numbers: (N, C) -> (C,) with which each column is rounded, its largest cut off, with the least squared error."""
    largest = np.abs(numbers).max(axis=0)
    largest[largest == 0] = LARGEST
    best: Floats = largest / LARGEST
    least = np.full(len(largest), np.inf)
    for reach in REACHES:
        scale = reach * largest / LARGEST
        error = np.square(np.clip(np.rint(numbers / scale), -LARGEST, LARGEST) * scale - numbers).sum(axis=0)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best
