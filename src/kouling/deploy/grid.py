"""int4 grids: the values that the weights of a layer may take, and where they stand in a checkpoint. Without PyTorch.

A weight on a grid is `number * multiplier * scale`: a number from -8 to 7 of its own, a multiplier (int8) that 32
inputs of an output share, and a scale (float32) of the output. A quantised checkpoint holds float weights that lie on
the grid, so every runtime runs it as it is, and beside each such layer two tensors, `int4.<layer>.scale` (O,) and
`int4.<layer>.multipliers` (O, G), with which the packer finds the same numbers again.

Groups are those of the order in which the engine reads the inputs, which in the stem is not that of the checkpoint. The
engine also has the gain and shift of the normalisation before a layer in its weights, so a checkpoint with grids has
them folded (`fold_norms`). Its other factors, the half of the feed-forward modules and the scale of the scores, are one
number for an output: they go into `scale` and leave the numbers as they are.

Letters: O outputs, I inputs as the engine reads them, G groups of 32 of them, the last one filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 16  # numbers that the engine's kernels take at once
GROUP = 32  # inputs that share a multiplier
PREFIX = "int4."  # of the tensors of grids
LOWEST, HIGHEST = -8, 7
LARGEST_MULTIPLIER = 127
# Of a step, so that a weight rounded to float16, whose smallest step is 2^-24, is still nearest to its own number.
SMALLEST_STEP = 2.0**-22
# How much of the largest weight of a group the grid reaches: less cuts it off, and rounds all others more finely.
REACHES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)

BLOCK = (
    "feed_forward_in.expand",
    "feed_forward_in.contract",
    "attention.query_key_value",
    "attention.output",
    "convolution.gate",
    "convolution.output",
    "feed_forward_out.expand",
    "feed_forward_out.contract",
)
NORM_EPSILON = 1e-5
_FOLDED = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}  # of a normalisation
AFTER_NORM = ("expand", "query_key_value", "gate")  # layers behind a normalisation that is folded into them

Floats = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Grid:
    scale: NDArray[np.float32]  # (O,)
    multipliers: NDArray[np.int8]  # (O, G)

    def steps(self) -> Floats:
        """(O, 32 G): from each weight's value on the grid to its next; negative where the multiplier is."""
        return np.repeat(self.multipliers * self.scale.astype(np.float64)[:, None], GROUP, axis=1)

    def scaled(self, factor: Floats | float) -> Grid:
        """That of a layer whose outputs (O,) are multiplied by `factor`."""
        return Grid((self.scale * factor).astype(np.float32), self.multipliers)


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """The upper half of a float32's bits, rounded to the nearest, in the middle to even."""
    bits = values.astype("<f4").view("<u4")
    return np.asarray((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, dtype="<u2")


def through_bfloat16(values: Floats) -> Floats:
    """The numbers that are left of some when they are stored as bfloat16."""
    return (to_bfloat16(values).astype("<u4") << 16).view("<f4").astype(np.float64)


def padded(size: int, multiple: int = LANES) -> int:
    return -(-size // multiple) * multiple


def layers(weights: Iterable[str]) -> list[str]:
    """The layers that may have a grid, in the order of a step, from the names of a checkpoint's tensors: all linear
    layers and the convolutions of the stem, but for the first and the last. Both are small, the errors of the head go
    straight into the result, and of en-small's divergence in int4 half came from the 400 weights of `stem.patch`."""
    names = {key.removesuffix(".weight") for key in weights if key.endswith(".weight")}

    def count(prefix: str) -> int:
        return len({name.split(".")[prefix.count(".")] for name in names if name.startswith(prefix)})

    deepen = [f"stem.deepen.{i}" for i in range(count("stem.deepen."))]
    blocks = [f"blocks.{i}.{layer}" for i in range(count("blocks.")) for layer in BLOCK]
    return [*deepen, "stem.mix", "stem.project", *blocks]


def norm_before(layer: str) -> str | None:
    """The normalisation that is folded into a layer."""
    module, _, last = layer.rpartition(".")
    return f"{module}.norm" if last in AFTER_NORM else None


def gain_and_shift(weights: Weights, norm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a normalisation multiplies by and adds: all that batch normalisation does, and what layer normalisation does
    last."""
    gain, shift = (weights[f"{norm}.{key}"].astype(np.float64) for key in ("weight", "bias"))
    if f"{norm}.running_mean" not in weights:
        return gain, shift
    mean, variance = (weights[f"{norm}.running_{key}"].astype(np.float64) for key in ("mean", "var"))
    gain = gain / np.sqrt(variance + NORM_EPSILON)
    return gain, shift - mean * gain


def fold_norms(weights: Weights) -> dict[str, NDArray[Any]]:
    """An equal checkpoint whose normalisations before linear layers have gain 1 and shift 0: they are in the weights
    and biases behind them, as float32. Batch normalisation has mean 0 and variance 1 then."""
    folded = dict(weights)
    for layer in layers(weights):
        norm = norm_before(layer)
        if norm is None or is_folded(weights, norm):
            continue
        weight, bias = (weights[f"{layer}.{key}"].astype(np.float64) for key in ("weight", "bias"))
        gain, shift = gain_and_shift(weights, norm)
        for key, value in _FOLDED.items():
            if f"{norm}.{key}" in weights:
                folded[f"{norm}.{key}"] = np.full_like(weights[f"{norm}.{key}"], value)
        left = gain_and_shift(folded, norm)[0]  # of batch normalisation not quite 1
        folded[f"{layer}.weight"] = (weight * gain / left).astype(np.float32)
        folded[f"{layer}.bias"] = (bias + weight @ shift).astype(np.float32)
    return folded


def is_folded(weights: Weights, norm: str) -> bool:
    return all(
        (weights[f"{norm}.{key}"] == value).all() for key, value in _FOLDED.items() if f"{norm}.{key}" in weights
    )


def input_order(weights: Weights, layer: str) -> NDArray[np.int64]:
    """(I,): which input of the checkpoint's weight, flattened behind its outputs, the engine reads at each place; -1
    for channels that fill up."""
    shape = weights[f"{layer}.weight"].shape
    inputs = np.arange(int(np.prod(shape[1:])))
    if layer.startswith("stem."):  # by mels or position, then by what is innermost in the engine
        innermost = shape[2] if layer == "stem.patch" else len(weights["stem.patch.weight"])
        by_place = inputs.reshape(innermost, -1).T
        more = 0 if layer == "stem.patch" else padded(innermost) - innermost
        inputs = np.pad(by_place, ((0, 0), (0, more)), constant_values=-1).ravel()
    return inputs


def packed(weight: NDArray[Any], order: NDArray[np.int64]) -> Floats:
    """A checkpoint's weight as (O, 32 G): its inputs in `order`, then zeros."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    matrix = np.where(order >= 0, flat[:, order], 0.0)
    return np.pad(matrix, ((0, 0), (0, padded(len(order), GROUP) - len(order))))


def unpacked(matrix: NDArray[Any], order: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse: (O, 32 G) in the order and shape of the checkpoint."""
    flat = np.zeros((len(matrix), int(np.prod(shape[1:]))), dtype=matrix.dtype)
    flat[:, order[order >= 0]] = matrix[:, np.flatnonzero(order >= 0)]
    return flat.reshape(shape)


def fit(matrix: Floats, importance: Floats | None = None) -> Grid:
    """The grid on which rounding to the nearest makes the least squared error, each input's weighted by its importance
    (32 G,). matrix: (O, 32 G)."""
    scale = fit_scale(matrix, importance)
    return Grid(scale, fit_multipliers(matrix, scale, importance))


def fit_scale(matrix: Floats, importance: Floats | None = None) -> NDArray[np.float32]:
    """(O,): as fine as lets the multipliers reach the largest step."""
    groups = _groups(matrix)
    best = _best(groups, _candidates(groups), _weights(groups, importance))
    finest = np.abs(best).max(axis=1) / LARGEST_MULTIPLIER
    # As the engine stores it; not rounded down, or the largest step would be out of reach.
    scale = through_bfloat16(np.maximum(finest, SMALLEST_STEP) * (1 + 2.0**-8))
    return np.asarray(scale, dtype=np.float32)


def fit_multipliers(matrix: Floats, scale: NDArray[np.float32], importance: Floats | None = None) -> NDArray[np.int8]:
    """(O, G): of the multipliers that come into question, those that round with the least squared error."""
    groups, unit = _groups(matrix), scale.astype(np.float64)[:, None]
    whole = [np.rint(step / unit).clip(-LARGEST_MULTIPLIER, LARGEST_MULTIPLIER) for step in _candidates(groups)]
    steps = [np.where(multiplier == 0, 1, multiplier) * unit for multiplier in whole]
    best = _best(groups, steps, _weights(groups, importance))
    return np.asarray(np.rint(best / unit), dtype=np.int8)


def _groups(matrix: Floats) -> Floats:
    return matrix.reshape(len(matrix), -1, GROUP)


def _weights(groups: Floats, importance: Floats | None) -> Floats:
    return np.ones(groups.shape[1:]) if importance is None else importance.reshape(groups.shape[1:])


def _candidates(groups: Floats) -> list[Floats]:
    """Steps (O, G) with which the largest weight of each group is about -8 or 7."""
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)[..., 0]
    steps = [reach * largest / end for reach in REACHES for end in (LOWEST, HIGHEST)]
    return [np.where(np.abs(step) < SMALLEST_STEP, SMALLEST_STEP, step) for step in steps]


def _best(groups: Floats, candidates: list[Floats], weights: Floats) -> Floats:
    """(O, G): for each group the step with the least squared error."""
    best, least = candidates[0], np.full(groups.shape[:2], np.inf)
    for step in candidates:
        numbers = np.rint(groups / step[..., None]).clip(LOWEST, HIGHEST)
        error = ((numbers * step[..., None] - groups) ** 2 * weights).sum(axis=2)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return best


def numbers(matrix: Floats, grid: Grid) -> NDArray[np.int8]:
    """(O, 32 G): the nearest number of each weight; 0 where a step is 0."""
    steps = grid.steps()
    divided = np.divide(matrix, steps, out=np.zeros_like(matrix), where=steps != 0)
    return np.asarray(np.rint(divided).clip(LOWEST, HIGHEST), dtype=np.int8)


def snap(matrix: Floats, grid: Grid) -> Floats:
    """(O, 32 G): the nearest values on the grid."""
    return numbers(matrix, grid) * grid.steps()


def without_grids(weights: Weights) -> dict[str, NDArray[Any]]:
    """The encoder's own tensors."""
    return {key: value for key, value in weights.items() if not key.startswith(PREFIX)}


def tensors(grids: Mapping[str, Grid]) -> dict[str, NDArray[Any]]:
    """The tensors of layers' grids, as they stand in a checkpoint."""
    named: dict[str, NDArray[Any]] = {}
    for layer, grid in grids.items():
        named[f"{PREFIX}{layer}.scale"] = grid.scale
        named[f"{PREFIX}{layer}.multipliers"] = grid.multipliers
    return named


def grids_of(weights: Weights, name: str) -> dict[str, Grid]:
    """The grid of each layer of a checkpoint that has one. name: of the checkpoint, for what is wrong with it.

    Raises: ValueError where a grid is incomplete, of another shape than its layer, or of a layer that has none, or
    where the normalisation before a layer is not folded.
    """
    known = layers(weights)
    found = {}
    for layer in dict.fromkeys(key[len(PREFIX) :].rpartition(".")[0] for key in weights if key.startswith(PREFIX)):
        if layer not in known:
            raise ValueError(f"{name}: has an int4 grid of {layer!r}; allowed: {', '.join(known)}")
        outputs, groups = len(weights[f"{layer}.weight"]), -(-len(input_order(weights, layer)) // GROUP)
        expected = {"scale": ((outputs,), np.float32), "multipliers": ((outputs, groups), np.int8)}
        for key, (shape, dtype) in expected.items():
            tensor = weights.get(f"{PREFIX}{layer}.{key}")
            given = "missing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
            if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
                raise ValueError(f"{name}: {PREFIX}{layer}.{key} is {given}; allowed: {np.dtype(dtype)} {shape}")
        norm = norm_before(layer)
        if norm is not None and not is_folded(weights, norm):
            raise ValueError(f"{name}: {layer} has an int4 grid, but {norm} before it is not folded into it")
        found[layer] = Grid(weights[f"{PREFIX}{layer}.scale"], weights[f"{PREFIX}{layer}.multipliers"])
    return found
