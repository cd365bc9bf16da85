"""Pruning removes what matters least, folds what is constant, and leaves an ordinary model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pruning needs torch")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from kouling import checkpoint  # noqa: E402
from kouling.checkpoint import ModelInfo  # noqa: E402
from kouling.commands import BLANK, UNKNOWN  # noqa: E402
from kouling.compress.prune import Importance, Plan, importance, modules_of, prune  # noqa: E402
from kouling.config import PRESETS, Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.deploy import onnx, step  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from kouling.measure.footprint import macs_per_s  # noqa: E402

UNITS = (BLANK, UNKNOWN, "go", "stop")
ATTENTIONS = ["windowed", "local", "linear"]


def config(attention: str = "windowed") -> Config:
    encoder = EncoderConfig(2, 4, 32, 5, 2, 4, 1, 4, 8, 40, 4, attention, 12)
    return Config(FeatureConfig(num_mels=16), encoder)


def random_model(attention: str = "windowed") -> tuple[ModelInfo, Encoder]:
    torch.manual_seed(3)
    encoder = Encoder(config(attention), len(UNITS)).eval()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith(("distance_bias", "running_mean", "norm.bias")):
                tensor.normal_(0, 0.5)
            elif name.endswith(("running_var", "norm.weight")):
                tensor.uniform_(0.5, 1.5)
    return ModelInfo("random", "en", config(attention), UNITS, {}, {"accuracy": 0.9, "seed": 1}), encoder


def weights_of(encoder: Encoder) -> dict[str, Any]:
    return {k: v.numpy() for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}


def features(frames: int = 160, rows: int = 3, seed: int = 1) -> Tensor:
    return 3 * torch.rand(rows, frames, 16, generator=torch.Generator().manual_seed(seed))


def heard(encoder: Encoder, given: Tensor) -> Tensor:
    with torch.no_grad():
        log_probs: Tensor = encoder(given, encoder.initial_state(len(given)))[0]
    return log_probs


def loss_on(given: Tensor) -> Callable[[Encoder], Tensor]:
    """Of rows that ask for different units, summed."""

    def loss(encoder: Encoder) -> Tensor:
        log_probs, _ = encoder(given, encoder.initial_state(len(given)))
        return -sum((log_probs[row, :, row % len(UNITS)].sum() for row in range(len(given))), torch.tensor(0.0))

    return loss


def even_importance(encoder: Encoder, seed: int = 0) -> Importance:
    """Random scores, no means."""
    rng = np.random.default_rng(seed)
    modules = modules_of(encoder.config.encoder)
    return Importance(
        {module.name: rng.uniform(size=module.count) for module in modules},
        {module.name: np.zeros(module.count * module.size) for module in modules},
    )


def half_of(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(count)[: count // 2]


# Importance


def test_importance_is_what_the_loss_changes_by_squared() -> None:
    """Against the difference of the loss where all that an element says is made a little louder."""
    _, encoder = random_model()
    given = features(rows=1)
    measured = importance(encoder, [loss_on(given)])
    step_size = 1e-3
    for module in modules_of(encoder.config.encoder):
        reader: Any = encoder.get_submodule(module.reader)
        for element in (0, module.count - 1):
            columns = slice(element * module.size, (element + 1) * module.size)
            values = []
            for factor in (1 + step_size, (1 - step_size) / (1 + step_size)):
                with torch.no_grad():
                    reader.weight[:, columns] *= factor
                    values.append(float(loss_on(given)(encoder).double()))
            with torch.no_grad():
                reader.weight[:, columns] /= 1 - step_size
            slope = (values[0] - values[1]) / (2 * step_size)
            assert measured.scores[module.name][element] == pytest.approx(slope**2, rel=0.05, abs=0.02)


def test_importance_is_the_mean_over_rows_however_they_are_batched() -> None:
    _, encoder = random_model()
    given = features(rows=4)
    encoder.train()
    at_once = importance(encoder, [loss_on(given)])
    assert encoder.training and all(p.requires_grad for p in encoder.parameters())
    rows = [lambda e, i=i: -e(given[i : i + 1], e.initial_state(1))[0][0, :, i].sum() for i in range(4)]
    apart = importance(encoder, rows)
    for name, scores in at_once.scores.items():
        np.testing.assert_allclose(apart.scores[name], scores, rtol=1e-3)
        np.testing.assert_allclose(apart.means[name], at_once.means[name], atol=1e-6)
    reader_inputs: list[Tensor] = []
    encoder.eval()
    contract: Any = encoder.get_submodule("blocks.1.feed_forward_out.contract")
    handle = contract.register_forward_pre_hook(lambda _, inputs: reader_inputs.append(inputs[0]))
    heard(encoder, given)
    handle.remove()
    np.testing.assert_allclose(at_once.means["blocks.1.feed_forward_out"], reader_inputs[0].mean(dim=(0, 1)), atol=1e-6)


def test_without_a_batch_there_is_no_importance() -> None:
    with pytest.raises(ValueError, match="no batch to measure importance on"):
        importance(random_model()[1], [])


# What is left


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_what_says_nothing_is_removed_and_nothing_is_missed(attention: str) -> None:
    """Half of all elements have no weight in their reader: their importance is zero, and the outputs stay."""
    info, encoder = random_model(attention)
    for number, module in enumerate(modules_of(info.config.encoder)):
        reader: Any = encoder.get_submodule(module.reader)
        for element in half_of(module.count, number):
            with torch.no_grad():
                reader.weight[:, element * module.size : (element + 1) * module.size] = 0
    measured = importance(encoder, [loss_on(features())])
    assert all((scores == 0).sum() == len(scores) // 2 for scores in measured.scores.values())
    smaller, weights = prune(info, weights_of(encoder), measured, Plan(heads=0.5, units=0.5, channels=0.5))
    pruned = step.build(smaller, weights)
    shapes = pruned.config.encoder
    assert shapes.layer_heads == [2, 2] and shapes.layer_ffn == [32] * 4 and shapes.layer_channels == [16, 16]
    given = features(seed=2)
    torch.testing.assert_close(heard(pruned, given), heard(encoder, given), atol=2e-5, rtol=0)


def test_what_heads_say_on_average_is_folded_into_a_bias() -> None:
    """Half of the heads always say the same, and only its place changes."""
    info, encoder = random_model()
    made = even_importance(encoder)
    for number, module in enumerate(modules_of(info.config.encoder)):
        constant = half_of(module.count, number)
        if module.kind != "heads":
            continue
        made.scores[module.name][constant] = 0
        layer: Any = encoder.get_submodule(f"{module.name}.query_key_value")
        values = 2 * module.count * module.size
        with torch.no_grad():
            for head in constant:
                rows = slice(values + int(head) * module.size, values + (int(head) + 1) * module.size)
                layer.weight[rows] = 0
                layer.bias[rows] += 1
    measured = replace(made, means=importance(encoder, [loss_on(features())]).means)
    smaller, weights = prune(info, weights_of(encoder), measured, Plan(heads=0.5))
    given = features(seed=2)
    torch.testing.assert_close(heard(step.build(smaller, weights), given), heard(encoder, given), atol=2e-5, rtol=0)
    _, unfolded = prune(info, weights_of(encoder), made, Plan(heads=0.5))
    assert (heard(step.build(smaller, unfolded), given) - heard(encoder, given)).abs().max() > 0.05


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8])
def test_shares_are_met_in_counts_that_the_engine_runs(share: float) -> None:
    encoder = Encoder(PRESETS["base"], len(UNITS))
    info = ModelInfo("base", "en", PRESETS["base"], UNITS)
    weights = {key: value.astype(np.float16) for key, value in weights_of(encoder).items()}
    heads = min(share, 0.75)
    smaller, pruned = prune(info, weights, even_importance(encoder), Plan(heads=heads, units=share, channels=share))
    shapes = smaller.config.encoder
    step.build(smaller, pruned)
    assert sum(shapes.layer_heads) == round((1 - heads) * 32) and min(shapes.layer_heads) >= 1
    for counts, total in ((shapes.layer_ffn, 8 * 512), (shapes.layer_channels, 4 * 128)):
        assert all(count % 16 == 0 and count >= 16 for count in counts)
        assert abs(sum(counts) - (1 - share) * total) <= 8
    assert {value.dtype for value in pruned.values()} == {np.dtype(np.float16)}
    assert smaller.provenance["parameters"] == sum(p.numel() for p in step.build(smaller, pruned).parameters())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_share_of_multiply_accumulates_is_met(share: float) -> None:
    encoder = Encoder(PRESETS["base"], len(UNITS))
    info = ModelInfo("base", "en", PRESETS["base"], UNITS)
    smaller, _ = prune(info, weights_of(encoder), even_importance(encoder), Plan(macs=share))
    before, after = (
        sum(module.count * module.macs for module in modules_of(each.config.encoder)) for each in (info, smaller)
    )
    assert after / before == pytest.approx(1 - share, abs=0.01)


def test_costs_are_those_that_the_footprint_counts() -> None:
    """All elements together cost what the whole model does, but for its stem, head and nothing else."""
    with_blocks = PRESETS["base"]
    counted = sum(module.count * module.macs for module in modules_of(with_blocks.encoder))
    one_less = replace(with_blocks, encoder=replace(with_blocks.encoder, layers=3))
    of_one = (macs_per_s(with_blocks, 4) - macs_per_s(one_less, 4)) / 20  # a second has twenty encoder frames
    assert counted == pytest.approx(4 * of_one)


def test_unimportant_blocks_lose_more() -> None:
    info, encoder = random_model()
    made = even_importance(encoder)
    made.scores["blocks.0.feed_forward_in"][:] = np.where(np.arange(64) == 7, 1.0, 0.01)  # all but one of no use
    smaller, weights = prune(info, weights_of(encoder), made, Plan(units=0.25))
    assert smaller.config.encoder.layer_ffn[0] < min(smaller.config.encoder.layer_ffn[1:])
    old = encoder.state_dict()["blocks.0.feed_forward_in.expand.weight"][7].numpy()
    assert (weights["blocks.0.feed_forward_in.expand.weight"] == old).all(axis=1).any()


def test_a_pruned_model_can_be_pruned_again() -> None:
    info, encoder = random_model()
    once, weights = prune(info, weights_of(encoder), even_importance(encoder), Plan(heads=0.25, units=0.25))
    again = step.build(once, weights)
    twice, smaller = prune(once, weights, even_importance(again), Plan(heads=0.5, units=0.5, channels=0.25))
    step.build(twice, smaller)
    assert sum(twice.config.encoder.layer_heads) == 3 and twice.name == "random-pruned-pruned"


def test_figures_of_the_whole_model_are_not_claimed() -> None:
    info, encoder = random_model()
    smaller, _ = prune(info, weights_of(encoder), even_importance(encoder), Plan(heads=0.5))
    assert smaller.provenance["seed"] == 1 and smaller.provenance["pruned"] == {"heads": 0.5}
    assert "accuracy" not in smaller.provenance


# It is an ordinary model


@pytest.fixture(params=ATTENTIONS)
def pruned_model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    info, encoder = random_model(request.param)
    measured = importance(encoder, [loss_on(features())])
    path = tmp_path / "pruned.safetensors"
    checkpoint.save(path, *prune(info, weights_of(encoder), measured, Plan(heads=0.4, units=0.5, channels=0.3)))
    return path


def test_a_pruned_model_streams_as_it_hears_at_once(pruned_model: Path) -> None:
    _, encoder = step.load(pruned_model)
    given = features(rows=2)
    state, parts = encoder.initial_state(2), []
    for first in range(0, given.shape[1], 4):
        with torch.no_grad():
            log_probs, state = encoder(given[:, first : first + 4], state)
        parts.append(log_probs)
    torch.testing.assert_close(torch.cat(parts, dim=1), heard(encoder, given), atol=1e-5, rtol=0)


def test_a_pruned_model_is_exported_to_onnx(pruned_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch exports through onnxscript")
    onnx.export(pruned_model, tmp_path / "step.onnx")
    _, encoder = step.load(pruned_model)
    runner = onnx.OnnxRunner(tmp_path / "step.onnx")
    given = features(frames=80, rows=1)
    made, _ = runner.step(given[0].numpy(), runner.initial_state())
    np.testing.assert_allclose(made, heard(encoder, given)[0], atol=1e-4)


# Mistakes


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"heads": 1.0}, "plan.heads is 1.0; allowed: from 0 to below 1"),
        ({"units": -0.1}, "plan.units is -0.1; allowed: from 0 to below 1"),
        ({"channels": float("nan")}, "plan.channels is nan; allowed: from 0 to below 1"),
        (
            {"macs": 0.5, "heads": 0.5},
            "plan.macs is 0.5 and heads, units and channels are 0.5, 0.0 and 0.0; allowed: macs alone, or the others",
        ),
    ],
)
def test_an_impossible_plan_is_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Plan(**shares)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(heads=0.8), "plan.heads is 0.8, which leaves a module empty; this model allows: at most 0.75"),
        (Plan(units=0.9), "plan.units is 0.9, which leaves a module empty; this model allows: at most 0.75"),
        (Plan(macs=0.95), "plan.macs is 0.95, which leaves a module empty; this model allows: at most 0.7"),
    ],
    ids=str,
)
def test_a_plan_that_leaves_a_module_empty_is_refused(plan: Plan, message: str) -> None:
    info, encoder = random_model()
    with pytest.raises(ValueError) as caught:
        prune(info, weights_of(encoder), even_importance(encoder), plan)
    assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == 1


def test_the_importance_of_another_model_is_refused() -> None:
    info, encoder = random_model()
    fewer = even_importance(Encoder(replace(config(), encoder=replace(config().encoder, layers=1)), 4))
    other = even_importance(Encoder(replace(config(), encoder=replace(config().encoder, attention_heads=2)), 4))
    for given, message in (
        (fewer, "the importance is that of another model: blocks.1."),
        (other, "the importance is that of another model: blocks.0.attention has 4 heads, the importance 2"),
    ):
        with pytest.raises(ValueError) as caught:
            prune(info, weights_of(encoder), given, Plan(heads=0.5))
        assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == 1
