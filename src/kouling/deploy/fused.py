"""The encoder in the form that other people's runtimes and NPUs take: the same numbers from fewer, plainer operators.

What exporters and NPU compilers do not do by themselves is done here, each as a function of its own:

- `fold_norm`: gain and bias of a normalisation, and any factor of the output, into the linear layer behind it. Of batch
  normalisation in the place of layer normalisation nothing else is left; behind the stem and each block, where it meets
  no linear layer, a factor and a sum (`Affine`);
- `fold_batch_norm`: batch normalisation into the depthwise convolution;
- `halved`: the half with which a block takes its feed-forward modules, into weights;
- queries, keys and values are one product, and the scale of the scores lies in the queries' weights;
- `Block`: relative positions are a constant that is added, not gathered; a stream begins with silence
  (`primed_state`), so its caches are always full: no mask, no counter, no integers but indices;
- `FusedStem`: the frames of a window are input channels of one convolution over frequency. Its stride in time, which
  NPUs limit to 3, is then none at all;
- the last layer gives logits: the logarithm of a softmax is left to the caller, who may not need it.

Shapes as in `encoder.py`. A `Fused` takes a fixed number of frames: compilers of NPUs plan their memory by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kouling import encoder
from kouling.checkpoint import ModelInfo
from kouling.config import EncoderConfig
from kouling.deploy import step
from kouling.recognizer import priming

Norm = nn.LayerNorm | encoder.FrameNorm

# Queries of a long call go in blocks with the keys that they can see: the scores of all would be mostly masked.
QUERIES = 36
# A score this far below the largest of its row gets no weight that int8 could tell from none.
BELOW = 12.0
# A channel that said nothing in calibration is drawn out no further than this: it may yet speak.
FINEST = 4096.0
# What is gated may be this much larger than what comes out of the gate; where it is large the gate is mostly shut.
# Tried from 1 to 32 on three models: 4 is best for two and next to the best for the third.
LARGER = 4.0
REACHES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # of a channel's largest weight, that `cluster` tries


def fold_norm(norm: Norm, linear: nn.Linear, scale: Tensor | float = 1.0) -> tuple[nn.Module, nn.Linear]:
    """Both as one: `linear(norm(x)) * scale`, the gain and bias of the norm in the weights."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    gain, shift = gain_and_shift(norm)
    scale = torch.as_tensor(scale).expand(len(weight))
    result = nn.Linear(linear.in_features, linear.out_features)
    result.weight.data = weight * gain * scale[:, None]
    result.bias.data = (bias + weight @ shift) * scale
    return nn.Identity() if isinstance(norm, encoder.FrameNorm) else without_gain(norm), result


def without_gain(norm: nn.LayerNorm) -> nn.LayerNorm:
    return nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)


def gain_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """What a normalisation multiplies by and adds; all that batch normalisation does."""
    gain, shift = norm.weight.detach(), norm.bias.detach()
    if isinstance(norm, nn.LayerNorm):
        return gain, shift
    assert norm.running_mean is not None and norm.running_var is not None
    gain = gain / torch.sqrt(norm.running_var + norm.eps)
    return gain, shift - norm.running_mean * gain


class Affine(nn.Module):
    """(..., D) -> the same: what is left of batch normalisation where no linear layer takes it in."""

    def __init__(self, norm: encoder.FrameNorm) -> None:
        super().__init__()
        self.gain, self.shift = (nn.Parameter(values) for values in gain_and_shift(norm))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.shift


def fold_batch_norm(depthwise: nn.Conv1d, norm: nn.BatchNorm1d) -> nn.Conv1d:
    folded: nn.Conv1d = nn.utils.fuse_conv_bn_eval(depthwise, norm)
    return folded


def halved(linear: nn.Linear) -> nn.Linear:
    """Half of what a linear layer gives."""
    result = nn.Linear(linear.in_features, linear.out_features)
    result.weight.data = 0.5 * linear.weight.detach()
    result.bias.data = 0.5 * linear.bias.detach()
    return result


