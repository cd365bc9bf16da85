"""Calibration: an encoder run over features as in a stream, and what its layers and its output are there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kouling.config import Config
from kouling.deploy import grid
from kouling.encoder import Encoder
from kouling.train.objective import first_rows
from kouling.train.scenes import NOTHING, SceneMaker

BATCH = 32  # clips at once
SILENT = 0.1  # of a feature: half a neper above the rounding noise of 16-bit audio
# Encoder frames for each input of the widest layer: neighbours in time are much alike, and from as many frames as
# inputs GPTQ would learn the calibration clips by heart.
FRAMES_PER_INPUT = 4


def from_scenes(maker: SceneMaker, clips: int, seed: int = 0) -> NDArray[np.float32]:
    """Features (clips, T, M) of a recipe's longest scenes, with as much noise and running speech among them as in
    training. Pure in `seed`."""
    rng = np.random.default_rng([maker.recipe.seed, 2, seed])
    shape = max(maker.recipe.scenes, key=lambda each: each.slots * each.slot_s)
    slots, noise_slots, speech_slots = maker.draw_slots(rng)
    share = clips / (len(slots) + noise_slots + speech_slots)
    noise_rows, speech_rows = (round(count * share) for count in (noise_slots, speech_slots))
    words = clips - noise_rows - speech_rows
    rows = [[slots[int(i)] for i in rng.integers(len(slots), size=shape.slots)] for _ in range(words)]
    made = maker.render(rng, rows + [[NOTHING] * shape.slots] * noise_rows, speech_rows, shape)
    return made.features[rng.permutation(clips)].astype(np.float32)


def check(features: NDArray[Any], config: Config, weights: grid.Weights) -> NDArray[np.float32]:
    """Calibration features (R, T, M) that a model can learn its rounding from, as float32.

    Raises: ValueError where they have another shape, are not finite or silent, or are too few.
    """
    mels, subsampling = config.features.num_mels, config.encoder.subsampling
    if features.ndim != 3 or features.shape[2] != mels or features.shape[1] % subsampling or not features.size:
        raise ValueError(
            f"calibration features are {features.shape}; allowed: (clips, frames, {mels}), frames a multiple of "
            f"{subsampling}"
        )
    if not np.isfinite(features).all():
        raise ValueError("calibration features hold numbers that are not finite; allowed: log-mel features")
    heard = int((features.max(axis=(1, 2)) > SILENT).sum())
    widest = max(len(grid.input_order(weights, layer)) for layer in grid.layers(weights))
    needed = math.ceil(FRAMES_PER_INPUT * widest * subsampling / features.shape[1])
    if not heard:
        raise ValueError(f"all {len(features)} calibration clips are silent; allowed: {needed} or more with sound")
    if heard < needed:
        raise ValueError(
            f"calibration has {heard} clips of {features.shape[1]} frames with sound; this model needs {needed} or more"
        )
    return np.asarray(features, dtype=np.float32)


@dataclass(frozen=True)
class Inputs:
    """What a layer was given: the mean of each input, and how they vary together, in packed order."""

    mean: grid.Floats  # (32 G,)
    covariance: grid.Floats  # (32 G, 32 G)


class _Sums:
    """Of a layer's inputs, in the order of the checkpoint."""

    def __init__(self, inputs: int) -> None:
        self.count = 0
        self.first = np.zeros(inputs)
        self.second = np.zeros((inputs, inputs))

    def add(self, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        """A forward hook."""
        x = given[0]
        if isinstance(module, nn.Conv2d):
            assert isinstance(module.padding, tuple)
            x = F.unfold(x, module.kernel_size, padding=module.padding, stride=module.stride).transpose(1, 2)
        rows = x.reshape(-1, x.shape[-1])
        self.count += len(rows)
        self.first += rows.sum(dim=0, dtype=torch.float64).numpy()
        self.second += (rows.T @ rows).numpy()

    def inputs(self, order: NDArray[np.int64]) -> Inputs:
        mean = self.first / self.count
        covariance = self.second / self.count - np.outer(mean, mean)
        places = np.flatnonzero(order >= 0)
        size = grid.padded(len(order), grid.GROUP)
        moved = Inputs(np.zeros(size), np.zeros((size, size)))
        moved.mean[places] = mean[order[places]]
        moved.covariance[np.ix_(places, places)] = covariance[np.ix_(order[places], order[places])]
        return moved


class Listener:
    """An encoder that is run over calibration features, its layers' weights changed in between."""

    def __init__(self, encoder: Encoder, features: NDArray[np.float32]) -> None:
        self.encoder, self.features = encoder, features

    @torch.no_grad()
    def hear(self) -> Iterator[NDArray[np.float32]]:
        """Log-probabilities (frames, V) of a few clips after another. All but the first go on from the state that
        others left behind: most of a stream is not its beginning."""
        state = None
        for start in range(0, len(self.features), BATCH):
            batch = torch.from_numpy(self.features[start : start + BATCH])
            begun = self.encoder.initial_state(len(batch)) if state is None else first_rows(state, len(batch))
            log_probs, state = self.encoder(batch, begun)
            yield log_probs.flatten(0, 1).numpy()

    def log_probs(self) -> NDArray[np.float32]:
        """(frames, V) of all clips."""
        return np.concatenate(list(self.hear()))

    def inputs(self, weights: grid.Weights, layers: Sequence[str]) -> dict[str, Inputs]:
        """What these layers are given. weights: the encoder's, for the order of their inputs."""
        orders = {layer: grid.input_order(weights, layer) for layer in layers}
        sums = {layer: _Sums(int((order >= 0).sum())) for layer, order in orders.items()}
        handles = [self.encoder.get_submodule(layer).register_forward_hook(sums[layer].add) for layer in layers]
        try:
            for _ in self.hear():
                pass
        finally:
            for handle in handles:
                handle.remove()
        return {layer: sums[layer].inputs(order) for layer, order in orders.items()}

    @torch.no_grad()
    def change(self, layer: str, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        module = self.encoder.get_submodule(layer)
        for name, value in (("weight", weight), ("bias", bias)):
            module.get_parameter(name).copy_(torch.from_numpy(value.astype(np.float32)))
