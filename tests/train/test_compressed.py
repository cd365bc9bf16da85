"""Training of what compression made: zeros stay zero, pruned models learn from whole ones, and memory is saved without
changing a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from kouling import checkpoint  # noqa: E402
from kouling.commands import BLANK, UNKNOWN  # noqa: E402
from kouling.compress.finetune import recipe_for  # noqa: E402
from kouling.compress.losses import scene_features, scene_losses  # noqa: E402
from kouling.compress.prune import Plan, importance, prune  # noqa: E402
from kouling.compress.sparse import input_powers, sparsify  # noqa: E402
from kouling.deploy import step  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from kouling.train import loop  # noqa: E402
from kouling.train.loop import Trainer  # noqa: E402
from kouling.train.recipe import Recipe  # noqa: E402
from kouling.train.recompute import recompute_blocks  # noqa: E402
from kouling.train.scenes import Batches, SceneMaker  # noqa: E402

MakeRecipe = Callable[..., Recipe]
SETTINGS = {"epochs": 2, "batch_s": 8.0, "warmup_epochs": 0.5, "dropout": 0.1, "ema_epochs": 0.3, "threads": 1}


@pytest.fixture
def train(data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """train(recipe, out): a trainer, not yet run. It draws no curves."""
    monkeypatch.setattr(loop, "plot", lambda *arguments: None)
    return lambda recipe, out="run": Trainer(recipe, [data], tmp_path / out, cache)


@pytest.fixture
def whole(tiny_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A checkpoint of random weights in the shape of the tiny recipe."""
    recipe = tiny_recipe()
    torch.manual_seed(99)
    units = (BLANK, UNKNOWN, *recipe.units)
    state = Encoder(recipe.config, len(units)).state_dict()
    weights = {k: v.half().numpy() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    checkpoint.save(tmp_path / "whole.safetensors", checkpoint.ModelInfo("tiny", "en", recipe.config, units), weights)
    return tmp_path / "whole.safetensors"


@pytest.fixture(scope="module")
def scenes(tiny_recipe: MakeRecipe, data: Path, cache: Path) -> list[Batches]:
    recipe = tiny_recipe()
    return SceneMaker(recipe, (BLANK, UNKNOWN, *recipe.units), [data], cache).draw_epoch(10**6, share=0.5)


@pytest.fixture
def sparse(whole: Path, scenes: list[Batches], tiny_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """The same with half of the blocks of its weights zero."""
    info, weights = checkpoint.load(whole)
    powers = input_powers(step.build(info, weights), scene_features(tiny_recipe(), scenes))
    checkpoint.save(tmp_path / "sparse.safetensors", *sparsify(info, weights, powers, 0.5))
    return tmp_path / "sparse.safetensors"


def state_of(trainer: Trainer) -> dict[str, Any]:
    optimizer = trainer.optimizer.state_dict()["state"]
    return {
        **{f"model.{key}": value for key, value in trainer.model.state_dict().items()},
        **{f"averaged.{key}": value for key, value in trainer.averaged.items()},
        **{f"{i}.{key}": torch.as_tensor(value) for i, each in optimizer.items() for key, value in each.items()},
    }


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])]


def zero_blocks(weight: Any) -> set[tuple[int, int]]:
    array = np.asarray(weight)
    places = [(i, j) for i in range(0, array.shape[0], 16) for j in range(0, array.shape[1], 4)]
    return {(i, j) for i, j in places if not array[i : i + 16, j : j + 4].any()}


# Zeros


def test_zeros_stay_zero_and_all_else_learns(
    sparse: Path, whole: Path, tiny_recipe: MakeRecipe, train: Callable[..., Trainer]
) -> None:
    info, start = checkpoint.load(sparse)
    trainer = train(recipe_for(tiny_recipe(training=SETTINGS), info, sparse, whole, 2, 5e-3))
    assert trainer.recipe.training.keep_zeros
    trainer.run()
    _, saved = checkpoint.load(trainer.out / "model.safetensors")
    for weights in (trainer.model.state_dict(), trainer.averaged, saved):
        for key, before in start.items():
            if before.ndim == 2 and not key.endswith("distance_bias"):
                linear_in_block = key.startswith("blocks.")
                assert bool(zero_blocks(before)) == linear_in_block
                assert zero_blocks(weights[key]) == zero_blocks(before), key
                assert not np.array_equal(np.asarray(weights[key]), before)


def test_without_being_told_so_training_keeps_no_zeros(
    sparse: Path, whole: Path, tiny_recipe: MakeRecipe, train: Callable[..., Trainer]
) -> None:
    recipe = recipe_for(tiny_recipe(training=SETTINGS), checkpoint.load(sparse)[0], sparse, whole, 1, 5e-3)
    trainer = train(replace(recipe, training=replace(recipe.training, keep_zeros=False)))
    trainer.run()
    assert not any(zero_blocks(v) for k, v in trainer.averaged.items() if k.endswith("expand.weight"))


