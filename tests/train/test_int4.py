"""Training on int4 grids: what is evaluated and saved lies on them; a run learns, is resumed and is taught there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch  # noqa: E402

from kouling import checkpoint, commands  # noqa: E402
from kouling.deploy import grid, step  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from kouling.train import int4, loop  # noqa: E402
from kouling.train.loop import Trainer  # noqa: E402
from kouling.train.recipe import Recipe, from_dict  # noqa: E402

MakeRecipe = Callable[..., Recipe]
Train = Callable[..., Trainer]
SETTINGS = {"epochs": 2, "batch_s": 8.0, "warmup_epochs": 0.5, "ema_epochs": 0.3, "reuse": 2, "threads": 1}
UNITS = (commands.BLANK, commands.UNKNOWN, "rise", "fall", "hum")


@pytest.fixture
def initial(tiny_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A checkpoint of random weights, whose normalisations are not folded."""
    torch.manual_seed(3)
    config = tiny_recipe().config
    weights = {k: v for k, v in Encoder(config, len(UNITS)).state_dict().items() if "num_batches" not in k}
    for key, value in weights.items():
        if "norm." in key and not key.endswith("running_var"):
            value.add_(torch.randn_like(value) * 0.2)
    path = tmp_path / "initial.safetensors"
    info = checkpoint.ModelInfo("initial", "en", config, UNITS)
    checkpoint.save(path, info, {k: v.numpy() for k, v in weights.items()})
    return path


@pytest.fixture
def train(
    tiny_recipe: MakeRecipe, initial: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Train:
    """train(out, training, **entries): a trainer on int4 grids, not yet run, in the folder `out`."""
    monkeypatch.setattr(loop, "plot", lambda *arguments: None)

    def make(out: str = "run", training: dict[str, Any] | None = None, **entries: Any) -> Trainer:
        settings = {**SETTINGS, "weights": "int4", **(training or {})}
        recipe = tiny_recipe(**{"initial": [str(initial)], "training": settings, **entries})
        return Trainer(recipe, [data], tmp_path / out, cache)

    return make


def off_grid(weights: grid.Weights) -> list[str]:
    """Layers with a grid whose weights do not lie on it."""
    found = []
    for layer, own in grid.grids_of(weights, "model").items():
        weight, order = weights[f"{layer}.weight"], grid.input_order(weights, layer)
        snapped = grid.unpacked(grid.snap(grid.packed(weight, order), own), order, weight.shape)
        if not np.array_equal(snapped.astype(np.float16), weight.astype(np.float16)):
            found.append(layer)
    return found


# Pieces


def test_weights_are_snapped_and_their_gradient_is_as_if_they_were_not() -> None:
    rng = np.random.default_rng(0)
    weights = {"stem.patch.weight": rng.normal(size=(4, 1, 5, 5)), "stem.mix.weight": rng.normal(size=(4, 4, 1, 3))}
    order = grid.input_order(weights, "stem.mix")
    own = grid.fit(grid.packed(weights["stem.mix.weight"], order))
    weight = torch.tensor(weights["stem.mix.weight"], dtype=torch.float32, requires_grad=True)
    snapped = int4.Int4Weights(weights, {"stem.mix": own}).snapped({"stem.mix.weight": weight})["stem.mix.weight"]
    expected = grid.unpacked(grid.snap(grid.packed(weights["stem.mix.weight"], order), own), order, (4, 4, 1, 3))
    np.testing.assert_allclose(snapped.detach().numpy(), expected, rtol=1e-5, atol=1e-7)
    factors = torch.randn_like(weight)
    (snapped * factors).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, factors)


