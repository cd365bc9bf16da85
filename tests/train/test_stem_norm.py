"""Normalisations of the stem are there while a model trains and gone, unheard, when it is saved."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from kouling.config import Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.encoder import Encoder, Window  # noqa: E402
from kouling.train.stem_norm import folded, normalize_stem  # noqa: E402


def made(layers: int = 2) -> Encoder:
    torch.manual_seed(4)
    shape = EncoderConfig(
        layers=1, attention_heads=2, hidden_size=16, conv_kernel_size=5, stem_channels=4, stem_layers=layers
    )
    return Encoder(Config(FeatureConfig(num_mels=16), shape), 6)


def said(encoder: Encoder, features: torch.Tensor, window: Window | None = None) -> torch.Tensor:
    with torch.no_grad():
        return encoder(features, encoder.initial_state(len(features)), window)[0]


@pytest.mark.parametrize("layers", [0, 2])
def test_what_was_trained_with_them_is_heard_the_same_without(layers: int) -> None:
    encoder, plain, features = made(layers), made(layers).eval(), torch.rand(3, 100, 16)
    normalize_stem(encoder)
    encoder.train()
    for _ in range(3):
        said(encoder, features)  # moves the running statistics
    for norm in encoder.stem.batch_norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.normal_(norm.bias)
    encoder.eval()
    names = list(encoder.stem.convolutions())
    assert len(names) == layers + 2
    plain.load_state_dict(folded(encoder.state_dict(), names))
    assert not torch.allclose(said(plain, features), said(made(layers).eval(), features), atol=1e-2)
    narrow = Window(torch.tensor(3), torch.tensor(2))
    for window in (None, narrow):
        torch.testing.assert_close(said(plain, features, window), said(encoder, features, window), atol=1e-5, rtol=1e-4)


def test_weights_that_learned_without_them_begin_as_they_were_and_normalised() -> None:
    encoder, features = made(), torch.rand(3, 100, 16)
    before = said(encoder.eval(), features)
    normalize_stem(encoder, [features[:2], features[2:]])
    torch.testing.assert_close(said(encoder.eval(), features), before, atol=1e-5, rtol=1e-4)
    encoder.stem.train()
    # It takes the statistics of the batch now: of the same features, the same.
    torch.testing.assert_close(said(encoder, features), before, atol=1e-3, rtol=1e-3)


def test_without_normalisations_nothing_is_folded() -> None:
    weights = made().state_dict()
    assert folded(weights, list(made().stem.convolutions())).items() >= weights.items()