def test_a_run_that_keeps_zeros_is_resumed_to_the_bit(
    sparse: Path, whole: Path, tiny_recipe: MakeRecipe, train: Callable[..., Trainer]
) -> None:
    recipe = recipe_for(tiny_recipe(training=SETTINGS), checkpoint.load(sparse)[0], sparse, whole, 2, 5e-3)
    at_once = train(recipe, "at-once")
    at_once.run()
    first = train(recipe, "in-parts")
    first.train_epoch()
    first.save()
    second = train(recipe, "in-parts")
    assert second.epoch == 1
    second.run()
    assert differing(state_of(at_once), state_of(second)) == []


def test_there_must_be_zeros_to_keep(whole: Path, tiny_recipe: MakeRecipe, train: Callable[..., Trainer]) -> None:
    settings = {**SETTINGS, "keep_zeros": True}
    with pytest.raises(ValueError, match="keep_zeros is true and there is no initial checkpoint; allowed: false, or"):
        tiny_recipe(training=settings)
    with pytest.raises(ValueError) as caught:
        train(tiny_recipe(training=settings, initial=[str(whole)]))
    assert str(caught.value) == (
        "training.keep_zeros is true but no weight of the start has a block of 16 x 4 zeros; set it to false"
    )


# A pruned model learns from the whole one


def test_a_pruned_model_learns_from_the_whole_one(
    whole: Path, scenes: list[Batches], tiny_recipe: MakeRecipe, train: Callable[..., Trainer], tmp_path: Path
) -> None:
    recipe = tiny_recipe(training=SETTINGS, distill={"hidden_weight": 0.1})
    info, weights = checkpoint.load(whole)
    measured = importance(step.build(info, weights), scene_losses(recipe, scenes))
    assert all((scores > 0).any() and np.isfinite(scores).all() for scores in measured.scores.values())
    smaller, pruned = prune(info, weights, measured, Plan(heads=0.25, units=0.3, channels=0.15))
    start = tmp_path / "pruned.safetensors"
    checkpoint.save(start, smaller, pruned)
    tuned = recipe_for(recipe, smaller, start, whole, 2, 1e-3)
    assert (tuned.name, tuned.training.epochs, tuned.training.learning_rate) == ("tiny-pruned", 2, 1e-3)
    assert not tuned.training.keep_zeros and tuned.training.warmup_epochs == 0.2
    trainer = train(tuned)
    for key, value in pruned.items():
        np.testing.assert_array_equal(trainer.model.state_dict()[key].half().numpy(), value)
    trainer.run()
    result, learnt = checkpoint.load(trainer.out / "model.safetensors")
    assert result.config == smaller.config and {k: v.shape for k, v in learnt.items()} == {
        k: v.shape for k, v in pruned.items()
    }


def test_a_recipe_for_other_words_is_refused(whole: Path, tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="^tiny knows rise, fall, hum; the recipe is for rise, hum$"):
        recipe_for(tiny_recipe(units=["rise", "hum"]), checkpoint.load_info(whole), whole, whole, 2, 1e-3)


def test_losses_are_those_of_the_scenes_whatever_lies_in_a_batch(
    whole: Path, scenes: list[Batches], tiny_recipe: MakeRecipe
) -> None:
    encoder = step.load(whole)[1]
    totals = []
    for batch_s in (2.0, 1000.0):
        recipe = tiny_recipe(training={**SETTINGS, "batch_s": batch_s})
        with torch.no_grad():
            totals.append(sum(float(loss(encoder)) for loss in scene_losses(recipe, scenes)))
        heard = [len(features) for features in scene_features(recipe, scenes)]
        assert sum(heard) == sum(len(batches.lengths) for batches in scenes)
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


# Recomputation


@pytest.mark.parametrize("attention", ["windowed", "linear"])
def test_recomputation_changes_no_gradient(tiny_recipe: MakeRecipe, attention: str) -> None:
    """With dropout, whose random numbers are the same again, in halves, from a state that is not the first."""
    config = tiny_recipe().config
    config = replace(config, encoder=replace(config.encoder, attention=attention))
    torch.manual_seed(5)
    features = torch.rand(3, 200, 16)
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(6)
        encoder = Encoder(config, 5, dropout=0.25).train()
        if recomputed:
            recompute_blocks(encoder)
        with torch.no_grad():
            _, state = encoder(features, encoder.initial_state(3))
        with torch.autocast("cpu", torch.bfloat16):
            log_probs, _ = encoder(features, state)
        log_probs.square().sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == len(list(encoder.parameters()))
    assert differing(*gradients) == []


def test_a_run_with_recomputation_is_the_same_run(
    whole: Path, tiny_recipe: MakeRecipe, train: Callable[..., Trainer]
) -> None:
    """With a teacher that looks at the last block, which is called once a step."""
    states = []
    for recompute in (False, True):
        distill = {"teacher": str(whole), "hidden_weight": 0.1}
        settings = {**SETTINGS, "epochs": 1, "recompute": recompute}
        trainer = train(tiny_recipe(training=settings, distill=distill), f"{recompute}")
        trainer.run()
        states.append(state_of(trainer))
    assert differing(*states) == []
