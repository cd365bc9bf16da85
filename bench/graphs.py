"""The encoder as the peers get it: the numbers of `kouling.encoder`, and all folded that the engine's packer folds.

Gains and biases of normalisations go into the linear layers behind them, batch normalisation into the depthwise
convolution, the half of the feed-forward modules and the scale of the scores into weights. A stream begins with four
seconds of silence (`priming_s`), so its caches are always full: the mask of the unfilled slots falls away, and the bias
of the window is a constant. Exporters fold little of this by themselves, and every runtime gains from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kouling import audio, encoder, recognizer
from kouling.checkpoint import ModelInfo
from kouling.config import EncoderConfig
from kouling.deploy import step
from kouling.features import LogMel
from kouling.recognizer import overlay_decoder

Floats = NDArray[np.float32]

# Queries of a long call go in blocks with the keys that they can see: the scores of all would be mostly masked.
QUERIES = 36


def folded(norm: nn.LayerNorm, linear: nn.Linear, scale: Tensor | float = 1.0) -> nn.Sequential:
    """Both as one: `linear(norm(x)) * scale`, the gain and bias of the norm in the weights."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    scale = torch.as_tensor(scale).expand(len(weight))
    result = nn.Linear(linear.in_features, linear.out_features)
    result.weight.data = weight * norm.weight.detach() * scale[:, None]
    result.bias.data = (bias + weight @ norm.bias.detach()) * scale
    return nn.Sequential(nn.LayerNorm(linear.in_features, norm.eps, elementwise_affine=False), result)


def feed_forward(module: encoder.FeedForward) -> nn.Sequential:
    """The half with which the block takes it is in its weights."""
    contract = nn.Linear(module.contract.in_features, module.contract.out_features)
    contract.weight.data = 0.5 * module.contract.weight.detach()
    contract.bias.data = 0.5 * module.contract.bias.detach()
    return nn.Sequential(*folded(module.norm, module.expand), nn.SiLU(), contract)


