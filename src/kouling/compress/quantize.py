"""Quantisation of a trained checkpoint: which layers go on int4 grids, and how their weights are rounded.

The result is a checkpoint like any other, its weights on the grids (`deploy/grid.py`): every runtime runs it, and the
engine's packer stores the layers with a grid in half a byte a weight and all others in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.compress import calibration
from kouling.compress.calibration import Inputs, Listener
from kouling.compress.gptq import gptq
from kouling.deploy import grid, model_file, step
from kouling.deploy.grid import Grid
from kouling.recognizer import own_commands

ROUNDINGS = ("gptq", "nearest")


@dataclass(frozen=True)
class Int8:
    """All layers in int8, which the packer rounds: nothing is lost that would have to be made good."""


@dataclass(frozen=True)
class Int4:
    """All layers in int4, in groups of 32 inputs."""

    rounding: str = "gptq"  # "nearest": every weight by itself

    def __post_init__(self) -> None:
        _check_rounding(self.rounding)


@dataclass(frozen=True)
class Mixed:
    """int4 where it does the least harm for a byte saved, int8 elsewhere, within one budget."""

    max_bytes: int | None = None  # of the engine's model file that listens for every unit: as much int8 as fits
    max_divergence: float | None = None  # mean of a frame, nats, from the float posteriors: as much int4 as it allows
    rounding: str = "gptq"

    def __post_init__(self) -> None:
        _check_rounding(self.rounding)
        if (self.max_bytes is None) == (self.max_divergence is None):
            raise ValueError(
                f"max_bytes is {self.max_bytes} and max_divergence {self.max_divergence}; allowed: one of them"
            )


Scheme = Int8 | Int4 | Mixed
Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sensitivity:
    """What int4 in one layer alone does."""

    layer: str
    divergence: float  # Kullback-Leibler, mean of a frame, nats, from the float posteriors
    saved_bytes: int  # of the model file, next to int8


def quantize(
    scheme: Scheme, info: ModelInfo, weights: grid.Weights, features: NDArray[np.float32] | None = None
) -> Weights:
    """The weights of a checkpoint under a scheme, rounded to float16, with the grids of its int4 layers.

    features: calibration clips (R, T, M), best those of training scenes; `Int8` and `Int4("nearest")` need none.
    Raises: ValueError where the features are missing or of no use, or a budget cannot be kept.
    """
    if isinstance(scheme, Int8):
        return grid.without_grids(weights)
    folded = grid.fold_norms(grid.without_grids(weights))
    if features is None and scheme == Int4("nearest"):
        return _result(folded, {layer: grid.fit(_matrix(folded, layer)) for layer in grid.layers(folded)})
    if features is None:
        raise ValueError(f"{type(scheme).__name__} needs calibration features; give some, or round to the nearest")
    heard = calibration.check(features, info.config, folded)
    if isinstance(scheme, Int4):
        return _round(info, folded, grid.layers(folded), scheme.rounding, heard)[0]
    return _mixed(scheme, info, folded, heard)


def sensitivities(
    info: ModelInfo, weights: grid.Weights, features: NDArray[np.float32], rounding: str = "gptq"
) -> list[Sensitivity]:
    """Of each layer by itself, all others float; least harm for a byte saved first. Layers that save nothing are left
    out. Raises: ValueError where the features are of no use, or the engine does not run the model."""
    _check_rounding(rounding)
    folded = grid.fold_norms(grid.without_grids(weights))
    heard = calibration.check(features, info.config, folded)
    listener = Listener(step.build(info, folded), heard)
    layers = grid.layers(folded)
    inputs = listener.inputs(folded, layers)
    expected, whole_bytes = listener.log_probs(), _file_bytes(info, folded, {})
    found = []
    for layer in layers:
        own, weight, bias = _rounded(folded, layer, rounding, inputs[layer])
        saved_bytes = whole_bytes - _file_bytes(info, folded, {layer: own})
        if saved_bytes > 0:
            listener.change(layer, weight, bias)
            found.append(Sensitivity(layer, divergence(expected, listener.log_probs()), saved_bytes))
            listener.change(layer, folded[f"{layer}.weight"], folded[f"{layer}.bias"])
    return sorted(found, key=lambda each: each.divergence / each.saved_bytes)


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence, mean of a frame, nats; of log-probabilities (frames, V)."""
    return float((np.exp(expected) * (expected - found)).sum(axis=1, dtype=np.float64).mean())


