"""The streaming Conformer encoder (Gulati et al. 2020, arXiv:2005.08100), bottom-up.

Shapes: B batch, T feature frames (10 ms), N encoder frames, M mels, D hidden size, H heads, L left context in encoder
frames, K convolution kernel, V units.

What is remembered between calls is one explicit `EncoderState`, an argument and a result; nothing is kept on a module.
There is one `forward`: a whole utterance is one long step from `initial_state`. Every module looks only at the past;
the lookahead lies in the stem, whose window reaches `lookahead` feature frames beyond the encoder frame it makes.
Output frame n therefore belongs to the feature frames from `n * subsampling - lookahead`, and a caller who wants the
last frames of an utterance feeds `lookahead` frames of silence (zeros) behind it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kouling.config import BlockShape, Config, EncoderConfig

# Queries whose windows are computed at once in training: the scores of a whole scene would be mostly masked.
TRAINING_BLOCK = 36


class BlockState(NamedTuple):
    """What one Conformer block remembers. All zero at the start. A is the width of its attention, C of its convolution:
    D, where nothing was pruned."""

    keys: Tensor  # (B, L, A), newest last; of linear attention the sum of keys (B, 1, A)
    values: Tensor  # (B, L, A); of linear attention the sum of keys times values (B, A / H, A)
    conv: Tensor  # (B, K - 1, C), inputs of the depthwise convolution


class EncoderState(NamedTuple):
    stem: Tensor  # (B, lookahead, M), the last feature frames
    blocks: tuple[BlockState, ...]
    frames_seen: Tensor  # (B,) int64, encoder frames in the caches; stops counting at L


class Window(NamedTuple):
    """What a forward may look at where it is less than the model could: one training then serves shorter memories and
    less delay. Tensors, not numbers, so that a compiled model is not compiled anew for each."""

    left_context: Tensor  # () int64, encoder frames, 1 to L
    lookahead: Tensor  # () int64, feature frames, 0 to the model's own


class FrameNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) of each channel over all frames, in the place of
    layer normalisation: once trained it is a factor and a sum that disappear in the weights behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return super().forward(x.flatten(0, 1)).view(x.shape)


def normalization(config: EncoderConfig) -> nn.LayerNorm | FrameNorm:
    """Of frames, as `EncoderConfig.norm` has it."""
    return FrameNorm(config.hidden_size) if config.norm == "batch" else nn.LayerNorm(config.hidden_size)


class Stem(nn.Module):
    """Log-mel frames to encoder frames: one time-frequency convolution over a window, one over frequency, a projection.

    The window is `subsampling + lookahead` feature frames, the hop `subsampling`, so this module alone sets the rate
    and the lookahead, for any subsampling factor.
    """

    def __init__(self, config: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.context = config.lookahead
        window = config.subsampling + config.lookahead
        channels = config.stem_channels
        self.patch = nn.Conv2d(1, channels, (window, 5), stride=(config.subsampling, 2), padding=(0, 2))
        self.deepen = nn.ModuleList(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1)) for _ in range(config.stem_layers)
        )
        self.mix = nn.Conv2d(channels, channels, (1, 3), stride=(1, 2), padding=(0, 1))
        # Nothing, unless training puts a normalisation behind each convolution; it is gone when a model is saved.
        self.batch_norms = nn.ModuleList(nn.Identity() for _ in range(config.stem_layers + 2))
        self.project = nn.Linear(channels * (num_mels // 4), config.hidden_size)
        self.norm = normalization(config)

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """By name, in the order in which they run."""
        further = {f"deepen.{i}": layer for i, layer in enumerate(self.deepen) if isinstance(layer, nn.Conv2d)}
        return {"patch": self.patch, **further, "mix": self.mix}

    def forward(self, features: Tensor, tail: Tensor, lookahead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """features: (B, T, M), tail: (B, context, M) -> (B, T / subsampling, D), new tail.

        lookahead: that of a `Window`.
        """
        frames = torch.cat([tail, features], dim=1)
        first, *further, last = self.batch_norms
        x = F.silu(first(self.look(frames[:, None], lookahead)))  # (B, C, N, M / 2)
        for layer, norm in zip(self.deepen, further, strict=True):
            x = x + F.silu(norm(layer(x)))
        x = F.silu(last(self.mix(x)))  # (B, C, N, M / 4)
        x = self.project(x.transpose(1, 2).flatten(2))
        return self.norm(x), frames[:, frames.shape[1] - self.context :]

    def look(self, frames: Tensor, lookahead: Tensor | None) -> Tensor:
        """(B, 1, context + T, M) -> (B, C, N, M / 2). Frames behind the lookahead are taken to be like the last one in
        it: the weights for them are added to its own, which is the same and what a shorter window can hold."""
        if lookahead is None:
            patched: Tensor = self.patch(frames)
            return patched
        weight = self.patch.weight
        tap = torch.arange(weight.shape[2], device=weight.device)
        last = weight.shape[2] - 1 - self.context + lookahead
        moved = (tap[:, None].minimum(last) == tap).to(weight.dtype)  # (window, window): from tap, to tap
        weight = torch.einsum("cifm,ft->citm", weight, moved)
        return F.conv2d(frames, weight, self.patch.bias, self.patch.stride, self.patch.padding)


class FeedForward(nn.Module):
    """Pre-norm feed-forward module; the caller adds half of its output (Gulati et al. 2020, section 2.3)."""

    def __init__(self, config: EncoderConfig, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = normalization(config)
        self.expand = nn.Linear(config.hidden_size, inner)
        self.contract = nn.Linear(inner, config.hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.contract(self.dropout(F.silu(self.expand(self.norm(x)))))
        return contracted


class WindowedAttention(nn.Module):
    """Self-attention over a frame and the `left_context` frames before it, with a learned bias per head and distance.

    A bias for every distance in the window (Raffel et al. 2020, arXiv:1910.10683, without their buckets) needs no
    absolute position, so a stream can go on for ever.
    """

    def __init__(self, config: EncoderConfig, shape: BlockShape) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = shape.heads
        self.left_context = config.left_context
        self.norm = normalization(config)
        self.query_key_value = nn.Linear(width, 3 * shape.attention_width)
        self.output = nn.Linear(shape.attention_width, width)
        self.distance_bias = nn.Parameter(torch.zeros(self.heads, self.left_context + 1))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, frames_seen: Tensor, farthest: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, N, D), keys and values: (B, L, A), frames_seen: (B,) -> (B, N, D), new keys, new values.

        farthest: the left context of a `Window`.
        """
        query, key, value = self.query_key_value(self.norm(x)).chunk(3, dim=-1)
        keys, values = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)  # (B, L + N, A)
        new = x.shape[1]
        size = TRAINING_BLOCK if self.training and not x.is_cuda else new  # to a GPU, launches cost more than scores
        attended = [
            self.attend(
                query[:, start : start + size],
                keys[:, start : start + size + self.left_context],
                values[:, start : start + size + self.left_context],
                frames_seen + start,
                farthest,
            )
            for start in range(0, new, size)
        ]
        joined = attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)
        return self.output(joined), keys[:, new:], values[:, new:]

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, frames_seen: Tensor, farthest: Tensor | None = None
    ) -> Tensor:
        """query: (B, N, A), keys and values: (B, L + N, A), frames_seen: (B,) before the first query -> (B, N, A)."""
        q, k, v = (split_heads(tensor, self.heads) for tensor in (query, keys, values))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + self.window_bias(query.shape[1], frames_seen, farthest)
        return join_heads(scores.softmax(dim=-1) @ v)

    def window_bias(self, num_frames: int, frames_seen: Tensor, farthest: Tensor | None = None) -> Tensor:
        """(B, H, N, L + N) to be added to the scores: the bias of each distance, and -1e4 outside the window.

        Not -inf: half-precision and int8 runtimes turn it into NaN.
        """
        device = frames_seen.device
        slot = torch.arange(self.left_context + num_frames, device=device)  # slot L is the first new frame
        row = torch.arange(num_frames, device=device)[:, None]
        distance = row + self.left_context - slot  # (N, L + N)
        inside = (distance >= 0) & (distance <= (self.left_context if farthest is None else farthest))
        bias = self.distance_bias[:, distance.clamp(0, self.left_context)]  # (H, N, L + N)
        bias = bias.masked_fill(~inside, -1e4)
        filled = slot >= self.left_context - frames_seen[:, None]  # (B, L + N)
        return bias[None].masked_fill(~filled[:, None, None], -1e4)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, A) -> (B, H, T, A / H)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class LinearAttention(nn.Module):
    """Self-attention without a softmax (Katharopoulos et al. 2020, arXiv:2006.16236, eqs. 6 and 7, elu + 1), whose sums
    over the past fade by a learned factor per head and frame (as in retention, Sun et al. 2023, arXiv:2307.08621).

    What it remembers is two sums of constant size, so neither memory nor a step knows how long the context is.
    """

    def __init__(self, config: EncoderConfig, shape: BlockShape) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = shape.heads
        self.norm = normalization(config)
        self.query_key_value = nn.Linear(width, 3 * shape.attention_width)
        self.output = nn.Linear(shape.attention_width, width)
        # What is left of a frame after the next, as a logit: from 0.8 to nearly all, as heads of retention begin.
        self.decay = nn.Parameter(torch.linspace(1.4, 4.2, shape.heads))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, frames_seen: Tensor, farthest: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, N, D), keys: (B, 1, A), values: (B, A / H, A) -> (B, N, D), new keys, new values.

        frames_seen, farthest: of no meaning here; both attentions are called alike.
        """
        q, k, v = (split_heads(part, self.heads) for part in self.query_key_value(self.norm(x)).chunk(3, dim=-1))
        q, k, v = (F.elu(q.float()) + 1, F.elu(k.float()) + 1, v.float())
        key_sum, sums = split_heads(keys, self.heads), split_heads(values, self.heads)  # (B, H, 1, S), (B, H, S, S)
        attended = []
        size = TRAINING_BLOCK if self.training else x.shape[1]  # in training the cost stays linear in N
        for start in range(0, x.shape[1], size):
            part = slice(start, start + size)
            made, key_sum, sums = self.attend(q[:, :, part], k[:, :, part], v[:, :, part], key_sum, sums)
            attended.append(made)
        joined = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        return self.output(join_heads(joined)), join_heads(key_sum), join_heads(sums)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, key_sum: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v: (B, H, N, S), key_sum: (B, H, 1, S), sums: (B, H, S, S) -> (B, H, N, S), new key_sum, new sums."""
        frames = torch.arange(q.shape[2], device=q.device)
        fading = F.logsigmoid(self.decay.float())[:, None, None]  # (H, 1, 1)
        distance = frames[:, None] - frames
        kept = (fading * distance).exp().masked_fill(distance < 0, 0.0)  # (H, N, N)
        since = (fading * (frames[:, None] + 1)).exp()  # (H, N, 1) of what is before
        scores = q @ k.transpose(2, 3) * kept
        total = scores.sum(dim=3, keepdim=True) + (q * since) @ key_sum.transpose(2, 3)
        attended = (scores @ v + (q * since) @ sums) / total
        left = (fading * (q.shape[2] - 1 - frames[:, None])).exp()  # (H, N, 1) of each frame at the end
        last = since[:, -1:]
        faded = k * left
        return attended, key_sum * last + faded.sum(dim=2, keepdim=True), sums * last + faded.transpose(2, 3) @ v


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, S) -> (B, T, H * S)."""
    return x.transpose(1, 2).flatten(2)


class Convolution(nn.Module):
    """Convolution module with a causal depthwise convolution (Gulati et al. 2020, section 2.2)."""

    def __init__(self, config: EncoderConfig, channels: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm = normalization(config)
        self.gate = nn.Linear(width, 2 * channels)
        self.depthwise = nn.Conv1d(channels, channels, config.conv_kernel_size, groups=channels)
        self.batch_norm = nn.BatchNorm1d(channels)
        self.output = nn.Linear(channels, width)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, N, D), past: (B, K - 1, C) -> (B, N, D), new past."""
        frames = torch.cat([past, F.glu(self.gate(self.norm(x)))], dim=1)
        y = F.silu(self.batch_norm(self.depthwise(frames.transpose(1, 2))))
        return self.output(y.transpose(1, 2)), frames[:, x.shape[1] :]


