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

from kouling.config import Config, EncoderConfig

# Queries whose windows are computed at once in training: the scores of a whole scene would be mostly masked.
TRAINING_BLOCK = 36


class BlockState(NamedTuple):
    """What one Conformer block remembers. All zero at the start."""

    keys: Tensor  # (B, L, D), newest last
    values: Tensor  # (B, L, D)
    conv: Tensor  # (B, K - 1, D), inputs of the depthwise convolution


class EncoderState(NamedTuple):
    stem: Tensor  # (B, lookahead, M), the last feature frames
    blocks: tuple[BlockState, ...]
    frames_seen: Tensor  # (B,) int64, encoder frames in the caches; stops counting at L


class Window(NamedTuple):
    """What a forward may look at where it is less than the model could: one training then serves shorter memories and
    less delay. Tensors, not numbers, so that a compiled model is not compiled anew for each."""

    left_context: Tensor  # () int64, encoder frames, 1 to L
    lookahead: Tensor  # () int64, feature frames, 0 to the model's own


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
        self.project = nn.Linear(channels * (num_mels // 4), config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, features: Tensor, tail: Tensor, lookahead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """features: (B, T, M), tail: (B, context, M) -> (B, T / subsampling, D), new tail.

        lookahead: that of a `Window`.
        """
        frames = torch.cat([tail, features], dim=1)
        x = F.silu(self.look(frames[:, None], lookahead))  # (B, C, N, M / 2)
        for layer in self.deepen:
            x = x + F.silu(layer(x))
        x = F.silu(self.mix(x))  # (B, C, N, M / 4)
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

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.contract(self.dropout(F.silu(self.expand(self.norm(x)))))
        return contracted


class WindowedAttention(nn.Module):
    """Self-attention over a frame and the `left_context` frames before it, with a learned bias per head and distance.

    A bias for every distance in the window (Raffel et al. 2020, arXiv:1910.10683, without their buckets) needs no
    absolute position, so a stream can go on for ever.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.attention_heads
        self.left_context = config.left_context
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.distance_bias = nn.Parameter(torch.zeros(self.heads, self.left_context + 1))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, frames_seen: Tensor, farthest: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, N, D), keys and values: (B, L, D), frames_seen: (B,) -> (B, N, D), new keys, new values.

        farthest: the left context of a `Window`.
        """
        query, key, value = self.query_key_value(self.norm(x)).chunk(3, dim=-1)
        keys, values = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)  # (B, L + N, D)
        new = x.shape[1]
        size = TRAINING_BLOCK if self.training else new
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
        """query: (B, N, D), keys and values: (B, L + N, D), frames_seen: (B,) before the first query -> (B, N, D)."""
        q, k, v = (self.split_heads(tensor) for tensor in (query, keys, values))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + self.window_bias(query.shape[1], frames_seen, farthest)
        attended: Tensor = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return attended

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

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


class Convolution(nn.Module):
    """Convolution module with a causal depthwise convolution (Gulati et al. 2020, section 2.2)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, config.conv_kernel_size, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, N, D), past: (B, K - 1, D) -> (B, N, D), new past."""
        frames = torch.cat([past, F.glu(self.gate(self.norm(x)))], dim=1)
        y = F.silu(self.batch_norm(self.depthwise(frames.transpose(1, 2))))
        return self.output(y.transpose(1, 2)), frames[:, x.shape[1] :]


class ConformerBlock(nn.Module):
    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        width = config.hidden_size
        inner = width * config.ffn_expansion
        self.feed_forward_in = FeedForward(width, inner, dropout)
        self.attention = WindowedAttention(config)
        self.convolution = Convolution(config)
        self.feed_forward_out = FeedForward(width, inner, dropout)
        self.norm = nn.LayerNorm(width)
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
        self.blocks = nn.ModuleList(ConformerBlock(config.encoder, dropout) for _ in range(config.encoder.layers))
        self.head = nn.Linear(config.encoder.hidden_size, num_units)

    def initial_state(self, batch_size: int = 1) -> EncoderState:
        encoder = self.config.encoder
        reference = self.head.weight

        def zeros(frames: int, width: int) -> Tensor:
            return torch.zeros(batch_size, frames, width, dtype=torch.float32, device=reference.device)

        block = BlockState(
            keys=zeros(encoder.left_context, encoder.hidden_size),
            values=zeros(encoder.left_context, encoder.hidden_size),
            conv=zeros(encoder.conv_kernel_size - 1, encoder.hidden_size),
        )
        return EncoderState(
            stem=zeros(encoder.lookahead, self.config.features.num_mels),
            blocks=(block,) * encoder.layers,
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
