"""Blocks of zeros in weights, which the engine stores nothing of and skips: where they are, and training that keeps
them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kouling.encoder import Encoder

OUTPUTS, INPUTS = 16, 4  # of a block: the lanes of the engine's kernels, and the inputs that each takes at once


def linear_layers(encoder: Encoder) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the blocks, whose weights may have blocks of zeros, by their name in the checkpoint."""
    for name, module in encoder.blocks.named_modules(prefix="blocks"):
        if isinstance(module, nn.Linear):
            yield name, module


def block_sums(weight: Tensor) -> Tensor:
    """weight: (outputs, inputs) -> sum of each block (outputs / 16, inputs / 4), both rounded up."""
    outputs, inputs = weight.shape
    whole = F.pad(weight, (0, -inputs % INPUTS, 0, -outputs % OUTPUTS))
    return whole.view(len(whole) // OUTPUTS, OUTPUTS, -1, INPUTS).sum(dim=(1, 3))


def spread(blocks: Tensor, weight: Tensor) -> Tensor:
    """blocks: a number of each block -> the number of each weight, in the shape of `weight`."""
    wide = blocks.repeat_interleave(OUTPUTS, dim=0).repeat_interleave(INPUTS, dim=1)
    return wide[: weight.shape[0], : weight.shape[1]]


def kept_weights(encoder: Encoder) -> dict[Tensor, Tensor]:
    """For each weight that has blocks of zeros, where it has none, as ones and zeros of its shape.

    Raises: ValueError where no weight has any.
    """
    kept = {}
    for _, layer in linear_layers(encoder):
        nonzero = block_sums((layer.weight.detach() != 0).float()) > 0
        if not nonzero.all():
            kept[layer.weight] = spread(nonzero, layer.weight).to(layer.weight.dtype)
    if not kept:
        raise ValueError(
            f"training.keep_zeros is true but no weight of the start has a block of {OUTPUTS} x {INPUTS} zeros; "
            "set it to false"
        )
    return kept


def clear_gradients(kept: dict[Tensor, Tensor]) -> None:
    """Gradients of weights in blocks of zeros become zero: AdamW then leaves these weights at exactly zero, and they
    take nothing of the norm that gradients are clipped to."""
    with torch.no_grad():
        for parameter, mask in kept.items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
