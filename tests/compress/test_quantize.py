"""Rounding that makes up for itself is better than rounding to the nearest; budgets are kept; silence is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="compression needs torch")

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from kouling import checkpoint, commands  # noqa: E402
from kouling.checkpoint import ModelInfo  # noqa: E402
from kouling.compress import quantize as module  # noqa: E402
from kouling.compress.calibration import Listener, check  # noqa: E402
from kouling.compress.gptq import gptq  # noqa: E402
from kouling.compress.quantize import Int4, Int8, Mixed, divergence, quantize, sensitivities  # noqa: E402
from kouling.deploy import grid, model_file, step  # noqa: E402

Weights = dict[str, NDArray[Any]]
Model = tuple[ModelInfo, Weights]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return checkpoint.load(tiny_model / "model.safetensors")


def scenes(clips: int, seed: int) -> NDArray[np.float32]:
    """Features that change slowly over time and mels, as those of speech do."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(clips, 13, 5)).repeat(4, axis=1).repeat(4, axis=2)[:, :48, :16]
    return np.maximum(1 + rough + 0.2 * rng.normal(size=rough.shape), 0).astype(np.float32)


def bytes_of(info: ModelInfo, weights: Weights) -> int:
    return len(model_file.pack(info, weights, commands.every_unit(info.units)))


def away(info: ModelInfo, weights: Weights, quantised: Weights, features: NDArray[np.float32]) -> float:
    one, other = (Listener(step.build(info, each), features).log_probs() for each in (weights, quantised))
    return divergence(one, other)


# GPTQ


@pytest.mark.parametrize("seed", range(3))
def test_gptq_keeps_outputs_better_than_the_nearest_where_inputs_go_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(2000, 12)) @ rng.normal(size=(12, 96)) + 0.3 * rng.normal(size=(2000, 96))
    matrix = rng.normal(size=(40, 96))
    covariance = inputs.T @ inputs / len(inputs)
    own, snapped = gptq(matrix, covariance)
    np.testing.assert_allclose(grid.snap(snapped, own), snapped, rtol=1e-12)
    nearest = grid.snap(matrix, grid.fit(matrix))
    assert ((inputs @ (snapped - matrix).T) ** 2).mean() < 0.35 * ((inputs @ (nearest - matrix).T) ** 2).mean()


def test_gptq_of_inputs_that_have_nothing_to_do_with_one_another_is_rounding_to_the_nearest() -> None:
    matrix = np.random.default_rng(0).normal(size=(8, 64))
    own, snapped = gptq(matrix, 0.3 * np.eye(64))
    np.testing.assert_allclose(snapped, grid.snap(matrix, grid.fit(matrix)))


def test_inputs_that_never_change_are_no_trouble() -> None:
    matrix = np.random.default_rng(0).normal(size=(8, 64))
    for covariance in (np.zeros((64, 64)), np.diag(np.arange(64.0) > 31).astype(float)):
        assert np.abs(gptq(matrix, covariance)[1] - matrix).max() < 0.5


# What layers are given


def test_inputs_are_those_of_the_engine(model: Model) -> None:
    """A packed matrix times the mean of a layer's inputs is the mean of its outputs, in the stem too."""
    info, weights = model
    listener = Listener(step.build(info, weights), scenes(40, 0))
    outputs: dict[str, list[torch.Tensor]] = {layer: [] for layer in ["stem.patch", *grid.layers(weights)]}
    for layer, made in outputs.items():
        listener.encoder.get_submodule(layer).register_forward_hook(lambda m, x, y, made=made: made.append(y))
    for layer, inputs in listener.inputs(weights, list(outputs)).items():
        matrix = grid.packed(weights[f"{layer}.weight"], grid.input_order(weights, layer))
        axis = 1 if outputs[layer][0].ndim == 4 else -1
        rows = torch.cat([y.movedim(axis, -1).flatten(0, -2) for y in outputs[layer]]).double().numpy()
        np.testing.assert_allclose(matrix @ inputs.mean + weights[f"{layer}.bias"], rows.mean(axis=0), atol=1e-3)
        variances = np.einsum("oi,ij,oj->o", matrix, inputs.covariance, matrix)
        np.testing.assert_allclose(variances, rows.var(axis=0), rtol=2e-3, atol=1e-5)


def test_clips_after_the_first_go_on_from_a_state(model: Model) -> None:
    info, weights = model
    listener, features = Listener(step.build(info, weights), scenes(64, 0)), scenes(64, 0)
    encoder = step.build(info, weights)
    with torch.no_grad():
        first, state = encoder(torch.from_numpy(features[:32]), encoder.initial_state(32))
        second, _ = encoder(torch.from_numpy(features[32:]), state)
    expected = torch.cat([first, second]).flatten(0, 1).numpy()
    np.testing.assert_array_equal(listener.log_probs(), expected)


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 30, 5)).astype(np.float32)
    one, other = (F.log_softmax(torch.from_numpy(each), dim=1) for each in logits)
    expected = F.kl_div(other, one, log_target=True, reduction="batchmean")
    assert divergence(one.numpy(), other.numpy()) == pytest.approx(float(expected), rel=1e-5)
    assert divergence(one.numpy(), one.numpy()) == 0


# Schemes


def test_int8_leaves_the_weights_to_the_packer(model: Model) -> None:
    info, weights = model
    made = quantize(Int8(), info, quantize(Int4("nearest"), info, weights))
    assert made.keys() == weights.keys()
    assert quantize(Int8(), info, weights).keys() == weights.keys()


