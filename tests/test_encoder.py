"""One `forward` for utterance and stream: what an output depends on, and what the state holds.

Output n belongs to the feature frames from `n * subsampling - lookahead`, "its own first frame", to the last one that
it may look at, `(n + 1) * subsampling - 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch", reason="the encoder is for the toolkit, which needs torch")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from kouling.config import PRESETS, Config, EncoderConfig, FeatureConfig  # noqa: E402
from kouling.encoder import (  # noqa: E402
    TRAINING_BLOCK,
    BlockState,
    Encoder,
    EncoderState,
    LinearAttention,
    WindowedAttention,
)

NUM_UNITS = 7

CONFIGS = {
    "base": PRESETS["base"],
    "small": PRESETS["small"],
    "shipped": Config(
        encoder=EncoderConfig(
            conv_kernel_size=15,
            stem_channels=48,
            stem_layers=3,
            streaming_chunk_size=15,
            max_cached_frames=60,
        )
    ),
}
SMALL_CONFIGS = {
    "two-frames-a-step": Config(FeatureConfig(num_mels=16), EncoderConfig(2, 2, 16, 4, 2, 4, 2, 3, 8, 20, 6)),
    "no-lookahead": Config(FeatureConfig(num_mels=16), EncoderConfig(2, 2, 16, 4, 2, 4, 1, 4, 4, 20, 4)),
    "shortest-memory": Config(FeatureConfig(num_mels=16), EncoderConfig(1, 1, 8, 2, 1, 2, 0, 2, 3, 3, 2)),
    "local": Config(FeatureConfig(num_mels=16), EncoderConfig(2, 2, 16, 4, 2, 4, 1, 4, 8, 40, 4, "local", 13)),
    "linear": Config(FeatureConfig(num_mels=16), EncoderConfig(2, 2, 16, 4, 2, 4, 1, 4, 8, 40, 4, "linear")),
    "batch-norm": Config(FeatureConfig(num_mels=16), EncoderConfig(2, 2, 16, 4, 2, 4, 1, 4, 8, 40, 4, norm="batch")),
    "pruned": Config(
        FeatureConfig(num_mels=16),
        EncoderConfig(
            *(2, 4, 16, 4, 2, 4, 1, 4, 8, 40, 4), layer_heads=[3, 1], layer_ffn=[7, 32, 1, 20], layer_channels=[5, 16]
        ),
    ),
}


def random_encoder(config: Config, seed: int = 0) -> Encoder:
    """In evaluation, every weight and statistic random: a fresh one has no distance bias and idle norms."""
    torch.manual_seed(seed)
    encoder = Encoder(config, NUM_UNITS).eval()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith("distance_bias"):
                tensor.normal_(0, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.3)
            elif name.endswith(("running_var", "norm.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("norm.bias"):
                tensor.normal_(0, 0.3)
    return encoder


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=list(CONFIGS))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return random_encoder(request.param)


@pytest.fixture(scope="module", params=[*CONFIGS.values(), *SMALL_CONFIGS.values()], ids=[*CONFIGS, *SMALL_CONFIGS])
def any_encoder(request: pytest.FixtureRequest) -> Encoder:
    return random_encoder(request.param)


WINDOWED = {name: config for name, config in {**CONFIGS, **SMALL_CONFIGS}.items() if name != "linear"}


@pytest.fixture(scope="module", params=WINDOWED.values(), ids=list(WINDOWED))
def windowed_encoder(request: pytest.FixtureRequest) -> Encoder:
    """All but the one whose past has no end."""
    return random_encoder(request.param)


def some_features(encoder: Encoder, frames: int, batch_size: int = 1, seed: int = 1) -> Tensor:
    """(B, T, M) like those of speech: between 0 and 3, silent here and there."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, frames, encoder.config.features.num_mels)
    return (3.5 * torch.rand(shape, generator=generator) - 0.5).clamp(min=0)


def whole(encoder: Encoder, features: Tensor) -> Tensor:
    with torch.no_grad():
        log_probs: Tensor = encoder(features, encoder.initial_state(len(features)))[0]
    return log_probs


