"""Training that brings a compressed model near to the one that it was made from: the ordinary loop, with a recipe made
from that of the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kouling.checkpoint import ModelInfo
from kouling.train.recipe import Recipe


def recipe_for(
    recipe: Recipe, info: ModelInfo, initial: Path, teacher: Path, epochs: int, learning_rate: float
) -> Recipe:
    """The recipe that goes on with a pruned or sparse model.

    recipe: of the whole model. info: of the compressed one, whose checkpoint is `initial`. teacher: checkpoint of the
    whole one. Raises: ValueError where a number is not one that a recipe allows, or the units are not the same.
    """
    known = info.units[2:]
    if set(known) != set(recipe.units):
        raise ValueError(f"{info.name} knows {', '.join(known)}; the recipe is for {', '.join(recipe.units)}")
    training = replace(
        recipe.training,
        epochs=epochs,
        learning_rate=learning_rate,
        warmup_epochs=min(recipe.training.warmup_epochs, epochs / 10),  # what is trained already needs little
        keep_zeros=bool(info.provenance.get("zero_blocks")),
    )
    return replace(
        recipe,
        name=info.name,
        config=info.config,
        initial=[str(initial)],
        distill=replace(recipe.distill, teacher=str(teacher)),
        training=training,
    )
