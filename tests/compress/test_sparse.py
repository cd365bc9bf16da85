"""Blocks of zeros: those of least worth, in every linear layer of the blocks, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="compression needs torch")

import torch  # noqa: E402

from kouling.checkpoint import ModelInfo  # noqa: E402
from kouling.commands import BLANK, UNKNOWN  # noqa: E402
from kouling.compress.sparse import input_powers, sparsify  # noqa: E402
from kouling.config import Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402

UNITS = (BLANK, UNKNOWN, "go", "stop")
# Neither width nor units nor channels are whole numbers of blocks: those at the edges are cut off.
SHAPE = Config(
    FeatureConfig(num_mels=16),
    EncoderConfig(2, 2, 22, 5, 2, 4, 1, 4, 8, 40, 4, layer_ffn=[37, 16, 44, 50], layer_channels=[30, 22]),
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(3)
    return Encoder(SHAPE, len(UNITS)).eval()


@pytest.fixture(scope="module")
def powers(encoder: Encoder) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return input_powers(encoder, [torch.rand(rows, 80, 16, generator=generator) for rows in (2, 3)])


def model(encoder: Encoder) -> tuple[ModelInfo, dict[str, Any]]:
    weights = {k: v.half().numpy() for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    return ModelInfo("random", "en", SHAPE, UNITS, {}, {"accuracy": 0.9}), weights


def blocks(weight: Any) -> list[Any]:
    """16 outputs x 4 inputs each, less at the edges."""
    rows, columns = weight.shape
    return [weight[i : i + 16, j : j + 4] for i in range(0, rows, 16) for j in range(0, columns, 4)]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.9])
def test_the_fraction_of_blocks_of_least_worth_is_zero(
    encoder: Encoder, powers: dict[str, Any], fraction: float
) -> None:
    info, weights = model(encoder)
    described, sparse = sparsify(info, weights, powers, fraction)
    changed = {key for key in weights if not np.array_equal(weights[key], sparse[key])}
    layers = {f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)}
    layers -= {"stem.project.weight", "head.weight"}
    assert changed == (layers if fraction else set()) and sparse.keys() == weights.keys()
    for key in layers:
        before, after = blocks(weights[key].astype(np.float64)), blocks(sparse[key].astype(np.float64))
        power = np.broadcast_to(powers[key.removesuffix(".weight")], weights[key].shape)
        worth = np.array([(one**2 * mean_square).sum() for one, mean_square in zip(before, blocks(power), strict=True)])
        removed = np.array([not block.any() for block in after])
        assert removed.sum() == round(fraction * len(before))
        assert not fraction or worth[removed].max() <= worth[~removed].min()
        assert all(
            np.array_equal(one, other) for one, other, gone in zip(before, after, removed, strict=True) if not gone
        )
        assert sparse[key].dtype == weights[key].dtype
    assert described.config == info.config and described.provenance == {"zero_blocks": fraction}


def test_powers_are_mean_squares_over_all_batches(encoder: Encoder, powers: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(1)
    batches = torch.cat([torch.rand(rows, 80, 16, generator=generator) for rows in (2, 3)])
    inputs: list[torch.Tensor] = []
    gate: Any = encoder.get_submodule("blocks.1.convolution.gate")
    handle = gate.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        encoder(batches, encoder.initial_state(5))
    handle.remove()
    np.testing.assert_allclose(powers["blocks.1.convolution.gate"], inputs[0].square().mean(dim=(0, 1)), rtol=1e-4)
    assert len(powers) == 2 * 8


def test_mistakes_are_refused_in_one_line(encoder: Encoder, powers: dict[str, Any]) -> None:
    info, weights = model(encoder)
    for given, fraction, message in (
        (powers, 1.0, "the fraction of zero blocks is 1.0; allowed: from 0 to below 1"),
        (powers, -0.5, "the fraction of zero blocks is -0.5; allowed: from 0 to below 1"),
        ({"blocks.7.attention.output": np.ones(22)}, 0.5, "the input powers are those of another model: blocks.7."),
        (
            {"blocks.0.attention.output": np.ones(12)},
            0.5,
            "the input powers are those of another model: blocks.0.attention.output has 12, here 22 inputs",
        ),
    ):
        with pytest.raises(ValueError) as caught:
            sparsify(info, weights, given, fraction)
        assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="no batch to measure inputs on"):
        input_powers(encoder, [])