def stream(
    encoder: Encoder, features: Tensor, steps_per_call: Sequence[int], state: EncoderState | None = None
) -> tuple[Tensor, EncoderState]:
    """Features in calls of so many steps, over and over, from the initial state if none is given."""
    state = state or encoder.initial_state(len(features))
    outputs, start, call = [], 0, 0
    while start < features.shape[1]:
        stop = start + steps_per_call[call % len(steps_per_call)] * encoder.config.encoder.streaming_step_size
        with torch.no_grad():
            output, state = encoder(features[:, start:stop], state)
        outputs.append(output)
        start, call = stop, call + 1
    return torch.cat(outputs, dim=1), state


def tensors(state: EncoderState) -> list[Tensor]:
    return [state.stem, *(tensor for block in state.blocks for tensor in block), state.frames_seen]


def joined(states: Sequence[EncoderState]) -> EncoderState:
    """The states of single rows as one batch."""
    blocks = zip(*(state.blocks for state in states), strict=True)
    return EncoderState(
        torch.cat([state.stem for state in states]),
        tuple(BlockState(*(torch.cat(parts) for parts in zip(*block, strict=True))) for block in blocks),
        torch.cat([state.frames_seen for state in states]),
    )


# The state


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("steps_per_call", [[1], [2], [5], [1, 7, 2, 30]], ids=str)
def test_streaming_equals_the_whole_utterance(any_encoder: Encoder, steps_per_call: list[int], batch_size: int) -> None:
    features = some_features(any_encoder, 70 * any_encoder.config.encoder.streaming_step_size, batch_size)
    expected = whole(any_encoder, features)
    streamed, _ = stream(any_encoder, features, steps_per_call)
    assert expected.std(dim=1).min() > 0.01  # else equality means nothing
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-5)


def test_an_output_for_each_subsampled_frame_and_unit(any_encoder: Encoder) -> None:
    frames = 6 * any_encoder.config.encoder.streaming_step_size
    log_probs = whole(any_encoder, some_features(any_encoder, frames, 2))
    assert log_probs.shape == (2, frames // any_encoder.config.encoder.subsampling, NUM_UNITS)
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(log_probs.shape[:2]))


def test_a_reset_state_equals_a_fresh_one(any_encoder: Encoder) -> None:
    """Neither the encoder nor its initial state keeps anything of what was heard."""
    step = any_encoder.config.encoder.streaming_step_size
    features = some_features(any_encoder, 30 * step)
    before, _ = stream(any_encoder, features, [1])
    stream(any_encoder, some_features(any_encoder, 40 * step, 3, seed=2), [3])
    after, _ = stream(any_encoder, features, [1])
    assert torch.equal(before, after)
    assert not any(tensor.any() for tensor in tensors(any_encoder.initial_state(2)))


def test_state_keeps_its_shape_and_counts_up_to_the_left_context(any_encoder: Encoder) -> None:
    config = any_encoder.config.encoder
    state = any_encoder.initial_state(2)
    shapes = [(tensor.shape, tensor.dtype) for tensor in tensors(state)]
    assert state.stem.shape == (2, config.lookahead, any_encoder.config.features.num_mels)
    assert len(state.blocks) == config.layers
    for block, shape in zip(state.blocks, config.blocks, strict=True):
        rows = (1, config.head_size) if config.attention == "linear" else (config.left_context, config.left_context)
        assert block.keys.shape == (2, rows[0], shape.attention_width)
        assert block.values.shape == (2, rows[1], shape.attention_width)
        assert block.conv.shape == (2, config.conv_kernel_size - 1, shape.channels)
    for step in range(1, config.left_context + 8):
        features = some_features(any_encoder, config.streaming_step_size, 2, seed=step)
        _, state = stream(any_encoder, features, [1], state)
        assert [(tensor.shape, tensor.dtype) for tensor in tensors(state)] == shapes
        assert state.frames_seen.tolist() == [min(step * config.frames_per_step, config.left_context)] * 2


