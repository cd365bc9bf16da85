"""Unstructured enough to keep the shape, structured enough to be fast: blocks of 16 outputs x 4 inputs of the linear
layers become zero, which the engine neither stores nor computes. See `train/zeros.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kouling.checkpoint import ModelInfo
from kouling.compress.prune import FIGURES, Floats, Weights
from kouling.encoder import Encoder
from kouling.train.zeros import block_sums, linear_layers, spread


def input_powers(encoder: Encoder, features: Iterable[Tensor]) -> dict[str, Floats]:
    """Mean square of each input (inputs,) of the linear layers of the blocks, by the layer's name.

    features: (B, T, M) of each batch; calibration.scene_features. Raises: ValueError where there are none.
    """
    sums: dict[str, Floats] = {}
    frames: dict[str, int] = {}

    def listen(name: str, x: Tensor) -> None:
        sums[name] = sums.get(name, np.zeros(x.shape[2])) + x.double().square().sum(dim=(0, 1)).numpy()
        frames[name] = frames.get(name, 0) + x.shape[0] * x.shape[1]

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, inputs[0]))
        for name, layer in linear_layers(encoder)
    ]
    training = encoder.training
    try:
        encoder.eval()
        with torch.no_grad():
            for batch in features:
                encoder(batch, encoder.initial_state(len(batch)))
    finally:
        for handle in handles:
            handle.remove()
        encoder.train(training)
    if not sums:
        raise ValueError("no batch to measure inputs on; allowed: one or more")
    return {name: total / frames[name] for name, total in sums.items()}


def sparsify(
    info: ModelInfo, weights: Mapping[str, NDArray[Any]], powers: Mapping[str, Floats], fraction: float
) -> tuple[ModelInfo, Weights]:
    """The model with this fraction of the blocks of each linear layer zero: those of the smallest sum of squared
    weight times mean squared input (Wanda: Sun et al. 2023, arXiv:2306.11695, eq. 1, squared and summed).

    powers: of `input_powers`. Raises: ValueError where the fraction is not from 0 to below 1, or the powers are those
    of another model.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of zero blocks is {fraction}; allowed: from 0 to below 1")
    sparse = dict(weights)
    for name, power in powers.items():
        key = f"{name}.weight"
        if key not in weights or weights[key].shape[1] != len(power):
            given = f"{weights[key].shape[1]} inputs" if key in weights else "no such layer"
            raise ValueError(f"the input powers are those of another model: {name} has {len(power)}, here {given}")
        weight = torch.from_numpy(weights[key].astype(np.float64))
        worth = block_sums(weight.square() * torch.from_numpy(power))
        kept = torch.ones(worth.numel())
        kept[worth.flatten().argsort(stable=True)[: round(fraction * worth.numel())]] = 0
        sparse[key] = weights[key] * spread(kept.view(worth.shape), weight).numpy().astype(weights[key].dtype)
    provenance = {key: value for key, value in info.provenance.items() if key not in FIGURES}
    provenance["zero_blocks"] = fraction
    return replace(info, name=f"{info.name}-sparse", provenance=provenance), sparse
