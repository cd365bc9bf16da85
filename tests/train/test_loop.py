"""Losses are what they are called; a run learns, is repeated, resumed to the bit, and survives a full disk."""

from __future__ import annotations

import csv
import errno
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
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
from kouling.encoder import Encoder  # noqa: E402
from kouling.train import loop, precision  # noqa: E402
from kouling.train.curves import best_of  # noqa: E402
from kouling.train.initial import parameter_groups, start_from  # noqa: E402
from kouling.train.loop import Trainer, draw_window, rate_at  # noqa: E402
from kouling.train.recipe import Recipe, Training  # noqa: E402

MakeRecipe = Callable[..., Recipe]
Train = Callable[..., Trainer]
CPU = torch.device("cpu")


# Pieces of the loop


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [rate_at(i / 100, 0.1) for i in range(101)]
    peak = int(np.argmax(rates))
    assert peak == 10 and rates[peak] == pytest.approx(1, abs=0.01)
    assert rates[0] < 0.02 and rates[5] == pytest.approx(0.5, abs=0.02)
    assert rates[55] == pytest.approx(0.5, abs=0.01) and 0 < rates[100] < 0.01
    assert sorted(rates[:11]) == rates[:11] and sorted(rates[10:], reverse=True) == rates[10:]
    assert rate_at(0.0, 0.0) == pytest.approx(1, abs=0.01)  # no warm-up


def test_only_matrices_decay(tiny_recipe: MakeRecipe) -> None:
    model = Encoder(tiny_recipe().config, 5)
    decayed, others = parameter_groups(model, 0.25)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.25, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert {id(p) for p in decayed["params"] + others["params"]} == set(names)
    for name in (names[id(p)] for p in decayed["params"]):
        assert name.endswith("weight") and "norm" not in name
    kept = {names[id(p)] for p in others["params"]}
    assert {"head.bias", "stem.norm.weight", "blocks.1.attention.distance_bias"} <= kept
    assert not {name for name in kept if name.endswith(("expand.weight", "query_key_value.weight", "head.weight"))}


# Runs


