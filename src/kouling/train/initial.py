"""What a run starts from: the weights of earlier ones, and which of them it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kouling import checkpoint
from kouling.deploy.grid import without_grids
from kouling.deploy.state_scales import without_scales
from kouling.encoder import Encoder


def start_from(model: Encoder, units: Sequence[str], paths: Sequence[Path]) -> None:
    """Copy what fits from a checkpoint: the whole encoder, and the output rows of the units that both know.

    From several their mean: runs that went on from one another make a better start together (Wortsman et al. 2022,
    "Model soups").

    Raises: ValueError where a checkpoint's encoder has another shape.
    """
    own = model.state_dict()
    total = {key: torch.zeros_like(tensor, dtype=torch.float64) for key, tensor in own.items()}
    for path in paths:
        info, weights = checkpoint.load(path)
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