class ConformerBlock(nn.Module):
    def __init__(self, config: EncoderConfig, shape: BlockShape, dropout: float) -> None:
        super().__init__()
        attention = LinearAttention if config.attention == "linear" else WindowedAttention
        self.feed_forward_in = FeedForward(config, shape.ffn_in, dropout)
        self.attention = attention(config, shape)
        self.convolution = Convolution(config, shape.channels)
        self.feed_forward_out = FeedForward(config, shape.ffn_out, dropout)
        self.norm = normalization(config)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, state: BlockState, frames_seen: Tensor, farthest: Tensor | None = None
    ) -> tuple[Tensor, BlockState]:
        """x: (B, N, D) -> (B, N, D), new state. farthest: the left context of a `Window`."""
        x = x + 0.5 * self.feed_forward_in(x)
        attended, keys, values = self.attention(x, state.keys, state.values, frames_seen, farthest)
        x = x + self.dropout(attended)
        convolved, conv = self.convolution(x, state.conv)
        x = x + self.dropout(convolved)
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm(x), BlockState(keys, values, conv)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014), its probability rounded to 1/256: one random number serves eight elements,
    which takes a third off a training step on a CPU."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(256 * probability)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return x
        numbers = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), device=x.device)
        keep = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * keep * (256 / (256 - self.dropped))


