"""What a run starts from: the weights of earlier ones, and which of them it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.deploy import step
from kouling.deploy.grid import NORM_EPSILON, without_grids
from kouling.deploy.state_scales import without_scales
from kouling.encoder import Encoder


def start_from(
    model: Encoder, units: Sequence[str], paths: Sequence[Path], heard: Callable[[], Sequence[Tensor]] = lambda: ()
) -> None:
    """Copy what fits from a checkpoint: the whole encoder, and the output rows of the units that both know.

    From several their mean: runs that went on from one another make a better start together (Wortsman et al. 2022,
    "Model soups"). One with layer normalisation starts a model with batch normalisation: see `with_batch_norm`.

    heard: features (B, T, M) of what will be learned from, where statistics are needed.
    Raises: ValueError where a checkpoint's encoder has another shape.
    """
    own = model.state_dict()
    total = {key: torch.zeros_like(tensor, dtype=torch.float64) for key, tensor in own.items()}
    for path in paths:
        info, weights = checkpoint.load(path)
        if info.config.encoder.norm != model.config.encoder.norm == "batch":
            weights = with_batch_norm(info, weights, heard())
        for key in own.keys() - weights.keys():
            if not key.endswith("num_batches_tracked"):
                raise ValueError(f"{path}: has no {key}, which the encoder of this recipe needs")
        fitting = dict(own)
        for key, value in without_scales(without_grids(weights)).items():
            tensor = torch.from_numpy(value.astype(np.float32))
            if key.startswith("head."):
                fitting[key] = own[key].clone()
                for row, unit in enumerate(info.units):
                    if unit in units:
                        fitting[key][list(units).index(unit)] = tensor[row]
            elif key not in own or own[key].shape != tensor.shape:
                raise ValueError(f"{path}: its {key} does not fit the encoder of this recipe")
            else:
                fitting[key] = tensor
        for key, tensor in fitting.items():
            total[key] += tensor / len(paths)
    model.load_state_dict(total)


def with_batch_norm(
    info: ModelInfo, weights: Mapping[str, NDArray[Any]], heard: Sequence[Tensor]
) -> dict[str, NDArray[Any]]:
    """The weights of an encoder with layer normalisation as those of one with batch normalisation that hears about the
    same: each channel has the mean and variance that it has in `heard`, and each frame is taken to deviate as an
    average one does."""
    encoder = step.build(info, without_scales(without_grids(weights)))
    norms = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.LayerNorm)}
    given: dict[str, list[Tensor]] = {name: [] for name in norms}
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, name=name: given[name].append(inputs[0].flatten(0, 1)))
        for name, norm in norms.items()
    ]
    with torch.no_grad():
        for features in heard:
            encoder(features, encoder.initial_state(len(features)))
    for hook in hooks:
        hook.remove()
    result = dict(weights)
    for name, norm in norms.items():
        x = torch.cat(given[name])
        mean, variance = x.mean(dim=0), x.var(dim=0)
        inverse = (x.var(dim=1) + NORM_EPSILON).rsqrt()  # of each frame's deviation
        gain, shift = norm.weight.detach(), norm.bias.detach()
        moved = shift + gain * (mean * inverse.mean() - (x.mean(dim=1) * inverse).mean())
        parts = {"weight": gain * inverse.mean() * (variance + NORM_EPSILON).sqrt(), "bias": moved}
        parts |= {"running_mean": mean, "running_var": variance}
        result |= {f"{name}.{key}": tensor.numpy() for key, tensor in parts.items()}
    return result


def frozen_parts(model: Encoder, blocks: int) -> list[torch.nn.Module]:
    """The stem and so many first blocks, which get no gradient; none of -1. What has heard thousands of people keeps
    what it knows of voices, where there are only synthetic ones to learn from."""
    parts = [model.stem, *model.blocks[:blocks]] if blocks >= 0 else []
    for part in parts:
        part.requires_grad_(False)
    return parts


def parameter_groups(model: Encoder, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as usual: not for biases, norms and the bias of distances."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if p.ndim >= 2 and not n.endswith("distance_bias")]
    others = [p for n, p in trained if p.ndim < 2 or n.endswith("distance_bias")]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
