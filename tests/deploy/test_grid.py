"""int4 grids: what lies on one is found again by number, in every form of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, checkpoint, commands, recognizer
from kouling.deploy import engine, grid, model_file
from kouling.deploy.grid import GROUP, Grid

Weights = dict[str, NDArray[Any]]
MODELS = ["en-small", "en-small-npu", "en-commands"]
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(model: str) -> tuple[checkpoint.ModelInfo, Weights]:
    return checkpoint.load(recognizer.MODELS / model / "model.safetensors")


def to_nearest(weights: Weights, layers: list[str] | None = None) -> Weights:
    """Folded, these layers or all on the grids that fit best, in float16 as in a checkpoint."""
    result = grid.fold_norms(weights)
    grids = {}
    for layer in grid.layers(result) if layers is None else layers:
        weight, order = result[f"{layer}.weight"], grid.input_order(result, layer)
        grids[layer] = grid.fit(grid.packed(weight, order))
        snapped = grid.snap(grid.packed(weight, order), grids[layer])
        result[f"{layer}.weight"] = grid.unpacked(snapped, order, weight.shape)
    return {**{key: value.astype(np.float16) for key, value in result.items()}, **grid.tensors(grids)}


def error(matrix: grid.Floats, own: Grid) -> float:
    return float(((grid.snap(matrix, own) - matrix) ** 2).sum())


# Fitting


@pytest.mark.parametrize("seed", range(3))
def test_a_fitted_grid_is_better_than_one_that_reaches_the_largest_weight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(24, 96)) * rng.uniform(0.01, 1, size=(24, 1))
    groups = matrix.reshape(24, -1, GROUP)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)[..., 0]
    scale = (np.abs(largest).max(axis=1) / 8 / 127).astype(np.float32)
    reaching = Grid(scale, np.rint(largest / -8 / scale[:, None]).astype(np.int8))
    assert error(matrix, grid.fit(matrix)) < 0.95 * error(matrix, reaching)


def test_what_is_more_important_is_rounded_better() -> None:
    matrix = np.random.default_rng(0).normal(size=(64, 64))
    importance = np.tile([1.0] * 28 + [100.0] * 4, 2)
    plain, weighted = (
        ((grid.snap(matrix, own) - matrix) ** 2 * importance).sum()
        for own in (grid.fit(matrix), grid.fit(matrix, importance))
    )
    assert weighted < 0.9 * plain


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1e-3, 1.0, 100.0])
def test_float16_keeps_every_number(size: float) -> None:
    matrix = np.random.default_rng(1).normal(size=(8, 64)) * size
    own = grid.fit(matrix)
    assert (own.multipliers != 0).all() and np.abs(own.multipliers.astype(int)).max() <= 127
    halves = grid.snap(matrix, own).astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(grid.numbers(halves, own), grid.numbers(matrix, own))


# Layers


@pytest.mark.parametrize("model", MODELS)
def test_every_matrix_but_the_first_and_the_last_may_have_a_grid(model: str) -> None:
    _, weights = load(model)
    matrices = {
        key.removesuffix(".weight")
        for key, value in weights.items()
        if key.endswith(".weight") and value.ndim >= 2 and not key.endswith("depthwise.weight")
    }
    assert set(grid.layers(weights)) == matrices - {"stem.patch", "head"}
    assert len(grid.layers(weights)) == len(matrices) - 2


@pytest.mark.parametrize("model", MODELS)
def test_packed_order_holds_every_input_once(model: str) -> None:
    _, weights = load(model)
    for layer in ["stem.patch", *grid.layers(weights)]:
        weight, order = weights[f"{layer}.weight"], grid.input_order(weights, layer)
        assert sorted(order[order >= 0]) == list(range(weight[0].size))
        matrix = grid.packed(weight, order)
        assert matrix.shape[1] % GROUP == 0
        np.testing.assert_array_equal(grid.unpacked(matrix, order, weight.shape), weight)


def test_channels_that_fill_up_are_zeros_between(tiny_model: Path) -> None:
    """The tiny model has 4 channels, and 12 that fill up, at each of 4 positions."""
    _, weights = checkpoint.load(tiny_model / "model.safetensors")
    order = grid.input_order(weights, "stem.project").reshape(4, 16)
    np.testing.assert_array_equal(order[:, :4], np.arange(16).reshape(4, 4).T)
    assert (order[:, 4:] == -1).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_folded_encoder_is_the_same(model: str) -> None:
    torch = pytest.importorskip("torch", reason="the encoder needs torch")
    from kouling.deploy import step

    info, weights = load(model)
    folded = grid.fold_norms(weights)
    norms = [norm for norm in map(grid.norm_before, grid.layers(weights)) if norm]
    assert len(norms) == 4 * info.config.encoder.layers
    assert all(grid.is_folded(folded, norm) and not grid.is_folded(weights, norm) for norm in norms)
    frames = 20 * info.config.encoder.streaming_step_size
    shape = (2, frames, info.config.features.num_mels)
    features = torch.from_numpy(np.random.default_rng(0).uniform(0, 2, shape).astype(np.float32))
    made = []
    for each in (weights, folded):
        encoder = step.build(info, each)
        with torch.no_grad():
            made.append(encoder(features, encoder.initial_state(2))[0])
    torch.testing.assert_close(made[1], made[0], rtol=0, atol=2e-4)
    assert grid.fold_norms(folded).keys() == folded.keys()
    assert all(grid.fold_norms(folded)[key] is folded[key] for key in folded)  # nothing is left to fold


# The packer


def int4_layers(content: bytes) -> int:
    at, linears = (int.from_bytes(content[i : i + 4], "little") for i in (88, 20))
    return content[at : at + linears].count(model_file.KINDS["int4"])


@pytest.mark.parametrize("model", MODELS)
def test_the_packer_finds_the_numbers_again(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, multipliers and scales of every layer, whatever factors the packer folds in."""
    info, weights = load(model)
    saved = to_nearest(weights)
    found = []
    round_to_int4 = model_file.round_to_int4

    def spied(weight: grid.Floats, on: Grid | None = None) -> Any:
        assert on is not None
        found.append((round_to_int4(weight, on), len(on.scale)))
        return found[-1][0]

    monkeypatch.setattr(model_file, "round_to_int4", spied)
    content = model_file.pack(info, saved, commands.every_unit(info.units))
    grids = grid.grids_of(saved, info.name)
    expected = []
    for layer, own in grids.items():
        order = grid.input_order(saved, layer)
        expected.append((grid.numbers(grid.packed(saved[f"{layer}.weight"], order), own), own))
    assert int4_layers(content) == len(found) == len(expected)
    for ((numbers, multipliers, scale), outputs), (own_numbers, own) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(numbers[:outputs, : own_numbers.shape[1]], own_numbers)
        np.testing.assert_array_equal(multipliers[:outputs], own.multipliers)
        factors = scale[:outputs] / own.scale
        head = info.config.encoder.head_size**-0.5
        exact = head in (0.5, 0.25, 0.125)  # other products of a scale are rounded to bfloat16 once more
        assert (
            np.isclose(factors[:, None], [1, 0.5], rtol=1e-6).any(axis=1).all()
            or np.isclose(factors[:, None], [1, head], rtol=1e-6 if exact else 2**-8).any(axis=1).all()
        )


