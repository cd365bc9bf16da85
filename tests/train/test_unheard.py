"""What no loss can see stays as it is; what is left untrained is indeed never heard."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from kouling.config import Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from kouling.train.stem_norm import normalize_stem  # noqa: E402
from kouling.train.unheard import freeze_unheard  # noqa: E402

SHAPE = {"layers": 2, "attention_heads": 2, "hidden_size": 16, "conv_kernel_size": 5, "stem_channels": 4}
SHAPES = [
    {"norm": "batch"},
    {"norm": "batch", "attention": "linear"},
    {"norm": "batch", "attention": "local", "layer_heads": [1, 2]},
    {"norm": "layer"},
]


def made(shape: dict[str, object]) -> Encoder:
    torch.manual_seed(4)
    encoder = Encoder(Config(FeatureConfig(num_mels=16), EncoderConfig(**{**SHAPE, **shape})), 6)  # type: ignore[arg-type]
    normalize_stem(encoder)
    freeze_unheard(encoder)
    return encoder.train()


def said(encoder: Encoder, features: torch.Tensor) -> torch.Tensor:
    log_probs, _ = encoder(features, encoder.initial_state(len(features)))
    return log_probs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whatever_is_not_trained_is_not_heard(shape: dict[str, object]) -> None:
    encoder, features = made(shape), torch.rand(3, 200, 16)
    with torch.no_grad():
        before = said(encoder, features)
        for name, parameter in encoder.named_parameters():
            if not parameter.requires_grad and not name.endswith("attention.norm.bias"):
                parameter += torch.randn_like(parameter)
        torch.testing.assert_close(said(encoder, features), before, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_stays_where_it_was_while_all_else_learns(shape: dict[str, object]) -> None:
    encoder, features = made(shape), torch.rand(3, 200, 16)
    before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for step in range(4):
        torch.manual_seed(step)
        said(encoder, features)[..., step].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    normal = shape["norm"] == "batch"
    moved = {name: (parameter - before[name]).abs() for name, parameter in encoder.named_parameters()}
    still = {name for name, change in moved.items() if not change.any()}
    ends = ["depthwise.bias", "patch.bias", "mix.bias"]
    if normal:
        ends += ["contract.bias", "output.bias", "attention.norm.bias", "project.bias"]
    assert still == {name for name in moved if name.endswith(tuple(ends))}
    for name, change in moved.items():
        if name.endswith("query_key_value.bias"):
            query, key, value = (part.any() for part in change.chunk(3))
            linear = shape.get("attention") == "linear"
            assert query and (bool(key), bool(value)) == ((linear, False) if normal else (True, True))
