"""Constants that a normalisation takes away again, or a softmax does not see, are not trained.

Nothing holds them, so the optimiser, which makes steps of one size whatever the gradient, carries them off: what
attention adds to all values alike grew to hundreds. Of that int8 and bfloat16 leave nothing of what differs, and the
mean of such weights over time does not fit the mean of the statistics that were taken beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kouling.encoder import Encoder, FrameNorm


def freeze_unheard(encoder: Encoder) -> None:
    """Leave all biases as they are that batch normalisation removes behind them, and those that another bias makes up
    for or a softmax removes. What the encoder can learn is the same."""
    stem = encoder.stem
    for convolution, norm in zip(stem.convolutions().values(), stem.batch_norms, strict=True):
        _freeze(convolution.bias, isinstance(norm, nn.BatchNorm2d))
    _freeze(stem.project.bias, isinstance(stem.norm, FrameNorm))
    for block in encoder.blocks:
        _freeze(block.convolution.depthwise.bias, True)
        if isinstance(block.norm, FrameNorm):  # and so are all others through which a frame goes
            for module in (block.feed_forward_in.contract, block.feed_forward_out.contract):
                _freeze(module.bias, True)
            _freeze(block.attention.output.bias, True)
            _freeze(block.convolution.output.bias, True)
            _freeze(block.attention.norm.bias, True)  # for which the bias of queries, keys and values can make up
            _train_heard_parts(block.attention.query_key_value.bias, encoder.config.encoder.attention == "linear")


def _freeze(bias: nn.Parameter, unheard: bool) -> None:
    if unheard:
        bias.requires_grad_(False)


def _train_heard_parts(bias: nn.Parameter, keys_too: bool) -> None:
    """bias: of queries, keys and values (3 A,). Attention gives a mean of values, so it passes on what is added to all
    of them, to a normalisation; what is added to all keys no softmax sees."""
    parts = torch.tensor([1.0, float(keys_too), 0.0]).repeat_interleave(len(bias) // 3)

    def heard(gradient: Tensor) -> Tensor:
        return gradient * parts.to(gradient.device)

    if bias.requires_grad:
        bias.register_hook(heard)