class Block(nn.Module):
    """A Conformer block whose caches are full. (B, N, D), (B, L, A), (B, L, A), (B, K - 1, C) -> the same."""

    def __init__(self, block: encoder.ConformerBlock, config: EncoderConfig, frames: int) -> None:
        """frames: N, encoder frames of a call."""
        super().__init__()
        self.size = min(frames, QUERIES)
        self.left_context = config.left_context
        attention, convolution = block.attention, block.convolution
        if not isinstance(attention, encoder.WindowedAttention):
            raise ValueError(f"attention is {config.attention!r}; the peers get: windowed, local")
        width, heads = attention.output.in_features, attention.heads
        self.heads = heads
        self.feed_forward_in = feed_forward(block.feed_forward_in)
        self.feed_forward_out = feed_forward(block.feed_forward_out)
        scale = torch.cat([torch.full((width,), (width // heads) ** -0.5), torch.ones(2 * width)])
        self.query_key_value = folded(attention.norm, attention.query_key_value, scale)
        full = torch.tensor([config.left_context])
        self.register_buffer("bias", attention.window_bias(self.size, full).detach(), persistent=False)
        self.output = attention.output
        self.gate = folded(convolution.norm, convolution.gate)
        self.depthwise = nn.utils.fuse_conv_bn_eval(convolution.depthwise, convolution.batch_norm)
        taps = self.depthwise.weight.detach()[:, 0].T[None].contiguous()  # (1, K, C)
        self.register_buffer("taps", taps if frames == 1 else None, persistent=False)
        self.pointwise = convolution.output
        self.norm = block.norm

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        new = x.shape[1]
        x = x + self.feed_forward_in(x)
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        keys, values = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)
        q, k, v = (t.view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2) for t in (query, keys, values))
        attended = [self.attend(q, k, v, start) for start in range(0, new, self.size)]
        joined = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        x = x + self.output(joined.transpose(1, 2).flatten(2))
        frames = torch.cat([past, F.glu(self.gate(x))], dim=1)
        x = x + self.pointwise(F.silu(self.convolve(frames)))
        x = self.norm(x + self.feed_forward_out(x))
        return x, keys[:, new:], values[:, new:], frames[:, new:]

    def convolve(self, frames: Tensor) -> Tensor:
        """(B, K - 1 + N, C) -> (B, N, C). Of one frame as a sum: up to a third off a step."""
        if self.taps is not None:
            return (frames * self.taps).sum(dim=1, keepdim=True) + self.depthwise.bias
        convolved: Tensor = self.depthwise(frames.transpose(1, 2)).transpose(1, 2)
        return convolved

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        """(B, H, ., A / H): the queries from `start` against the keys that they can see."""
        q = q[:, :, start : start + self.size]
        seen = slice(start, start + q.shape[2] + self.left_context)
        bias = self.bias[:, :, : q.shape[2], : q.shape[2] + self.left_context]
        return (q @ k[:, :, seen].transpose(2, 3) + bias).softmax(dim=-1) @ v[:, :, seen]


class Step(nn.Module):
    """features (1, T, M), state tensors -> log-probabilities, next state tensors."""

    def __init__(self, whole: encoder.Encoder, frames: int) -> None:
        """frames: T, feature frames of a call."""
        super().__init__()
        config = whole.config.encoder
        self.stem, self.head = whole.stem, whole.head
        self.blocks = nn.ModuleList(Block(block, config, frames // config.subsampling) for block in whole.blocks)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x, tail = self.stem(features, state[0])
        following = [tail]
        for index, block in enumerate(self.blocks):
            x, *caches = block(x, *state[1 + 3 * index : 4 + 3 * index])
            following += caches
        return F.log_softmax(self.head(x), dim=-1), *following


class Whole(nn.Module):
    """features (1, T, M) -> log-probabilities, from the state with which a stream begins, which is a constant."""

    def __init__(self, step: Step, state: list[Tensor]) -> None:
        super().__init__()
        self.step = step
        for index, tensor in enumerate(state):
            self.register_buffer(f"state{index}", tensor, persistent=False)
        self.size = len(state)

    def forward(self, features: Tensor) -> Tensor:
        return self.step(features, *(getattr(self, f"state{index}") for index in range(self.size)))[0]


@dataclass(frozen=True)
class Graph:
    """One thing to be measured: a model on a number of feature frames a call."""

    model: str
    kind: str  # "step", "300", "500"
    frames: int  # T of a call
    module: nn.Module
    inputs: list[Tensor]  # the first ones: features, then the state with which a stream begins
    speech: Floats  # (calls * T, M)
    expected: Floats  # (calls, N, V) of PyTorch in float32

    @property
    def name(self) -> str:
        return f"{self.model} {self.kind}"


def load(model: str, speech: Floats) -> tuple[ModelInfo, list[Graph]]:
    """The graphs of a shipped model and what PyTorch makes of the speech, (frames, M)."""
    info, whole = step.load(recognizer.MODELS / model / "model.safetensors")
    config = info.config.encoder
    step_size = config.streaming_step_size
    with torch.inference_mode():
        silence = round(overlay_decoder(info).priming_s * 100) // step_size * step_size
        primed = whole(torch.zeros(1, silence, speech.shape[1]), whole.initial_state())[1]
        assert int(primed.frames_seen) == config.left_context
    # Out of inference mode, for the exporters.
    state = [tensor.clone().contiguous() for tensor in step.flatten(primed)[:-1]]
    graphs = []
    for kind in ("step", "300", "500"):
        frames = step_size if kind == "step" else -(-int(kind) // step_size) * step_size
        calls = len(speech) // frames if kind == "step" else 1
        features = torch.from_numpy(speech[: calls * frames])[None]
        with torch.inference_mode():
            expected = whole(features, primed)[0].numpy().reshape(calls, -1, len(info.units))
        folded_step = Step(whole, frames).eval()
        module = folded_step if kind == "step" else Whole(folded_step, state).eval()
        inputs = [features[:, :frames].clone(), *(state if kind == "step" else [])]
        graphs.append(Graph(model, kind, frames, module, inputs, features[0].numpy(), expected))
    return info, graphs


def speech(examples: Path) -> Floats:
    """(frames, M) the features of the English example recordings, one behind the other."""
    samples = np.concatenate([audio.read(path) for path in sorted(examples.glob("en-*.ogg"))])
    info, _ = step.load(recognizer.MODELS / "en-base" / "model.safetensors")
    return LogMel(info.config.features).accept(samples)


def signal_to_noise_db(expected: Floats, found: Floats) -> float:
    """Of the log-probabilities found, against those expected."""
    signal, noise = np.square(expected, dtype=np.float64).sum(), np.square(found - expected, dtype=np.float64).sum()
    return float(10 * np.log10(signal / max(noise, 1e-30)))