def _parts(linear: nn.Linear, count: int) -> list[nn.Linear]:
    """The rows of a linear layer, as layers of their own."""
    found = []
    for weight, bias in zip(linear.weight.detach().chunk(count), linear.bias.detach().chunk(count), strict=True):
        part = nn.Linear(linear.in_features, len(weight))
        part.weight.data, part.bias.data = weight.clone(), bias.clone()
        found.append(part)
    return found


class FusedFeedForward(nn.Module):
    """Half of a feed-forward module's output."""

    def __init__(self, module: encoder.FeedForward) -> None:
        super().__init__()
        self.norm, self.expand = fold_norm(module.norm, module.expand)
        self.contract = halved(module.contract)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.contract(F.silu(self.expand(self.norm(x))))
        return contracted


class Scores(nn.Module):
    """A module, so that `equalize` can watch what it gives: (B, H, N, S), (B, H, L + N, S) -> (B, H, N, L + N)."""

    def forward(self, q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        scored: Tensor = q @ k.transpose(2, 3) + bias
        return scored


class Block(nn.Module):
    """A Conformer block whose caches are full. (B, N, D), (B, L, A), (B, L, A), (B, K - 1, C) -> the same."""

    def __init__(self, block: encoder.ConformerBlock, config: EncoderConfig, frames: int) -> None:
        """frames: N, encoder frames of a call. Raises: ValueError where the attention is linear."""
        super().__init__()
        attention, convolution = block.attention, block.convolution
        if not isinstance(attention, encoder.WindowedAttention):
            raise ValueError(f"attention is {config.attention!r}; allowed for this target: windowed, local")
        self.units: Tensor
        self.bias: Tensor
        self.size = min(frames, QUERIES)
        self.left_context = config.left_context
        width, self.heads = attention.output.in_features, attention.heads
        self.feed_forward_in = FusedFeedForward(block.feed_forward_in)
        self.feed_forward_out = FusedFeedForward(block.feed_forward_out)
        scale = torch.cat([torch.full((width,), (width // self.heads) ** -0.5), torch.ones(2 * width)])
        self.query_key_value = nn.Sequential(*fold_norm(attention.norm, attention.query_key_value, scale))
        full = torch.tensor([config.left_context])
        self.register_buffer("bias", attention.window_bias(self.size, full).detach(), persistent=False)
        self.scores = Scores()
        self.output = attention.output
        # Two products: a sigmoid's input and what it gates have ranges of their own.
        self.gate_norm, gate = fold_norm(convolution.norm, convolution.gate)
        self.gate_value, self.gate = _parts(gate, 2)
        self.register_buffer("units", torch.ones(self.gate.out_features), persistent=False)  # see `equalize`
        self.depthwise = fold_batch_norm(convolution.depthwise, convolution.batch_norm)
        self.pointwise = convolution.output
        self.norm = Affine(block.norm) if isinstance(block.norm, encoder.FrameNorm) else block.norm

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        new = x.shape[1]
        x = x + self.feed_forward_in(x)
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        keys, values = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)
        q, k, v = (encoder.split_heads(t, self.heads) for t in (query, keys, values))
        attended = [self.attend(q, k, v, start) for start in range(0, new, self.size)]
        x = x + self.output(encoder.join_heads(attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)))
        normal = self.gate_norm(x)
        frames = torch.cat([past, self.gate_value(normal) * self.gate(normal).sigmoid()], dim=1)
        convolved = self.depthwise(frames.transpose(1, 2)).transpose(1, 2)
        x = x + self.pointwise(F.silu(convolved))
        x = self.norm(x + self.feed_forward_out(x))
        return x, keys[:, new:], values[:, new:], frames[:, new:]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        """(B, H, ., A / H): the queries from `start` against the keys that they can see."""
        q = q[:, :, start : start + self.size]
        seen = slice(start, start + q.shape[2] + self.left_context)
        bias = self.bias[:, :, : q.shape[2], : q.shape[2] + self.left_context]
        weights: Tensor = self.scores(q, k[:, :, seen], bias).softmax(dim=-1)
        return weights @ v[:, :, seen]


class FusedStem(nn.Module):
    """(B, T, M), (B, lookahead, M) -> (B, N, D), the last feature frames."""

    def __init__(self, stem: encoder.Stem, config: EncoderConfig) -> None:
        super().__init__()
        self.hop, self.context = config.subsampling, config.lookahead
        weight = stem.patch.weight.detach()  # (C, 1, window, 5)
        self.patch = nn.Conv2d(weight.shape[2], weight.shape[0], (1, 5), stride=(1, 2), padding=(0, 2))
        self.patch.load_state_dict({"weight": weight.transpose(1, 2), "bias": stem.patch.state_dict()["bias"]})
        self.deepen, self.mix, self.project = stem.deepen, stem.mix, stem.project
        self.norm = Affine(stem.norm) if isinstance(stem.norm, encoder.FrameNorm) else stem.norm

    def forward(self, features: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        frames = torch.cat([tail, features], dim=1)
        count = features.shape[1] // self.hop
        if count == 1:
            windows = frames[:, :, None]  # (B, window, 1, M)
        else:
            shifts = range(self.hop + self.context)
            last = (count - 1) * self.hop + 1
            windows = torch.stack([frames[:, shift : shift + last : self.hop] for shift in shifts], dim=1)
        x = F.silu(self.patch(windows))  # (B, C, N, M / 2)
        for layer in self.deepen:
            x = x + F.silu(layer(x))
        x = F.silu(self.mix(x))  # (B, C, N, M / 4)
        x = self.project(x.transpose(1, 2).flatten(2))
        return self.norm(x), frames[:, frames.shape[1] - self.context :]


class Fused(nn.Module):
    """features (B, T, M), state tensors -> logits (B, N, V), next state tensors; no structure left, as exporters want
    it. The state is that of `step.flatten` without its last tensor, the counter."""

    def __init__(self, whole: encoder.Encoder, frames: int) -> None:
        """frames: T, feature frames of a call. Raises: ValueError where the model's attention is linear, or T is no
        multiple of its subsampling."""
        super().__init__()
        config = whole.config.encoder
        if frames < 1 or frames % config.subsampling:
            raise ValueError(f"frames is {frames}; allowed: multiples of {config.subsampling}, the subsampling")
        self.stem, self.head = FusedStem(whole.stem, config), whole.head
        each = frames // config.subsampling
        self.layers = [Block(b, config, each) for b in whole.blocks if isinstance(b, encoder.ConformerBlock)]
        self.blocks = nn.ModuleList(self.layers)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x, tail = self.stem(features, state[0])
        following = [tail]
        for index, block in enumerate(self.layers):
            x, *caches = block(x, *state[1 + 3 * index : 4 + 3 * index])
            following += caches
        return self.head(x), *following


def primed_state(info: ModelInfo, whole: encoder.Encoder, module: Fused | None = None) -> list[Tensor]:
    """What a stream remembers after the silence with which it begins (`DecoderConfig.priming_s`); all caches are full.

    module: the form that takes it, if it was equalised.

    Raises: ValueError where that silence is too short to fill them.
    """
    config = info.config.encoder
    before = priming(info)
    frames = len(before) // config.subsampling
    if frames < config.left_context:
        raise ValueError(f"a stream begins with {frames} encoder frames of silence; allowed: {config.left_context} up")
    with torch.no_grad():
        state = whole(torch.from_numpy(before)[None], whole.initial_state())[1]
    tensors = [tensor.clone().contiguous() for tensor in step.flatten(state)[:-1]]
    for index, block in enumerate(module.layers if module else []):
        tensors[3 + 3 * index].div_(block.units)
    return tensors


@torch.no_grad()
def equalize(module: Fused, calls: Iterable[Sequence[Tensor]]) -> None:
    """Give the channels of every convolution like ranges, in place; the logits stay what they are. int8 has one scale
    for a whole tensor, and of a channel a hundred times smaller than the largest nothing would be left (cross-layer
    equalisation, Nagel et al. 2019, arXiv:1906.04721, section 4.1): what a channel is divided by before it is cached,
    its taps are multiplied by. For the same reason keys outside the window of a query get no more below the others
    than it takes for them to have no weight.

    calls: inputs of representative calls, each with the state that it meets, of the module as it is. The convolutions'
    own part of the state is in `Block.units` afterwards, which `primed_state` knows.
    """
    values = [torch.zeros(len(block.units)) for block in module.layers]
    gated = [torch.zeros(len(block.units)) for block in module.layers]
    spans = [Span() for block in module.layers]
    hooks = []
    for index, block in enumerate(module.layers):
        hooks.append(block.scores.register_forward_hook(spans[index].watch))
        hooks.append(block.gate_value.register_forward_hook(_keep_largest(values[index])))
        hooks.append(block.depthwise.register_forward_pre_hook(_keep_largest_given(gated[index])))
    try:
        for inputs in calls:
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for block, value, product, span in zip(module.layers, values, gated, spans, strict=True):
        block.bias.clamp_(min=span.outside)
        factor = torch.maximum(product, value / LARGER)
        factor = factor.clamp(min=factor.max() / FINEST)
        block.units.mul_(factor)
        block.gate_value.weight.div_(factor[:, None])
        block.gate_value.bias.div_(factor)
        block.depthwise.weight.mul_(factor[:, None, None])


@torch.no_grad()
def cluster(module: nn.Module, levels: int) -> None:
    """Let each output channel of the linear layers use `levels` evenly spaced weights, in place. As int8 these are the
    same few numbers in every channel, which compilers of NPUs store as indices: 31 of them in 5 bits, 15 in 4. An NPU
    that waits for its weights is faster for it.
    """
    most = levels // 2
    for layer in module.modules():
        if not isinstance(layer, nn.Linear):
            continue
        weight = layer.weight
        widest = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        best, least = weight.clone(), torch.full_like(widest, torch.inf)
        for reach in REACHES:  # what lies beyond is cut off, so that the rest is rounded more finely
            unit = widest * reach / most
            rounded = (weight / unit).round().clamp(-most, most) * unit
            error = (rounded - weight).square().sum(dim=1, keepdim=True)
            best, least = torch.where(error < least, rounded, best), torch.minimum(error, least)
        weight.copy_(best)


class Span:
    """What the scores of a block reach, with -1e4 outside the window."""

    def __init__(self) -> None:
        # Of all scores, without what is added to them; of the largest of each row.
        self.largest, self.least_top = float("-inf"), float("inf")

    def watch(self, module: nn.Module, given: Any, scores: Tensor) -> None:
        self.largest = max(self.largest, float((scores - given[2]).max()))
        self.least_top = min(self.least_top, float(scores.amax(dim=-1).min()))

    @property
    def outside(self) -> float:
        """What is added outside the window: a key there scores at most `largest` by itself."""
        return self.least_top - self.largest - BELOW


def _keep_largest(kept: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
    """A hook that keeps the largest output (1, N, C) of each channel."""

    def hook(module: nn.Module, given: Any, result: Tensor) -> None:
        torch.maximum(kept, result.abs().amax(dim=(0, 1)), out=kept)

    return hook


def _keep_largest_given(kept: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that keeps the largest input (1, C, N) of each channel."""

    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        torch.maximum(kept, given[0].abs().amax(dim=(0, 2)), out=kept)

    return hook