def _mixed(scheme: Mixed, info: ModelInfo, folded: Weights, heard: NDArray[np.float32]) -> Weights:
    order = sensitivities(info, folded, heard, scheme.rounding)
    layers = [each.layer for each in order]
    if scheme.max_bytes is not None:
        bytes_left = _file_bytes(info, folded, {}) - np.cumsum([0, *(each.saved_bytes for each in order)])
        enough = np.flatnonzero(bytes_left <= scheme.max_bytes)
        if not len(enough):
            raise ValueError(f"max_bytes is {scheme.max_bytes}; this model allows: {bytes_left[-1]} or more")
        return _round(info, folded, layers[: enough[0]], scheme.rounding, heard)[0]
    assert scheme.max_divergence is not None
    kept, most = _result(folded, {}), len(layers)
    least = 0  # as many layers are within the budget; `most` may be too
    while least < most:
        middle = (least + most + 1) // 2
        made, away = _round(info, folded, layers[:middle], scheme.rounding, heard)
        if away <= scheme.max_divergence:
            kept, least = made, middle
        else:
            most = middle - 1
    return kept


def _round(
    info: ModelInfo, folded: Weights, chosen: Sequence[str], rounding: str, heard: NDArray[np.float32]
) -> tuple[Weights, float]:
    """The checkpoint with the chosen layers in int4, and its divergence from what it was. In the order of a step: later
    layers make up for what earlier ones lost."""
    listener = Listener(step.build(info, folded), heard)
    expected = listener.log_probs()
    result, grids = dict(folded), {}
    for layer in (each for each in grid.layers(folded) if each in set(chosen)):
        inputs = listener.inputs(folded, [layer])[layer] if rounding == "gptq" else None
        grids[layer], result[f"{layer}.weight"], result[f"{layer}.bias"] = _rounded(folded, layer, rounding, inputs)
        listener.change(layer, result[f"{layer}.weight"], result[f"{layer}.bias"])
    return _result(result, grids), divergence(expected, listener.log_probs())


def _rounded(
    weights: Weights, layer: str, rounding: str, inputs: Inputs | None
) -> tuple[Grid, NDArray[Any], NDArray[Any]]:
    """A layer's grid, its weight on the grid, and its bias, which takes up the mean of what rounding changed."""
    matrix, bias = _matrix(weights, layer), weights[f"{layer}.bias"]
    if rounding == "nearest" or inputs is None:
        own = grid.fit(matrix)
        snapped = grid.snap(matrix, own)
    else:
        own, snapped = gptq(matrix, inputs.covariance)
        bias = bias + (matrix - snapped) @ inputs.mean
    order = grid.input_order(weights, layer)
    return own, grid.unpacked(snapped, order, weights[f"{layer}.weight"].shape), bias


def _matrix(weights: Weights, layer: str) -> grid.Floats:
    return grid.packed(weights[f"{layer}.weight"], grid.input_order(weights, layer))


def _result(weights: Weights, grids: dict[str, Grid]) -> Weights:
    """As it stands in a checkpoint: on its grids, in float16."""
    snapped = dict(weights)
    for layer, own in grids.items():
        order, shape = grid.input_order(weights, layer), weights[f"{layer}.weight"].shape
        snapped[f"{layer}.weight"] = grid.unpacked(grid.snap(_matrix(weights, layer), own), order, shape)
    halves = {k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in snapped.items()}
    return {**halves, **grid.tensors(grids)}


def _file_bytes(info: ModelInfo, weights: Weights, grids: dict[str, Grid]) -> int:
    return len(model_file.pack(info, {**weights, **grid.tensors(grids)}, own_commands(info)))


def _check_rounding(rounding: str) -> None:
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding is {rounding!r}; allowed: {', '.join(ROUNDINGS)}")