@pytest.fixture
def train(tiny_recipe: MakeRecipe, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """train(out, **entries): a trainer of the tiny recipe, not yet run, in the folder `out`. It draws no curves."""
    monkeypatch.setattr(loop, "plot", lambda *arguments: None)
    return lambda out="run", **entries: Trainer(tiny_recipe(**entries), [data], tmp_path / out, cache)


def parts(trainer: Trainer) -> dict[str, Any]:
    """All that a run goes on from, flat, but for the time it took."""
    optimizer = trainer.optimizer.state_dict()["state"]
    return {
        **{f"model.{key}": value for key, value in trainer.model.state_dict().items()},
        **{f"averaged.{key}": value for key, value in trainer.averaged.items()},
        **{f"optimizer.{i}.{key}": value for i, entries in optimizer.items() for key, value in entries.items()},
        "place": (trainer.epoch, trainer.step),
        "history": [{key: repr(value) for key, value in row.items() if key != "seconds"} for row in trainer.history],
    }


def differing(one: Trainer, other: Trainer) -> list[str]:
    """The parts in which two runs are not the same to the bit."""
    ours, theirs = parts(one), parts(other)
    assert ours.keys() == theirs.keys()
    same = {k: torch.equal(v, theirs[k]) if isinstance(v, Tensor) else v == theirs[k] for k, v in ours.items()}
    return [key for key, equal in same.items() if not equal]


def interrupted_after(trainer: Trainer, steps: int) -> None:
    """Run until Ctrl-C in the middle of that step."""
    step = trainer.train_step

    def train_step(*arguments: Any) -> torch.Tensor:
        if trainer.step == steps:
            raise KeyboardInterrupt
        return step(*arguments)

    trainer.train_step = train_step  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_a_run_learns_three_words(train: Train) -> None:
    gentle = {"gain_db": 3.0, "noise_percent": 0.0, "room_percent": 0.0, "time_masks_per_s": 0.0, "mel_masks": 0}
    settings = {
        "epochs": 14,
        "batch_s": 4.0,
        "learning_rate": 8e-3,
        "warmup_epochs": 1.0,
        "ema_epochs": 0.3,
        "dropout": 0.0,
    }
    trainer = train(
        augment=gentle,
        mix={"pieces_percent": 5.0, "speech_percent": 3.0},
        scenes=[{"slots": 1, "slot_s": 0.5}],
        training={**settings, "threads": 1},
    )
    trainer.run()
    losses = [row["loss"] for row in trainer.history]
    assert len(losses) == 14 and losses[-1] < 0.3 < 1.5 < losses[1]
    assert trainer.history[-1]["words"] > 85  # a third by chance


def test_scenes_drawn_ahead_by_others_are_those_that_a_run_draws_itself(
    tiny_recipe: MakeRecipe, data: Path, cache: Path, tmp_path: Path
) -> None:
    runs = [Trainer(tiny_recipe(), [data], tmp_path / str(n), cache, None, None, "cpu", n) for n in (0, 2)]
    for trainer in runs:
        trainer.run()
    assert differing(*runs) == []
    assert sorted(os.listdir(tmp_path / "0")) == sorted(os.listdir(tmp_path / "2"))


def test_scenes_drawn_ahead_stay_where_they_are_to_be_kept_and_no_more_are_drawn_than_wanted(
    tiny_recipe: MakeRecipe, data: Path, cache: Path, tmp_path: Path
) -> None:
    Trainer(tiny_recipe(), [data], tmp_path / "run", cache, tmp_path / "kept", None, "cpu", 3).run()
    assert len(os.listdir(tmp_path / "kept")) == 2  # three epochs, each draw used twice
    assert "scenes" not in os.listdir(tmp_path / "run")


def test_a_process_that_was_killed_is_told_of_in_one_line(
    tiny_recipe: MakeRecipe, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_recipe(), [data], tmp_path / "run", cache, None, None, "cpu", 1)

    def submit(pool: ProcessPoolExecutor, *task: Any) -> Any:
        return in_time(pool, os._exit, 1)

    in_time = ProcessPoolExecutor.submit
    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with pytest.raises(OSError, match="fewer --workers"):
        trainer.run()


@pytest.mark.parametrize(("name", "there", "parts"), [("cuda", False, ["cuda", "no GPU"]), ("tpu", True, ["'tpu'"])])
def test_a_device_that_is_not_there_is_refused(
    name: str, there: bool, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    with pytest.raises(ValueError) as caught:
        precision.device_called(name)
    assert all(part in str(caught.value) for part in [*parts, "allowed: auto, cpu"])


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert precision.device_called("auto").type == kind and precision.device_called("cpu") == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_learns_what_a_processor_does(tiny_recipe: MakeRecipe, data: Path, cache: Path, tmp_path: Path) -> None:
    runs = [Trainer(tiny_recipe(), [data], tmp_path / kind, cache, device=kind) for kind in ("cpu", "cuda")]
    for trainer in runs:
        trainer.run()
    ours, theirs = ([row["loss"] for row in trainer.history] for trainer in runs)
    assert ours == pytest.approx(theirs, rel=0.1)  # its dropout draws other numbers


def test_a_run_leaves_a_checkpoint_a_log_and_nothing_else(train: Train) -> None:
    trainer = train()
    trainer.run()
    assert sorted(os.listdir(trainer.out)) == ["log.csv", "model.safetensors", "state.pt"]
    info, weights = checkpoint.load(trainer.out / "model.safetensors")
    assert info.units == (BLANK, UNKNOWN, "rise", "fall", "hum") and info.config == trainer.recipe.config
    assert info.provenance["epochs"] == best_of(trainer.history) and info.provenance["seed"] == trainer.recipe.seed
    expected = {key for key in trainer.model.state_dict() if not key.endswith("num_batches_tracked")}
    assert weights.keys() == expected
    assert not torch.equal(trainer.averaged["head.weight"], trainer.model.state_dict()["head.weight"])
    with open(trainer.out / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in trainer.history]


def test_the_best_epoch_is_kept(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train(training={"epochs": 4, "threads": 1})
    accuracies = iter([50.0, 80.0, 80.0, 70.0])
    monkeypatch.setattr(
        trainer, "evaluate", lambda: dict.fromkeys(("words", "unknown", "noise"), 0.0) | {"accuracy": next(accuracies)}
    )
    kept = []
    for _ in range(4):
        trainer.train_epoch()
        trainer.save()
        info, weights = checkpoint.load(trainer.out / "model.safetensors")
        kept.append(info.provenance["epochs"])
        latest = np.array_equal(weights["head.weight"], trainer.averaged["head.weight"].half().numpy())
        assert latest == (kept[-1] == trainer.epoch)
    assert kept == [1, 2, 3, 3]
    assert train(training={"epochs": 4, "threads": 1}).epoch == 4  # to go on from


def test_without_validation_the_last_epoch_is_kept() -> None:
    assert best_of([{"accuracy": math.nan}] * 3) == 3


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler warns of torch's own code
@pytest.mark.parametrize("varying", [{}, {"varying_cached": [8, 40], "varying_chunk": [4, 8]}], ids=["own", "varying"])
def test_a_compiled_model_learns_the_same(train: Train, varying: dict[str, list[int]]) -> None:
    settings = {"epochs": 1, "batch_s": 8.0, "warmup_epochs": 0.5, "threads": 1, **varying}
    rows = [
        train(f"{compiled}", training={**settings, "compile": compiled}).train_epoch() for compiled in (False, True)
    ]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=0.02)


def test_compiling_without_a_compiler_is_refused_before_anything_is_read(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="no C\\+\\+ compiler; install g\\+\\+, or set it to false"):
        train(training={"epochs": 1, "threads": 1, "compile": True})


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train: Train) -> None:
    runs = [train("one"), train("two"), train("three", seed=1)]
    for trainer in runs:
        trainer.run()
    assert differing(runs[0], runs[1]) == []
    assert "model.head.weight" in differing(runs[0], runs[2]) and "averaged.head.weight" in differing(runs[0], runs[2])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9], ids=["first-epoch", "second-epoch", "third-epoch"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(train: Train, share: float) -> None:
    whole = train("whole")
    whole.run()
    interrupted_after(train("killed"), round(share * whole.step))
    resumed = train("killed")
    assert resumed.epoch == int(share * 3)
    resumed.run()
    assert differing(whole, resumed) == []


def test_a_run_that_varies_its_window_learns_and_is_repeated(train: Train) -> None:
    """The losses are finite, other than without, and the same again; every batch draws its own window."""
    settings = {"epochs": 2, "batch_s": 8.0, "warmup_epochs": 0.5, "threads": 1}
    varying = {**settings, "varying_cached": [8, 40], "varying_chunk": [4, 8]}
    runs = [train(out, training=each) for out, each in (("one", varying), ("two", varying), ("plain", settings))]
    windows = []
    forward = runs[0].model.forward
    runs[0].model.forward = lambda *given: windows.append(given[2]) or forward(*given)  # type: ignore[func-returns-value, method-assign]
    for trainer in runs:
        trainer.run()
    runs[0].model.forward = forward  # type: ignore[method-assign]
    assert differing(runs[0], runs[1]) == [] and "model.head.weight" in differing(runs[0], runs[2])
    assert all(math.isfinite(row["loss"]) for row in runs[0].history)
    drawn = {(int(window.left_context), int(window.lookahead)) for window in windows}
    assert len(windows) == runs[0].step and len(drawn) > min(3, len(windows) - 1)
    assert all(2 <= context <= 10 and 0 <= lookahead <= 4 for context, lookahead in drawn)


def test_windows_are_drawn_from_their_whole_ranges_and_only_where_asked(tiny_recipe: MakeRecipe) -> None:
    encoder = tiny_recipe().config.encoder
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert draw_window(Training(), encoder, rng, CPU) is None and rng.bit_generator.state == before
    windows = [draw_window(Training(varying_cached=[8, 20]), encoder, rng, CPU) for _ in range(100)]
    assert {int(window.left_context) for window in windows if window} == {2, 3, 4, 5}
    assert {int(window.lookahead) for window in windows if window} == {encoder.lookahead}
    windows = [draw_window(Training(varying_chunk=[5, 7]), encoder, rng, CPU) for _ in range(100)]
    assert {int(window.lookahead) for window in windows if window} == {1, 2, 3}
    assert {int(window.left_context) for window in windows if window} == {encoder.left_context}


def test_a_finished_run_is_not_trained_further(train: Train) -> None:
    first = train()
    first.run()
    again = train()
    again.run()
    assert differing(first, again) == []


def test_a_folder_with_a_run_of_another_recipe_is_refused(train: Train) -> None:
    train(training={"epochs": 1, "threads": 1}).run()
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        train(training={"epochs": 2, "threads": 1})


@pytest.mark.parametrize("damage", ["cut", "random", "other"])
def test_a_damaged_state_is_refused_by_name(train: Train, damage: str) -> None:
    trainer = train(training={"epochs": 1, "threads": 1})
    trainer.run()
    path = trainer.out / "state.pt"
    whole = path.read_bytes()
    for seed in range(20):
        broken = {
            "cut": whole[: len(whole) * seed // 20],
            "random": np.random.default_rng(seed).bytes(200),
            "other": b"",
        }
        path.write_bytes(broken[damage])
        if damage == "other":
            torch.save({"weights": torch.zeros(seed)}, path)
        with pytest.raises(ValueError) as caught:
            trainer.resume()
        assert str(caught.value).startswith(f"{path}: not a usable training state")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["as-torch-reports-it", "as-python-reports-it"],
)
def test_a_full_disk_keeps_the_last_good_state(train: Train, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    trainer = train()
    trainer.train_epoch()
    trainer.save()
    good, files = (trainer.out / "state.pt").read_bytes(), sorted(os.listdir(trainer.out))

    def fail(state: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError) as caught:
            trainer.run()
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(os.listdir(trainer.out)) == files
    assert (trainer.out / "state.pt").read_bytes() == good
    assert train().epoch == 1


@pytest.mark.parametrize("where", ["checkpoint", "log"])
def test_a_disk_that_fills_in_the_last_epoch_costs_no_result(
    train: Train, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The next run finishes what was not written, though nothing may be left to train."""
    trainer = train()
    for _ in range(2):
        trainer.train_epoch()
    trainer.save()

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "save") if where == "checkpoint" else (csv, "DictWriter")), fail)
        with pytest.raises(OSError):
            trainer.run()
    resumed = train()
    resumed.run()
    kept = checkpoint.load(trainer.out / "model.safetensors")[0].provenance["epochs"]
    assert kept == best_of(resumed.history) and len(resumed.history) == 3
    assert len((trainer.out / "log.csv").read_text().splitlines()) == 4


def test_the_average_follows_the_weights(train: Train) -> None:
    trainer = train()
    before = {key: value.clone() for key, value in trainer.averaged.items()}
    with torch.no_grad():
        for value in trainer.model.state_dict().values():
            value.add_(1)
    trainer.average(0.75)
    for key, value in trainer.averaged.items():
        step = 0.25 if value.is_floating_point() else 1
        torch.testing.assert_close(value, before[key] + step)


def test_evaluation_uses_the_average_and_counts_what_is_right(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """With targets (2, 2, 1, 0) and a head that always says unit 2: both words right, unknown and noise wrong."""
    trainer = train()
    features = np.zeros((4, 40, 16), np.float16)
    trainer.valid = (features, np.array([2, 2, 1, 0]))

    def always(unit: int) -> dict[str, float]:
        trainer.averaged["head.weight"].zero_()
        trainer.averaged["head.bias"].fill_(-20)
        trainer.averaged["head.bias"][unit] = 20
        return trainer.evaluate()

    assert always(2) == {"accuracy": 50.0, "words": 100.0, "unknown": 0.0, "noise": 0.0}
    silent = {"accuracy": 50.0, "words": 0.0, "unknown": 100.0, "noise": 100.0}  # the two need not be told apart
    assert always(0) == silent and always(1) == silent
    assert always(3) == {"accuracy": 0.0, "words": 0.0, "unknown": 0.0, "noise": 0.0}


def test_curves_are_drawn(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    row = {"loss": 2.0, "words": 50.0, "unknown": 60.0, "noise": float("nan"), "accuracy": 55.0}
    loop.plot([{"epoch": epoch, **row} for epoch in (1.0, 2.0)], tmp_path / "curves.png", "tiny")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["curves.png"]


# Starting from a checkpoint


@pytest.fixture
def initial(tiny_recipe: MakeRecipe, tmp_path: Path) -> Callable[..., tuple[Path, Encoder]]:
    """initial(units, **entries): a checkpoint with random weights, and its encoder."""

    def make(units: tuple[str, ...], **entries: Any) -> tuple[Path, Encoder]:
        recipe = tiny_recipe(**entries)
        torch.manual_seed(99)
        encoder = Encoder(recipe.config, len(units))
        weights = {k: v.numpy() for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
        path = tmp_path / "initial.safetensors"
        checkpoint.save(path, checkpoint.ModelInfo("initial", "en", recipe.config, units), weights)
        return path, encoder

    return make


def test_start_from_copies_the_encoder_and_the_rows_of_shared_units(
    initial: Callable[..., tuple[Path, Encoder]], tiny_recipe: MakeRecipe
) -> None:
    path, old = initial((BLANK, UNKNOWN, "go", "rise", "hum"))
    units = (BLANK, UNKNOWN, "hum", "left", "rise", "right")
    torch.manual_seed(1)
    model = Encoder(tiny_recipe().config, len(units))
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    start_from(model, units, [path])
    new, given = model.state_dict(), old.state_dict()
    for key in fresh:
        if not key.startswith("head."):
            torch.testing.assert_close(new[key], given[key], rtol=0, atol=0)
    for key in ("head.weight", "head.bias"):
        rows = {
            0: given[key][0],
            1: given[key][1],
            2: given[key][4],
            4: given[key][3],
            3: fresh[key][3],
            5: fresh[key][5],
        }
        for row, expected in rows.items():
            torch.testing.assert_close(new[key][row], expected, rtol=0, atol=0)


def test_layer_normalisation_starts_batch_normalisation_that_hears_the_same(
    initial: Callable[..., tuple[Path, Encoder]], tiny_recipe: MakeRecipe
) -> None:
    units = (BLANK, UNKNOWN, "rise", "hum")
    path, old = initial(units)
    config = tiny_recipe().config
    model = Encoder(replace(config, encoder=replace(config.encoder, norm="batch")), len(units)).eval()
    features = torch.rand(8, 200, config.features.num_mels)
    start_from(model, units, [path], lambda: [features])
    old.eval()
    with torch.no_grad():
        wanted, found = (each(features, each.initial_state(8))[0].exp() for each in (old, model))
    assert (wanted - found).abs().mean() < 0.1 * wanted.std()  # with the weights as they were, 0.5
    weights = {k: v.numpy() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    checkpoint.save(path, checkpoint.ModelInfo("initial", "en", model.config, units), weights)
    with pytest.raises(ValueError, match=r"its [\w.]+ does not fit the encoder of this recipe"):  # nor back again
        start_from(Encoder(config, len(units)), units, [path])


def test_several_checkpoints_start_as_their_mean(
    initial: Callable[..., tuple[Path, Encoder]], tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path, old = initial((BLANK, UNKNOWN, "hum"))
    info, weights = checkpoint.load(path)
    doubled, units = tmp_path / "doubled.safetensors", (BLANK, UNKNOWN, "rise", "hum")
    checkpoint.save(doubled, info, {key: 2 * value for key, value in weights.items()})
    model = Encoder(tiny_recipe().config, len(units))
    fresh = model.state_dict()["head.weight"].clone()
    start_from(model, units, [path, doubled])
    new, given = model.state_dict(), old.state_dict()
    torch.testing.assert_close(new["stem.patch.weight"], 1.5 * given["stem.patch.weight"])
    torch.testing.assert_close(new["head.weight"][3], 1.5 * given["head.weight"][2])
    torch.testing.assert_close(new["head.weight"][2], fresh[2])  # a word that neither knows


def test_a_recipe_starts_from_its_initial_checkpoint(
    initial: Callable[..., tuple[Path, Encoder]], train: Train
) -> None:
    path, old = initial((BLANK, UNKNOWN, "hum"))
    trainer = train(initial=[str(path)])
    for key in ("stem.patch.weight", "blocks.1.attention.output.weight"):
        torch.testing.assert_close(trainer.model.state_dict()[key], old.state_dict()[key], rtol=0, atol=0)
        torch.testing.assert_close(trainer.averaged[key], old.state_dict()[key], rtol=0, atol=0)


def test_frozen_blocks_stay_as_they_were_and_the_rest_learns(
    initial: Callable[..., tuple[Path, Encoder]], train: Train
) -> None:
    path, old = initial((BLANK, UNKNOWN, "hum"))
    trainer = train(initial=[str(path)], training={"frozen_blocks": 1, "epochs": 1})
    trainer.run()
    before, after = old.state_dict(), trainer.weights()
    changed = {
        k for k, v in after.items() if not k.startswith("head.") and not np.allclose(v, before[k].half().numpy())
    }
    assert not any(key.startswith(("stem.", "blocks.0.")) for key in changed)
    assert any(key.startswith("blocks.1.") for key in changed)
    with pytest.raises(ValueError, match="frozen_blocks is 2; allowed: -1 to 1"):
        train(initial=[str(path)], training={"frozen_blocks": 2})


def test_without_epochs_the_start_is_the_model(
    initial: Callable[..., tuple[Path, Encoder]], train: Train, tmp_path: Path
) -> None:
    path, old = initial((BLANK, UNKNOWN, "hum"))
    trainer = train(initial=[str(path)], training={"epochs": 0, "threads": 1})
    trainer.run()
    info, weights = checkpoint.load(trainer.out / "model.safetensors")
    np.testing.assert_array_equal(weights["stem.patch.weight"], old.state_dict()["stem.patch.weight"].half().numpy())
    assert info.provenance["epochs"] == 0 and 0 <= info.provenance["validation"]["accuracy"] <= 100
    train(initial=[str(path)], training={"epochs": 0, "threads": 1}).run()  # nothing is left to do


@pytest.mark.parametrize("encoder", [{"hidden_size": 32}, {"layers": 3}, {"layers": 1}], ids=str)
def test_a_checkpoint_of_another_shape_is_refused_by_name(
    initial: Callable[..., tuple[Path, Encoder]], tiny_recipe: MakeRecipe, encoder: dict[str, int]
) -> None:
    """Also one with fewer layers: half an encoder is no start."""
    config = {"features": {"num_mels": 16}, "encoder": {"layers": 2, "attention_heads": 2, "hidden_size": 24}}
    path, _ = initial((BLANK, UNKNOWN), config={**config, "encoder": {**config["encoder"], **encoder}})
    model = Encoder(tiny_recipe(config=config).config, 2)
    with pytest.raises(ValueError) as caught:
        start_from(model, (BLANK, UNKNOWN), [path])
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1