class Encoder(nn.Module):
    """Features in, CTC log-probabilities over units out."""

    def __init__(self, config: Config, num_units: int, dropout: float = 0.0) -> None:
        """num_units: V, blank included. dropout: in training only."""
        super().__init__()
        self.config = config
        self.num_units = num_units
        self.stem = Stem(config.encoder, config.features.num_mels)
        self.blocks = nn.ModuleList(ConformerBlock(config.encoder, shape, dropout) for shape in config.encoder.blocks)
        self.head = nn.Linear(config.encoder.hidden_size, num_units)

    def initial_state(self, batch_size: int = 1) -> EncoderState:
        encoder = self.config.encoder
        reference = self.head.weight

        def zeros(frames: int, width: int) -> Tensor:
            return torch.zeros(batch_size, frames, width, dtype=torch.float32, device=reference.device)

        linear = encoder.attention == "linear"
        rows = (1, encoder.head_size) if linear else (encoder.left_context, encoder.left_context)
        blocks = tuple(
            BlockState(
                keys=zeros(rows[0], shape.attention_width),
                values=zeros(rows[1], shape.attention_width),
                conv=zeros(encoder.conv_kernel_size - 1, shape.channels),
            )
            for shape in encoder.blocks
        )
        return EncoderState(
            stem=zeros(encoder.lookahead, self.config.features.num_mels),
            blocks=blocks,
            frames_seen=torch.zeros(batch_size, dtype=torch.int64, device=reference.device),
        )

    def forward(
        self, features: Tensor, state: EncoderState, window: Window | None = None
    ) -> tuple[Tensor, EncoderState]:
        """features: (B, T, M), T a multiple of the subsampling -> log-probabilities (B, N, V), new state.

        window: what may be looked at, where it is less than all; in training (`training.varying_cached`).
        """
        farthest, lookahead = (None, None) if window is None else window
        x, tail = self.stem(features, state.stem, lookahead)
        blocks = []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            x, block_state = block(x, block_state, state.frames_seen, farthest)
            blocks.append(block_state)
        frames_seen = (state.frames_seen + x.shape[1]).clamp(max=self.config.encoder.left_context)
        log_probs = F.log_softmax(self.head(x).float(), dim=-1)
        return log_probs, EncoderState(tail, tuple(blocks), frames_seen)