def test_the_start_is_the_checkpoint_folded_and_to_the_nearest(train: Train, initial: Path) -> None:
    trainer = train()
    info, given = checkpoint.load(initial)
    folded = grid.fold_norms(given)
    features = torch.rand(2, 40, 16)
    found, expected = (
        model(features, model.initial_state(2))[0].detach() for model in (trainer.model.eval(), step.build(info, given))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    saved = trainer.weights()
    assert off_grid(saved) == [] and list(grid.grids_of(saved, "")) == grid.layers(folded)
    for layer, own in grid.grids_of(saved, "").items():
        expected_grid = grid.fit(grid.packed(folded[f"{layer}.weight"], grid.input_order(folded, layer)))
        np.testing.assert_array_equal(own.multipliers, expected_grid.multipliers)


def test_several_checkpoints_get_new_grids(train: Train, initial: Path) -> None:
    trainer = train(initial=[str(initial), str(initial)])
    assert off_grid(trainer.weights()) == [] and trainer.int4 is not None


# Runs


def test_a_run_learns_on_its_grids_and_saves_what_lies_on_them(train: Train) -> None:
    gentle = {"gain_db": 3.0, "noise_percent": 0.0, "room_percent": 0.0, "time_masks_per_s": 0.0, "mel_masks": 0}
    mix = {"pieces_percent": 5.0, "speech_percent": 3.0}
    settings = {"epochs": 14, "batch_s": 4.0, "learning_rate": 8e-3, "warmup_epochs": 1.0}
    trainer = train(training=settings, augment=gentle, mix=mix, scenes=[{"slots": 1, "slot_s": 0.5}])
    assert trainer.int4 is not None
    began = {key: tensor.clone() for key, tensor in trainer.int4.state_dict().items()}
    trainer.run()
    losses = [row["loss"] for row in trainer.history]
    assert losses[-1] < 0.5 < 1.5 < losses[0] and trainer.history[-1]["words"] > 75  # a third by chance
    _, saved = checkpoint.load(trainer.out / "model.safetensors")
    assert off_grid(saved) == []
    for key, tensor in began.items():
        np.testing.assert_array_equal(saved[key], tensor.numpy())  # grids are fixed
    norms = [norm for norm in map(grid.norm_before, grid.layers(saved)) if norm]
    assert norms and all(grid.is_folded(saved, norm) for norm in norms)


def test_batch_normalisation_in_the_weights_stays_there(train: Train, tiny_recipe: MakeRecipe) -> None:
    encoder = {**asdict(tiny_recipe().config.encoder), "norm": "batch"}
    trainer = train(config={"features": {"num_mels": 16}, "encoder": encoder})
    trainer.run()
    _, saved = checkpoint.load(trainer.out / "model.safetensors")
    norms = [norm for norm in map(grid.norm_before, grid.layers(saved)) if norm]
    assert f"{norms[0]}.running_mean" in saved and all(grid.is_folded(saved, norm) for norm in norms)
    assert off_grid(saved) == []


def test_evaluation_is_of_the_weights_that_are_saved(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train()
    trainer.train_epoch()
    loaded = []
    load = Encoder.load_state_dict
    monkeypatch.setattr(Encoder, "load_state_dict", lambda self, state: loaded.append(dict(state)) or load(self, state))
    trainer.evaluate()
    saved = trainer.weights()
    for key, tensor in loaded[0].items():
        if "num_batches" not in key:
            np.testing.assert_array_equal(tensor.half().numpy(), saved[key])
    assert any(not torch.equal(loaded[0][key], trainer.averaged[key]) for key in loaded[0])


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(train: Train, initial: Path) -> None:
    whole, killed = train("whole"), train("killed")
    whole.run()
    killed.train_epoch()
    killed.save()
    initial_bytes = initial.read_bytes()
    info, weights = checkpoint.load(initial)
    checkpoint.save(initial, info, {key: value * 1.5 for key, value in weights.items()})  # the grids are the run's own
    resumed = train("killed")
    initial.write_bytes(initial_bytes)
    assert resumed.epoch == 1
    resumed.run()
    for ours, theirs in ((whole.averaged, resumed.averaged), (whole.model.state_dict(), resumed.model.state_dict())):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    one, other = (checkpoint.load(run.out / "model.safetensors")[1] for run in (whole, resumed))
    assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("hidden_weight", [0.0, 1.0])
def test_a_teacher_teaches_on_grids(train: Train, initial: Path, hidden_weight: float) -> None:
    trainer = train(distill={"teacher": str(initial), "weight": 1.0, "hidden_weight": hidden_weight})
    assert trainer.teacher is not None
    trainer.run()
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    assert off_grid(checkpoint.load(trainer.out / "model.safetensors")[1]) == []


def test_grids_of_the_initial_checkpoint_are_kept_and_layers_without_one_are_not_rounded(
    train: Train, initial: Path
) -> None:
    info, weights = checkpoint.load(initial)
    saved = grid.fold_norms(weights)
    layer = "blocks.1.convolution.output"
    order = grid.input_order(saved, layer)
    own = grid.fit(1.3 * grid.packed(saved[f"{layer}.weight"], order))  # not the best
    saved[f"{layer}.weight"] = grid.unpacked(
        grid.snap(grid.packed(saved[f"{layer}.weight"], order), own), order, saved[f"{layer}.weight"].shape
    ).astype(np.float16)
    checkpoint.save(initial, info, {**saved, **grid.tensors({layer: own})})
    trainer = train()
    trainer.train_epoch()
    trainer.save()
    _, made = checkpoint.load(trainer.out / "model.safetensors")
    assert list(grid.grids_of(made, "")) == [layer] and off_grid(made) == []
    np.testing.assert_array_equal(made[f"int4.{layer}.scale"], own.scale)
    np.testing.assert_array_equal(made[f"int4.{layer}.multipliers"], own.multipliers)
    assert not grid.is_folded(made, "blocks.0.attention.norm")  # goes on learning: no grid behind it
    other = train("float", training={"weights": "float"})  # a checkpoint like any other
    assert other.int4 is None and not grid.grids_of(other.weights(), "")
    taught = train("taught", distill={"teacher": str(initial)})
    assert taught.teacher is not None


# What is refused


def test_recipes_that_cannot_be_are_refused(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="training.weights is 'int8'; allowed: float, int4"):
        tiny_recipe(training={"weights": "int8"})
    with pytest.raises(ValueError, match="is 'int4' and there is no initial checkpoint; allowed: float, or give one"):
        tiny_recipe(training={"weights": "int4"})
    with pytest.raises(ValueError, match="training.weights is 4"):
        from_dict({"name": "x", "units": ["a"], "training": {"weights": 4}, "source": [{"path": "w"}]})


def test_an_initial_checkpoint_whose_grids_do_not_fit_is_refused_by_name(train: Train, initial: Path) -> None:
    info, weights = checkpoint.load(initial)
    checkpoint.save(initial, info, {**weights, "int4.stem.mix.scale": np.ones(3, np.float32)})
    with pytest.raises(ValueError) as caught:
        train()
    assert str(caught.value).startswith(f"{initial}: int4.stem.mix.scale is float32 (3,); allowed: float32 (")
