"""Scenes of training as they were rendered, and their losses: what pruning ranks by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kouling.encoder import Encoder
from kouling.train.objective import of_labels
from kouling.train.recipe import Recipe
from kouling.train.scenes import Batches

Loss = Callable[[Encoder], Tensor]


def scene_losses(recipe: Recipe, groups: Sequence[Batches]) -> Iterator[Loss]:
    """The loss of each batch of `SceneMaker.draw_epoch`, summed over scenes: that of the training loop, nothing varied
    or hidden."""
    for batches, rows in _portions(recipe, groups):
        yield partial(_loss, recipe, batches, rows)


def scene_features(recipe: Recipe, groups: Sequence[Batches]) -> Iterator[Tensor]:
    """The features (B, T, M) of each batch of `SceneMaker.draw_epoch`."""
    for batches, rows in _portions(recipe, groups):
        yield _features(recipe, batches, rows)


def _portions(recipe: Recipe, groups: Sequence[Batches]) -> Iterator[tuple[Batches, NDArray[np.int64]]]:
    for batches, shape in zip(groups, recipe.scenes, strict=True):
        size = max(1, round(recipe.training.batch_s / (shape.slots * shape.slot_s)))
        for first in range(0, len(batches.lengths), size):
            yield batches, np.arange(first, min(first + size, len(batches.lengths)))


def _features(recipe: Recipe, batches: Batches, rows: NDArray[np.int64]) -> Tensor:
    """With silence behind it, in which the last word is said."""
    subsampling = recipe.config.encoder.subsampling
    after = recipe.training.padding_frames // subsampling * subsampling
    return torch.from_numpy(np.pad(batches.features[rows].astype(np.float32), ((0, 0), (0, after), (0, 0))))


def _loss(recipe: Recipe, batches: Batches, rows: NDArray[np.int64], encoder: Encoder) -> Tensor:
    features = _features(recipe, batches, rows)
    log_probs, _ = encoder(features, encoder.initial_state(len(features)))
    return of_labels(log_probs, batches, rows, 0, recipe).sum()
