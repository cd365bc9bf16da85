"""Constants that a normalisation takes away again, or a softmax does not see, are not trained.

Nothing holds them, so the optimiser, which makes steps of one size whatever the gradient, carries them off: what
attention adds to all values alike grew to hundreds. Of that int8 and bfloat16 leave nothing of what differs, and the
mean of such weights over time does not fit the mean of the statistics that were taken beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kouling.encoder import Encoder

BEFORE_NORM = (
    *("feed_forward_in.contract.bias", "feed_forward_out.contract.bias"),
    *("attention.output.bias", "convolution.output.bias"),
)


def freeze_unheard(encoder: Encoder) -> None:
    """Leave all biases as they are that batch normalisation removes behind them, and those that another bias makes up
    for or a softmax removes. What the encoder can learn is the same."""
    parameters = dict(encoder.named_parameters())
    convolutions = zip(encoder.stem.convolutions(), encoder.stem.batch_norms, strict=True)
    unheard = [f"stem.{name}.bias" for name, norm in convolutions if isinstance(norm, nn.BatchNorm2d)]
    blocks = [f"blocks.{index}" for index in range(len(encoder.blocks))]
    unheard += [f"{block}.convolution.depthwise.bias" for block in blocks]
    if encoder.config.encoder.norm == "batch":
        unheard += ["stem.project.bias", *(f"{block}.{name}" for block in blocks for name in BEFORE_NORM)]
        unheard += [f"{block}.attention.norm.bias" for block in blocks]  # that of the product behind it makes up for it
        linear = encoder.config.encoder.attention == "linear"
        for block in blocks:
            _train_heard_parts(parameters[f"{block}.attention.query_key_value.bias"], linear)
    for name in unheard:
        parameters[name].requires_grad_(False)


def _train_heard_parts(bias: nn.Parameter, keys_too: bool) -> None:
    """bias: of queries, keys and values (3 A,). Attention gives a mean of values, so it passes on what is added to all
    of them, to a normalisation; what is added to all keys no softmax sees."""
    parts = torch.tensor([1.0, float(keys_too), 0.0]).repeat_interleave(len(bias) // 3)

    def heard(gradient: Tensor) -> Tensor:
        return gradient * parts.to(gradient.device)

    if bias.requires_grad:
        bias.register_hook(heard)  # type: ignore[no-untyped-call]
