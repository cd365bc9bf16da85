"""Batch normalisation behind the stem's convolutions (Ioffe and Szegedy 2015, arXiv:1502.03167), in training only.

A trained one is a factor and a sum per channel, so a model is saved with them in its convolutions and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kouling.encoder import Encoder

NORMS = "stem.batch_norms."
EPSILON = 1e-5  # PyTorch's


def normalize_stem(encoder: Encoder, heard: Sequence[Tensor] = ()) -> None:
    """Put normalisations behind the stem's convolutions.

    heard: features (B, T, M) of what will be learned from, where the weights have learned already: the normalisations
    then begin as what changes nothing of it. Without it they begin as usual, at mean 0 and variance 1.
    """
    stem = encoder.stem
    convolutions = stem.convolutions().values()
    given: list[list[Tensor]] = [[] for _ in convolutions]
    hooks = [
        convolution.register_forward_hook(lambda _, inputs, output, into=into: into.append(output))
        for convolution, into in zip(convolutions, given, strict=True)
    ]
    with torch.no_grad():
        for features in heard:
            stem(features, features.new_zeros(len(features), stem.context, features.shape[2]))
    for hook in hooks:
        hook.remove()
    for index, (convolution, outputs) in enumerate(zip(convolutions, given, strict=True)):
        norm = nn.BatchNorm2d(convolution.out_channels, eps=EPSILON)
        if outputs:
            assert norm.running_mean is not None and norm.running_var is not None
            x = torch.cat([output.transpose(0, 1).flatten(1) for output in outputs], dim=1)  # (C, what was heard)
            norm.running_mean.copy_(x.mean(dim=1))
            norm.running_var.copy_(x.var(dim=1))
            norm.weight.data = (norm.running_var + EPSILON).sqrt()
            norm.bias.data = norm.running_mean.clone()
        stem.batch_norms[index] = norm


def folded(weights: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The state of an encoder whose stem is normalised as that of a plain one that hears the same.

    names: the stem's convolutions, in the order of their normalisations. Without normalisations the weights come back
    as they are.
    """
    result = {key: tensor for key, tensor in weights.items() if not key.startswith(NORMS)}
    for index, name in enumerate(names):
        if f"{NORMS}{index}.weight" not in weights:
            continue
        mean, variance, gain, shift = (
            weights[f"{NORMS}{index}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        fused = nn.utils.fuse_conv_bn_weights(
            weights[f"stem.{name}.weight"], weights[f"stem.{name}.bias"], mean, variance, EPSILON, gain, shift
        )
        result[f"stem.{name}.weight"], result[f"stem.{name}.bias"] = (tensor.detach() for tensor in fused)
    return result