@pytest.mark.parametrize("rounding", ["gptq", "nearest"])
def test_int4_is_a_checkpoint_on_grids(model: Model, rounding: str) -> None:
    info, weights = model
    made = quantize(Int4(rounding), info, weights, scenes(60, 0))
    assert grid.without_grids(made).keys() == weights.keys()
    assert all(v.dtype == np.float16 for k, v in grid.without_grids(made).items())
    grids = grid.grids_of(made, info.name)
    assert list(grids) == grid.layers(weights)
    for layer, own in grids.items():
        weight, order = made[f"{layer}.weight"], grid.input_order(made, layer)
        snapped = grid.unpacked(grid.snap(grid.packed(weight, order), own), order, weight.shape)
        np.testing.assert_array_equal(snapped.astype(np.float16), weight)
    assert bytes_of(info, made) == len(model_file.pack(info, weights, commands.every_unit(info.units), "int4"))


def test_gptq_keeps_posteriors_better_than_the_nearest(model: Model) -> None:
    info, weights = model
    heard, other = scenes(200, 0), scenes(64, 1)
    gptq_made, nearest = (quantize(Int4(rounding), info, weights, heard) for rounding in ("gptq", "nearest"))
    assert away(info, weights, gptq_made, other) < 0.8 * away(info, weights, nearest, other)


def test_sensitivities_are_of_one_layer_and_sorted_by_harm_for_a_byte(model: Model) -> None:
    info, weights = model
    features = scenes(60, 0)
    found = sensitivities(info, weights, features, "nearest")
    assert [s.divergence / s.saved_bytes for s in found] == sorted(s.divergence / s.saved_bytes for s in found)
    one = found[-1]
    own, weight, bias = module._rounded(grid.fold_norms(weights), one.layer, "nearest", None)
    alone = {**grid.fold_norms(weights), f"{one.layer}.weight": weight, f"{one.layer}.bias": bias}
    assert away(info, weights, alone, features) == pytest.approx(one.divergence, rel=1e-3)
    saved = {**alone, **grid.tensors({one.layer: own})}
    assert bytes_of(info, weights) - bytes_of(info, saved) == one.saved_bytes > 0


def test_a_budget_of_bytes_is_kept_with_as_much_int8_as_fits(model: Model) -> None:
    info, weights = model
    features = scenes(60, 0)
    order = sensitivities(info, weights, features)
    whole, least = bytes_of(info, weights), bytes_of(info, quantize(Int4(), info, weights, features))
    assert not grid.grids_of(quantize(Mixed(max_bytes=whole), info, weights, features), "")
    for max_bytes in (whole - 1, (whole + least) // 2, least):
        made = quantize(Mixed(max_bytes=max_bytes), info, weights, features)
        chosen = set(grid.grids_of(made, ""))
        assert chosen == {each.layer for each in order[: len(chosen)]} and bytes_of(info, made) <= max_bytes
        assert bytes_of(info, made) + order[len(chosen) - 1].saved_bytes > max_bytes
    with pytest.raises(ValueError, match=r"max_bytes is 1000; this model allows: \d+ or more"):
        quantize(Mixed(max_bytes=1000), info, weights, features)


def test_a_budget_of_divergence_is_kept_with_as_much_int4_as_it_allows(model: Model) -> None:
    info, weights = model
    features = scenes(60, 0)
    everything = quantize(Int4(), info, weights, features)
    counts = []
    for share in (0.0, 0.02, 0.6, 3.0):
        budget = share * away(info, weights, everything, features)
        made = quantize(Mixed(max_divergence=budget), info, weights, features)
        assert away(info, weights, made, features) <= budget + 1e-4  # float16
        counts.append(len(grid.grids_of(made, "")))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == len(sensitivities(info, weights, features))
    assert counts[-1] > counts[1] > 0


# What is refused


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (np.zeros((64, 48, 16)), r"all 64 calibration clips are silent; allowed: 22 or more with sound"),
        (scenes(5, 0), r"calibration has 5 clips of 48 frames with sound; this model needs 22 or more"),
        (
            np.concatenate([scenes(5, 0), np.zeros((60, 48, 16))]),
            r"calibration has 5 clips of 48 frames with sound; this model needs 22 or more",
        ),
        (scenes(64, 0)[:, :, :12], r"are \(64, 48, 12\); allowed: \(clips, frames, 16\), frames a multiple of 4"),
        (scenes(64, 0)[:, :46], r"are \(64, 46, 16\); allowed: \(clips, frames, 16\), frames a multiple of 4"),
        (scenes(64, 0)[0], r"are \(48, 16\); allowed"),
        (scenes(0, 0), r"are \(0, 48, 16\); allowed"),
        (np.where(scenes(64, 0) > 2, np.nan, 1), "hold numbers that are not finite"),
    ],
)
def test_features_of_no_use_are_refused(model: Model, features: NDArray[Any], complaint: str) -> None:
    info, weights = model
    for attempt in (
        lambda: check(features, info.config, weights),
        lambda: quantize(Int4(), info, weights, features),
        lambda: quantize(Mixed(max_bytes=10**6), info, weights, features),
        lambda: sensitivities(info, weights, features),
    ):
        with pytest.raises(ValueError, match=complaint) as caught:
            attempt()
        assert len(str(caught.value).splitlines()) == 1


def test_missing_features_are_refused_but_where_none_are_needed(model: Model) -> None:
    info, weights = model
    for scheme in (Int4(), Mixed(max_bytes=10**6, rounding="nearest")):
        with pytest.raises(ValueError, match="needs calibration features"):
            quantize(scheme, info, weights)
    assert grid.grids_of(quantize(Int4("nearest"), info, weights), "")


def test_impossible_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="rounding is 'up'; allowed: gptq, nearest"):
        Int4("up")
    for budgets in ({}, {"max_bytes": 1, "max_divergence": 0.1}):
        with pytest.raises(ValueError, match="allowed: one of them"):
            Mixed(**budgets)  # type: ignore[arg-type]