def test_packing_what_was_packed_changes_nothing() -> None:
    info, weights = load("en-small")
    saved = to_nearest(weights)
    first = model_file.pack(info, saved, commands.every_unit(info.units))
    again = to_nearest(saved | {})  # folded already
    for layer, own in grid.grids_of(saved, info.name).items():
        key, order = f"{layer}.weight", grid.input_order(saved, layer)
        snapped = grid.unpacked(grid.snap(grid.packed(saved[key], order), own), order, saved[key].shape)
        again[key] = snapped.astype(np.float16)
        np.testing.assert_array_equal(again[key], saved[key])
    again |= grid.tensors(grid.grids_of(saved, info.name))
    assert model_file.pack(info, again, commands.every_unit(info.units)) == first
    assert model_file.pack(info, saved, commands.every_unit(info.units), "int4") == first  # all layers have grids


def test_without_a_scheme_layers_with_a_grid_are_int4_and_the_rest_int8() -> None:
    info, weights = load("en-small")
    every = commands.every_unit(info.units)
    some = ["blocks.0.attention.output", "blocks.1.feed_forward_in.contract"]
    mixed = model_file.pack(info, to_nearest(weights, some), every)
    assert int4_layers(mixed) == 2
    assert model_file.pack(info, weights, every) == model_file.pack(info, weights, every, "int8")
    assert int4_layers(model_file.pack(info, to_nearest(weights), every, "int8")) == 0
    whole = model_file.pack(info, weights, every, "int4")  # no grids: to the nearest
    assert int4_layers(model_file.pack(info, to_nearest(weights, some), every, "int4")) == int4_layers(whole) > 10


@pytest.mark.parametrize("model", MODELS)
def test_the_engine_hears_what_pytorch_hears_of_a_checkpoint_on_grids(model: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the encoder needs torch")
    pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)
    from kouling.deploy.pytorch import TorchRunner

    info, weights = load(model)
    checkpoint.save(tmp_path / "model.safetensors", info, to_nearest(weights))
    engine.export(tmp_path / "model.safetensors", tmp_path / "int4.kouling")
    engine.export(tmp_path / "model.safetensors", tmp_path / "float.kouling", "float")
    speech = np.concatenate([audio.read(path) for path in sorted(EXAMPLES.glob("*.ogg"))])
    expected = recognizer.Recognizer(TorchRunner(tmp_path / "model.safetensors")).log_probs(speech)
    for form, least_db in (("float", 75), ("int4", 30)):  # int4: activations are in int8
        found = engine.Engine(tmp_path / f"{form}.kouling").recognizer().log_probs(speech)
        away = 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum())
        assert away > least_db, form


# What is refused


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda w: w.pop("int4.stem.mix.scale"),
            r"en: int4.stem.mix.scale is missing; allowed: float32 \(16,\)",
        ),
        (
            lambda w: w.update({"int4.stem.mix.multipliers": np.ones((16, 3), np.int8)}),
            r"en: int4.stem.mix.multipliers is int8 \(16, 3\); allowed: int8 \(16, 2\)",
        ),
        (
            lambda w: w.update({"int4.stem.mix.scale": np.ones(16)}),
            r"en: int4.stem.mix.scale is float64 \(16,\); allowed: float32 \(16,\)",
        ),
        (
            lambda w: w.update({"int4.head.scale": np.ones(17, np.float32)}),
            r"en: has an int4 grid of 'head'; allowed: stem.mix, ",
        ),
        (
            lambda w: w.update({"blocks.0.attention.norm.bias": np.ones(64, np.float16)}),
            r"en: blocks.0.attention.query_key_value has an int4 grid, but blocks.0.attention.norm before it is not",
        ),
    ],
)
def test_grids_that_do_not_fit_are_refused(change: Callable[[Weights], Any], complaint: str) -> None:
    info, weights = load("en-small")
    saved = to_nearest(weights)
    change(saved)
    with pytest.raises(ValueError, match=complaint) as caught:
        grid.grids_of(saved, "en")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="^en-small: "):
        model_file.pack(info, saved, commands.every_unit(info.units))
