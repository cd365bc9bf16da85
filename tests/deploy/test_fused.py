"""The form that other runtimes take gives the numbers of the encoder, each fold by itself and all of them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kouling import audio, checkpoint, encoder, recognizer
from kouling.config import EncoderConfig
from kouling.deploy import fused
from kouling.deploy.graph import Graph, log_softmax
from kouling.features import LogMel

ROOT = Path(__file__).parents[2]
MODELS = ("en-small", "en-small-npu", "en-commands-tiny", "zh-commands-tiny")


def checkpoint_of(model: str) -> Path:
    return recognizer.MODELS / model / "model.safetensors"


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    info = checkpoint.load_info(checkpoint_of("en-small"))
    return LogMel(info.config.features).accept(audio.read(ROOT / "examples" / "en-orders.ogg"))


def run(graph: Graph, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return log_softmax(np.concatenate([graph.module(*each)[0].numpy()[0] for each in graph.calls(features)]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps", [1, 7])
def test_all_folds_together_are_the_encoder(model: str, steps: int, features: NDArray[np.float32]) -> None:
    info = checkpoint.load_info(checkpoint_of(model))
    graph = Graph(checkpoint_of(model), steps * info.config.encoder.streaming_step_size)
    found = run(graph, features)
    reference = graph.reference()
    state = reference.step(recognizer.priming(info), reference.initial_state())[1]
    wanted = reference.step(features[: len(found) * graph.info.config.encoder.subsampling], state)[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # log-probabilities reach down to -20


@pytest.mark.parametrize("steps", [1, 7])
def test_equalized_channels_change_no_output(steps: int, features: NDArray[np.float32]) -> None:
    graph = Graph(checkpoint_of("en-small"), 3 * steps)
    before = run(graph, features)
    widest = [float(block.units.max()) for block in graph.module.layers]
    graph.equalize(features)
    np.testing.assert_allclose(run(graph, features), before, atol=2e-3)
    assert widest == [1.0] * len(widest)
    reached = [block.units for block in graph.module.layers]
    assert max(float(each.max() / each.min()) for each in reached) > 20  # what one scale for all could not hold


def test_equalized_caches_have_like_ranges(features: NDArray[np.float32]) -> None:
    graph = Graph(checkpoint_of("en-small"))
    graph.equalize(features)
    largest = np.max([np.abs(each[4].numpy()).max() for each in graph.calls(features)])
    assert 0.5 < largest <= 1.01


def test_the_norm_goes_into_the_layer_behind_it() -> None:
    norm, linear = torch.nn.LayerNorm(16), torch.nn.Linear(16, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, scale = torch.randn(3, 16), torch.rand(8)
    plain, folded = fused.fold_norm(norm, linear, scale)
    assert plain.weight is None and plain.bias is None
    torch.testing.assert_close(folded(plain(x)), linear(norm(x)) * scale)


def test_batch_normalisation_in_the_place_of_layer_normalisation_is_gone(shaped_model: Callable[..., Path]) -> None:
    graph = Graph(shaped_model("batch normalisation"))
    assert not [name for name, module in graph.module.named_modules() if "Norm" in type(module).__name__]
    features = np.random.default_rng(3).random((80, 16), dtype=np.float32)
    found, reference = run(graph, features), graph.reference()
    state = reference.step(recognizer.priming(graph.info), reference.initial_state())[1]
    np.testing.assert_allclose(found, reference.step(features, state)[0], atol=2e-3)


def test_batch_normalisation_goes_into_the_convolution() -> None:
    depthwise, norm = torch.nn.Conv1d(4, 4, 5, groups=4), torch.nn.BatchNorm1d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.1
    norm.eval()
    x = torch.randn(1, 4, 9)
    torch.testing.assert_close(fused.fold_batch_norm(depthwise.eval(), norm)(x), norm(depthwise(x)))


def test_half_of_a_feed_forward_module_is_in_its_weights() -> None:
    module = encoder.FeedForward(EncoderConfig(hidden_size=16), 32, 0.0)
    x = torch.randn(1, 2, 16)
    torch.testing.assert_close(fused.FusedFeedForward(module)(x), 0.5 * module(x))


def test_clustered_weights_are_few_and_near() -> None:
    linear = torch.nn.Linear(64, 8)
    before = linear.weight.detach().clone()
    fused.cluster(torch.nn.Sequential(linear), 31)
    for row, whole in zip(linear.weight.detach(), before, strict=True):
        unit = row.abs().unique().diff().min()
        assert len(row.unique()) <= 31
        torch.testing.assert_close((row / unit).round() * unit, row)
        assert (row - whole).square().mean().sqrt() < 0.04 * whole.abs().max()


def test_the_stem_has_no_stride_in_time() -> None:
    config = checkpoint.load_info(checkpoint_of("en-commands-tiny")).config.encoder
    stem = encoder.Stem(config, 64).eval()
    features, tail = torch.rand(1, 4 * config.subsampling, 64), torch.rand(1, config.lookahead, 64)
    form = fused.FusedStem(stem, config)
    for found, wanted in zip(form(features, tail), stem(features, tail), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert {conv.stride[0] for conv in form.modules() if isinstance(conv, torch.nn.Conv2d)} == {1}


def test_what_this_form_has_not_is_refused() -> None:
    info = checkpoint.load_info(checkpoint_of("en-small"))
    linear = replace(info.config, encoder=replace(info.config.encoder, attention="linear"))
    with pytest.raises(ValueError, match="attention is 'linear'; allowed for this target: windowed, local"):
        fused.Fused(encoder.Encoder(linear, 5).eval(), info.config.encoder.streaming_step_size)
    with pytest.raises(ValueError, match="frames is 4; allowed: multiples of 3"):
        fused.Fused(encoder.Encoder(info.config, 5).eval(), 4)
