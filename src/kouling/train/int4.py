"""Training with weights on int4 grids: the forward pass has the weights that the engine will have, the gradient goes to
those behind them as if nothing were rounded (straight-through estimator, Bengio et al. 2013, arXiv:1308.3432).

The grids are fixed: those of the checkpoint that training starts from, or the best for its weights where it has none.
Parameters keep their names and hold the weights behind, so averaging, resuming and optimising know nothing of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from kouling import checkpoint
from kouling.deploy import grid
from kouling.deploy.grid import HIGHEST, LOWEST, Grid
from kouling.encoder import Encoder


class Int4Weights:
    """The grids of an encoder's layers, and what its weights are on them."""

    def __init__(self, weights: grid.Weights, grids: Mapping[str, Grid]) -> None:
        self.grids = dict(grids)
        self.steps = {}  # in the shape of each weight, from a value to the next
        for layer, own in grids.items():
            key = f"{layer}.weight"
            steps = grid.unpacked(own.steps(), grid.input_order(weights, layer), weights[key].shape)
            self.steps[key] = torch.from_numpy(steps.astype(np.float32))

    def snapped(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The nearest values on the grids of those tensors that have one, by name; others are left out."""
        result = {}
        for key, own in self.steps.items():
            weight = tensors[key]
            steps = self.steps[key] = own.to(weight.device)
            with torch.no_grad():
                error = (weight / steps).round().clamp(LOWEST, HIGHEST) * steps - weight
            result[key] = weight + error
        return result

    def forward(self, model: Encoder) -> Callable[..., Any]:
        """`model` as a function of the same arguments, with its weights on the grids."""
        snapped = self.snapped(dict(model.named_parameters()))
        return lambda *arguments: functional_call(model, snapped, arguments)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What goes into a checkpoint beside the weights."""
        return grid.tensors(self.grids)

    def state_dict(self) -> dict[str, Tensor]:
        return {key: torch.from_numpy(value) for key, value in self.tensors().items()}


def resumed(model: Encoder, state: Mapping[str, Tensor]) -> Int4Weights:
    """From the `state_dict` of a run's. model: the run's, for its shapes."""
    weights = {key: tensor.cpu().numpy() for key, tensor in (*model.state_dict().items(), *state.items())}
    return Int4Weights(weights, grid.grids_of(weights, "the training state"))


def put_on_grids(model: Encoder, initial: Sequence[Path]) -> Int4Weights:
    """Make a model that starts from the checkpoints `initial` one to be trained on int4 grids: those of the one
    checkpoint, or, where it has none or there are several, the best ones. The gains and shifts of normalisations are
    folded into the layers behind them, and stay 1 and 0.

    Raises: ValueError where the grids of the checkpoint do not fit.
    """
    weights = {key: tensor.cpu().numpy() for key, tensor in model.state_dict().items()}
    saved = checkpoint.load(initial[0])[1] if len(initial) == 1 else {}
    grids = grid.grids_of(saved, str(initial[0]))
    if not grids:
        weights = grid.fold_norms(weights)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        for layer in grid.layers(weights):
            order = grid.input_order(weights, layer)
            grids[layer] = grid.fit(grid.packed(weights[f"{layer}.weight"], order))
    for layer in grids:
        norm = grid.norm_before(layer)
        if norm is not None:
            model.get_submodule(norm).requires_grad_(False)
    return Int4Weights(weights, grids)
