"""What attention adds to all keys and values alike is gone from saved weights, and nothing that is heard changes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from kouling.config import Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from kouling.train.offsets import without_offsets  # noqa: E402

SHAPE = {"layers": 2, "attention_heads": 2, "hidden_size": 16, "conv_kernel_size": 5, "stem_channels": 4}


def made(**shape: object) -> Encoder:
    torch.manual_seed(4)
    encoder = Encoder(Config(FeatureConfig(num_mels=16), EncoderConfig(**{**SHAPE, **shape})), 6).eval()  # type: ignore[arg-type]
    for name, tensor in encoder.state_dict().items():
        if name.endswith("attention.norm.bias"):
            tensor.normal_(0, 5)
        elif name.endswith(("query_key_value.bias", "running_mean", "distance_bias")):
            tensor.normal_()
    return encoder


@pytest.mark.parametrize("shape", [{}, {"layer_heads": [1, 2]}, {"attention": "local"}], ids=str)
def test_keys_and_values_lose_their_offsets_and_nothing_else_changes(shape: dict[str, object]) -> None:
    encoder = made(norm="batch", **shape)
    features, heard = torch.rand(2, 200, 16), []
    for _ in range(2):
        with torch.no_grad():
            heard.append(encoder(features, encoder.initial_state(2))[0])
        encoder.load_state_dict(without_offsets(encoder.state_dict(), encoder.config.encoder))
    torch.testing.assert_close(heard[1], heard[0], atol=2e-4, rtol=1e-4)
    for block in encoder.blocks:
        assert not block.attention.norm.bias.any()
        query, key, value = block.attention.query_key_value.bias.chunk(3)
        assert query.any() and not key.any() and not value.any()


@pytest.mark.parametrize("shape", [{"norm": "layer"}, {"norm": "batch", "attention": "linear"}], ids=str)
def test_where_offsets_are_heard_they_stay(shape: dict[str, object]) -> None:
    before = made(**shape).state_dict()
    after = without_offsets(before, made(**shape).config.encoder)
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