def test_a_step_changes_neither_its_input_nor_the_old_state(any_encoder: Encoder) -> None:
    step = any_encoder.config.encoder.streaming_step_size
    _, state = stream(any_encoder, some_features(any_encoder, 3 * step), [1])
    features = some_features(any_encoder, step, seed=2)
    given = [features, *tensors(state), *any_encoder.state_dict().values()]
    copies = [tensor.clone() for tensor in given]
    first, _ = stream(any_encoder, features, [1], state)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies, strict=True))
    assert torch.equal(first, stream(any_encoder, features, [1], state)[0])


def test_rows_of_a_batch_do_not_touch(any_encoder: Encoder) -> None:
    """Not even where they have heard for different times: nothing, a little, and more than fits."""
    config = any_encoder.config.encoder
    step = config.streaming_step_size
    states = [any_encoder.initial_state()]
    for heard in (2, config.left_context + 5):
        states.append(stream(any_encoder, some_features(any_encoder, heard * step, seed=heard), [1])[1])
    features = some_features(any_encoder, 12 * step, 3)
    batch, batch_state = stream(any_encoder, features, [4], joined(states))
    for row, state in enumerate(states):
        single, single_state = stream(any_encoder, features[row : row + 1], [4], state)
        torch.testing.assert_close(batch[row : row + 1], single, rtol=0, atol=1e-5)
        for ours, theirs in zip(tensors(batch_state), tensors(single_state), strict=True):
            torch.testing.assert_close(ours[row : row + 1], theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("filled", ["empty", "half"])
def test_what_lies_in_unfilled_slots_does_not_matter(windowed_encoder: Encoder, filled: str) -> None:
    config = windowed_encoder.config.encoder
    heard = 0 if filled == "empty" else max(config.left_context // 2 // config.frames_per_step, 1)
    state = windowed_encoder.initial_state(2)
    if heard:
        _, state = stream(windowed_encoder, some_features(windowed_encoder, heard * config.streaming_step_size, 2), [1])
    unfilled = config.left_context - int(state.frames_seen[0])
    assert unfilled > 0 or config.left_context == 1

    def soiled(cache: Tensor, slots: slice) -> Tensor:
        soiled = cache.clone()
        soiled[:, slots] = 5 * torch.randn(soiled[:, slots].shape, generator=torch.Generator().manual_seed(4))
        return soiled

    def with_garbage(slots: slice) -> EncoderState:
        blocks = (b._replace(keys=soiled(b.keys, slots), values=soiled(b.values, slots)) for b in state.blocks)
        return state._replace(blocks=tuple(blocks))

    features = some_features(windowed_encoder, (config.left_context + 5) * config.streaming_step_size, 2, seed=2)
    clean, _ = stream(windowed_encoder, features, [1, 3], state)
    garbage, _ = stream(windowed_encoder, features, [1, 3], with_garbage(slice(0, unfilled)))
    torch.testing.assert_close(garbage, clean, rtol=0, atol=1e-6)
    if heard:  # the oldest filled slot does matter
        wrong, _ = stream(windowed_encoder, features, [1, 3], with_garbage(slice(unfilled, unfilled + 1)))
        assert (wrong - clean).abs().max() > 1e-4


# The time grid


def test_no_output_depends_on_a_frame_after_its_lookahead(any_encoder: Encoder) -> None:
    config = any_encoder.config.encoder
    n = 30
    features = some_features(any_encoder, 40 * config.subsampling)
    first_unseen = (n + 1) * config.subsampling
    changed = features.clone()
    changed[:, first_unseen:] = some_features(any_encoder, features.shape[1] - first_unseen, seed=2)
    before, after = whole(any_encoder, features), whole(any_encoder, changed)
    torch.testing.assert_close(after[:, : n + 1], before[:, : n + 1], rtol=0, atol=1e-6)
    assert (after[:, n + 1] - before[:, n + 1]).abs().max() > 1e-3

    changed = features.clone()
    changed[:, first_unseen - 1] += 1  # the last one that output n may look at
    after = whole(any_encoder, changed)
    torch.testing.assert_close(after[:, :n], before[:, :n], rtol=0, atol=1e-6)
    assert (after[:, n] - before[:, n]).abs().max() > 1e-3


def test_frames_older_than_the_receptive_field_never_matter(windowed_encoder: Encoder) -> None:
    config = windowed_encoder.config.encoder
    lookahead = config.streaming_chunk_size - config.streaming_step_size
    n = int(config.receptive_field + 2 * lookahead) // config.subsampling + 10
    oldest = n * config.subsampling - lookahead - int(config.receptive_field)
    assert oldest > 5
    features = some_features(windowed_encoder, (n + 3) * config.subsampling)
    changed = features.clone()
    changed[:, :oldest] = some_features(windowed_encoder, oldest, seed=2)
    before, after = whole(windowed_encoder, features), whole(windowed_encoder, changed)
    torch.testing.assert_close(after[:, n:], before[:, n:], rtol=0, atol=1e-6)
    assert (after - before).abs().max() > 1e-3


def test_the_stated_receptive_field_is_exact(windowed_encoder: Encoder) -> None:
    """By gradients, which show even a tiny influence: the oldest frame that has any is the one stated."""
    config = windowed_encoder.config.encoder
    encoder = random_encoder(windowed_encoder.config)
    with torch.no_grad():
        blocks: Any = encoder.blocks
        for block in blocks:  # much attention to the oldest slot, or its gradient would underflow
            block.attention.distance_bias[:, -1] += 4
    lookahead = config.streaming_chunk_size - config.streaming_step_size
    n = int(config.receptive_field + 2 * lookahead) // config.subsampling + 4
    oldest = n * config.subsampling - lookahead - int(config.receptive_field)
    features = some_features(encoder, (n + 1) * config.subsampling).requires_grad_()
    log_probs, _ = encoder(features, encoder.initial_state())
    (gradient,) = torch.autograd.grad(log_probs[0, n].square().sum(), features)
    influential = gradient[0].abs().amax(dim=1).nonzero()
    assert int(influential.min()) == oldest


def test_in_linear_attention_the_past_fades_and_has_no_end() -> None:
    encoder = random_encoder(SMALL_CONFIGS["linear"])
    config = encoder.config.encoder
    assert config.receptive_field == math.inf and config.left_context == 0
    features = some_features(encoder, 400 * config.subsampling).requires_grad_()
    log_probs, _ = encoder(features, encoder.initial_state())
    (gradient,) = torch.autograd.grad(log_probs[0, -1].square().sum(), features)
    influence = gradient[0].abs().amax(dim=1)
    recent, middle, first = influence[-100:].max(), influence[-400:-300].max(), influence[:100].max()
    assert recent > 10 * middle > 100 * first > 0


def test_linear_attention_is_the_sum_over_the_past_that_its_source_defines() -> None:
    """Frame by frame, in one head: Katharopoulos et al. 2020, eqs. 16 to 20, with sums that fade."""
    config = EncoderConfig(2, 1, 8, 4, 2, 4, 1, 4, 8, 40, 4, "linear")
    attention: Any = LinearAttention(config, config.blocks[0])
    x = torch.randn(1, 50, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        attended, key_sum, sums = attention(x, torch.zeros(1, 1, 8), torch.zeros(1, 8, 8), torch.zeros(1))
        query, key, value = attention.query_key_value(attention.norm(x))[0].chunk(3, dim=-1)
        query, key = torch.nn.functional.elu(query) + 1, torch.nn.functional.elu(key) + 1
        z, s, kept = torch.zeros(8), torch.zeros(8, 8), torch.sigmoid(attention.decay[0])
        for n in range(50):
            z, s = kept * z + key[n], kept * s + torch.outer(key[n], value[n])
            expected = attention.output(query[n] @ s / (query[n] @ z))
            torch.testing.assert_close(attended[0, n], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(key_sum[0, 0], z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[0], s, rtol=1e-5, atol=1e-5)


def test_a_frame_well_inside_the_receptive_field_matters(encoder: Encoder) -> None:
    """To the output itself, not only to its gradient: one attention window back."""
    config = encoder.config.encoder
    n = config.left_context + 10
    features = some_features(encoder, (n + 1) * config.subsampling)
    changed = features.clone()
    changed[:, (n - config.left_context) * config.subsampling] += 1
    assert (whole(encoder, changed)[:, n] - whole(encoder, features)[:, n]).abs().max() > 1e-4


def test_distance_counts_from_the_frame_itself(encoder: Encoder) -> None:
    """A bias that forbids all but one distance leaves that frame alone: entry d of the table is d frames back."""
    attention: Any = random_encoder(encoder.config).blocks[0].attention
    config = encoder.config.encoder
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, config.left_context + 6, config.hidden_size, generator=generator)
    empty = torch.zeros(1, config.left_context, config.hidden_size)
    for distance in (0, 1, config.left_context):
        with torch.no_grad():
            attention.distance_bias.fill_(-1e3)
            attention.distance_bias[:, distance] = 1e3
            attended, _, values = attention(x, empty, empty, torch.zeros(1, dtype=torch.int64))
            value = attention.query_key_value(attention.norm(x)).chunk(3, dim=-1)[2]
            expected = attention.output(value[:, -1 - distance])
        torch.testing.assert_close(attended[:, -1], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(values, value[:, -config.left_context :], rtol=0, atol=1e-6)


def test_heads_have_their_own_bias_and_scale(encoder: Encoder) -> None:
    """One long attention against the formula of Vaswani et al., head by head."""
    attention: Any = encoder.blocks[0].attention
    config = encoder.config.encoder
    frames, head_width = 5, config.hidden_size // config.attention_heads
    x = torch.randn(1, frames, config.hidden_size, generator=torch.Generator().manual_seed(6))
    empty = torch.zeros(1, config.left_context, config.hidden_size)
    with torch.no_grad():
        attended, _, _ = attention(x, empty, empty, torch.zeros(1, dtype=torch.int64))
        query, key, value = attention.query_key_value(attention.norm(x))[0].chunk(3, dim=-1)
        heads = []
        for head in range(config.attention_heads):
            own = slice(head * head_width, (head + 1) * head_width)
            scores = query[-1, own] @ key[:, own].T / head_width**0.5
            bias = torch.stack([attention.distance_bias[head, frames - 1 - i] for i in range(frames)])
            heads.append((scores + bias).softmax(dim=0) @ value[:, own])
        expected = attention.output(torch.cat(heads))
    torch.testing.assert_close(attended[0, -1], expected, rtol=0, atol=1e-5)


# Training


def test_dropout_is_for_training_only_and_drops_half_of_everything() -> None:
    config = SMALL_CONFIGS["no-lookahead"]
    torch.manual_seed(0)
    encoder = Encoder(config, NUM_UNITS, dropout=0.5)
    features = some_features(encoder, 40)
    dropout: Any = encoder.blocks[0].dropout
    x = torch.ones(3, 50, 201)
    dropped = dropout(x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    for others in ((1, 2), (0, 2), (0, 1)):  # of every row, every frame and every channel about half
        assert ((dropped.mean(dim=others) - 1).abs() < 0.5).all()
    assert not torch.equal(dropped, dropout(x))
    encoder.eval()
    assert torch.equal(dropout(x), x)
    assert torch.equal(whole(encoder, features), whole(encoder, features))


@pytest.mark.parametrize("seen", [0, 5, 12])
def test_windows_in_blocks_equal_windows_at_once(seen: int) -> None:
    attention = random_encoder(CONFIGS["shipped"]).blocks[0].attention
    assert isinstance(attention, WindowedAttention)
    x = torch.randn(3, 2 * TRAINING_BLOCK + 7, 128)
    keys, values = torch.randn(2, 3, attention.left_context, 128)
    frames_seen = torch.tensor([seen, 0, attention.left_context])
    at_once = attention.eval()(x, keys, values, frames_seen)
    in_blocks = attention.train()(x, keys, values, frames_seen)
    for one, other in zip(at_once, in_blocks, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_every_parameter_is_trained() -> None:
    encoder = Encoder(SMALL_CONFIGS["two-frames-a-step"], NUM_UNITS).train()
    log_probs, _ = encoder(some_features(encoder, 80, 3), encoder.initial_state(3))
    log_probs[..., 2].sum().backward()
    untouched = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched
