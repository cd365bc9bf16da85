"""What a call of the encoder takes, counted from the configuration alone: memory, multiply-accumulates, bytes moved.

`in_float32` follows `encoder.py` operation by operation: the least that a runtime takes that frees what is no longer
read and fuses nothing. PyTorch and ONNX Runtime take more, for copies, packed weights and pools of their own; what they
really take is measured (`memory.py`). The engine's own plan, which holds to the byte, is in `arena.py`.

Letters as in `encoder.py`: T feature frames, N encoder frames, L left context, K kernel, D width, H heads, M mels, C
channels, V units. Batch 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from kouling.config import BlockShape, Config, exact_div

FLOAT_BYTES = 4
STATE, IO, ACTIVATION = "state", "input and output", "activations"


@dataclass(frozen=True)
class Operation:
    """One pass over memory. Of a layer: `block` 0 is none, then the blocks; `part` is "stem", "attention", ..."""

    block: int
    part: str
    name: str
    weight_bytes: int
    macs: int
    moved_bytes: int  # what it reads and writes besides weights

    @property
    def layer(self) -> str:
        return f"block {self.block} {self.part}" if self.block else self.part


@dataclass(frozen=True)
class Buffer:
    """Memory that holds something from one operation to another, both by their index, both included."""

    role: str
    kind: str  # STATE, IO or ACTIVATION
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Layer:
    name: str
    block: int
    part: str
    weight_bytes: int
    macs: int  # of the call
    activation_bytes: int  # the most that is alive at once while it runs


@dataclass(frozen=True)
class Plan:
    """What one call of so many feature frames takes, batch 1."""

    frames: int
    operations: tuple[Operation, ...]
    buffers: tuple[Buffer, ...]
    model_bytes: int
    arena_bytes: int = 0  # reserved from the start, in use or not; 0 where buffers come and go
    passes: int = 1  # times that the weights are read

    @cached_property
    def live_bytes(self) -> list[int]:
        """What is in use while each operation runs."""
        return [sum(each.bytes for each in self.at(index)) for index in range(len(self.operations))]

    def at(self, index: int) -> list[Buffer]:
        """The buffers in use during an operation, the largest first."""
        return sorted((b for b in self.buffers if b.first <= index <= b.last), key=lambda b: -b.bytes)

    @property
    def peak(self) -> int:
        """The operation during which most is in use."""
        return self.live_bytes.index(max(self.live_bytes))

    @property
    def variable_bytes(self) -> int:
        """State, activations, input and output, workspace."""
        if not self.arena_bytes:
            return max(self.live_bytes)
        return self.arena_bytes + sum(each.bytes for each in self.buffers if each.kind == IO)

    @property
    def total_bytes(self) -> int:
        return self.model_bytes + self.variable_bytes

    @property
    def macs(self) -> int:
        return sum(each.macs for each in self.operations)

    @property
    def moved_bytes(self) -> int:
        """Weights once a pass, and each operation's operands and result once."""
        return sum(each.moved_bytes + self.passes * each.weight_bytes for each in self.operations)

    @cached_property
    def layers(self) -> list[Layer]:
        """In the order in which they run."""
        found: dict[str, list[int]] = {}
        for index, operation in enumerate(self.operations):
            found.setdefault(operation.layer, []).append(index)
        return [self._layer(name, indices) for name, indices in found.items()]

    def _layer(self, name: str, indices: Sequence[int]) -> Layer:
        own = [self.operations[index] for index in indices]
        alive = (sum(b.bytes for b in self.at(index) if b.kind == ACTIVATION) for index in indices)
        weights, macs = sum(each.weight_bytes for each in own), sum(each.macs for each in own)
        return Layer(name, own[0].block, own[0].part, weights, macs, max(alive))


def in_float32(config: Config, units: int, frames: int, model_bytes: int | None = None) -> Plan:
    """A call on a runtime that computes in float32 and frees what is no longer read.

    units: V, blank included. frames: T, a multiple of the subsampling. model_bytes: of the weights if left out.
    """
    walk = Walk(config, units, frames)
    weights = sum(each.weight_bytes for each in walk.operations)
    return Plan(frames, tuple(walk.operations), walk.buffers(), weights if model_bytes is None else model_bytes)


class Walk:
    """The operations of `Encoder.forward` in evaluation, in order, with what each reads and makes."""

    def __init__(self, config: Config, units: int, frames: int, windowed: bool = False) -> None:
        """windowed: scores only of keys in the window, as the engine computes them, not of all that are there."""
        self.operations: list[Operation] = []
        self._sizes: dict[str, tuple[str, str, int]] = {}  # tensor: role, kind, bytes
        self._made: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._at = (0, "stem")
        self._windowed = windowed
        encoder, mels = config.encoder, config.features.num_mels
        self.width, self.seen, self.linear = encoder.hidden_size, encoder.left_context, encoder.attention == "linear"
        self.encoder, self.new = encoder, exact_div(frames, encoder.subsampling)
        self._hold("features", IO, frames * mels)
        self._hold("stem state", STATE, encoder.lookahead * mels)
        for index, shape in enumerate(encoder.blocks):
            for role, rows in (("keys", 1), ("values", encoder.head_size)):
                numbers = (rows if self.linear else self.seen) * shape.attention_width
                self._hold(
                    f"{role} {index}", STATE, numbers, f"sums of {role}" if self.linear else f"{role} of the past"
                )
            self._hold(f"conv {index}", STATE, (encoder.conv_kernel_size - 1) * shape.channels, "convolution's past")
        x = self._stem(frames, mels)
        for index, shape in enumerate(encoder.blocks):
            x = self._block(index, shape, x)
        self._at = (0, "head")
        x = self._do("project", units, [x], (self.width + 1) * units, self.new * self.width * units)
        self._do("log-softmax", units, [x], kind=IO, role="log-probabilities")

    def buffers(self) -> tuple[Buffer, ...]:
        """State and what the caller gives live all the time, results from when they are made to the end."""
        end = len(self.operations) - 1
        return tuple(
            Buffer(role, kind, size, self._made[name], end if kind != ACTIVATION else self._read.get(name, end))
            for name, (role, kind, size) in self._sizes.items()
        )

    def _hold(self, name: str, kind: str, numbers: int, role: str = "") -> None:
        self._sizes[name] = (role or name, kind, numbers * FLOAT_BYTES)
        self._made[name] = 0

    def _do(
        self,
        name: str,
        each: int,
        reads: Sequence[str],
        weights: int = 0,
        macs: int = 0,
        *,
        kind: str = ACTIVATION,
        role: str = "",
        rows: int | None = None,
        of: int | None = None,
    ) -> str:
        """An operation that makes `rows` rows (N if left out) of `each` numbers -> the name of its result.

        of: rows of its operands that it reads, where these are not all.
        """
        rows = self.new if rows is None else rows
        made = f"{len(self.operations)} {name}"
        size = rows * each * FLOAT_BYTES
        read = sum(self._sizes[one][2] for one in reads) if of is None else of * FLOAT_BYTES
        for one in reads:
            self._read[one] = len(self.operations)
        self._sizes[made] = (role or name, kind, size)
        self._made[made] = len(self.operations)
        block, part = self._at
        self.operations.append(Operation(block, part, name, weights * FLOAT_BYTES, macs, read + size))
        return made

    def _stem(self, frames: int, mels: int) -> str:
        encoder, n = self.encoder, self.new
        channels, half, quarter = encoder.stem_channels, mels // 2, mels // 4
        window = encoder.subsampling + encoder.lookahead
        joined = self._do("join", mels, ["stem state", "features"], rows=encoder.lookahead + frames)
        patch = (5 * window + 1) * channels
        x = self._do("patch", channels * half, [joined], patch, n * half * channels * 5 * window)
        x = self._do("silu", channels * half, [x])
        mix, mix_macs = (3 * channels + 1) * channels, 3 * channels * channels
        for _ in range(encoder.stem_layers):
            y = self._do("deepen", channels * half, [x], mix, n * half * mix_macs)
            y = self._do("silu", channels * half, [y])
            x = self._do("add", channels * half, [x, y])
        x = self._do("mix", channels * quarter, [x], mix, n * quarter * mix_macs)
        x = self._do("silu", channels * quarter, [x])
        x = self._do("transpose", channels * quarter, [x])
        inputs = channels * quarter
        x = self._do("project", self.width, [x], (inputs + 1) * self.width, n * inputs * self.width)
        kept = encoder.lookahead * mels
        self._do("keep", mels, [joined], rows=encoder.lookahead, kind=STATE, role="next stem state", of=kept)
        return self._norm(x)

    def _linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        return self._do(name, outputs, [x], (inputs + 1) * outputs, self.new * inputs * outputs)

    def _norm(self, x: str) -> str:
        statistics = 2 if self.encoder.norm == "batch" else 0
        return self._do("normalise", self.width, [x], (2 + statistics) * self.width)

    def _block(self, index: int, shape: BlockShape, x: str) -> str:
        x = self._feed_forward(index, shape.ffn_in, x, "feed-forward in")
        x = self._attention(index, shape, x)
        x = self._convolution(index, shape.channels, x)
        x = self._feed_forward(index, shape.ffn_out, x, "feed-forward out")
        return self._norm(x)

    def _feed_forward(self, index: int, inner: int, x: str, part: str) -> str:
        self._at = (index + 1, part)
        y = self._linear("expand", self._norm(x), self.width, inner)
        y = self._do("silu", inner, [y])
        y = self._linear("contract", y, inner, self.width)
        y = self._do("halve", self.width, [y])
        return self._do("add", self.width, [x, y])

    def _attention(self, index: int, shape: BlockShape, x: str) -> str:
        self._at = (index + 1, "attention")
        width = shape.attention_width
        qkv = self._linear("query, key, value", self._norm(x), self.width, 3 * width)
        y = (self._sums if self.linear else self._window)(index, shape, qkv)
        return self._do("add", self.width, [x, y])

    def _joined(self, y: str, width: int) -> str:
        return self._linear("output", self._do("join heads", width, [y]), width, self.width)

    def _window(self, index: int, shape: BlockShape, qkv: str) -> str:
        """Attention to the frames in a window."""
        width, heads, n, seen = shape.attention_width, shape.heads, self.new, self.seen
        window = seen + (1 if self._windowed else n)  # keys that a query is multiplied with
        read = n * heads * window if self._windowed else None
        keys = self._do("join keys", width, [f"keys {index}", qkv], rows=seen + n, role="keys and values")
        values = self._do("join values", width, [f"values {index}", qkv], rows=seen + n, role="keys and values")
        scores = self._do("scores", heads * window, [qkv, keys], 0, n * window * width)
        if not self._windowed:  # the engine has scaled its weights, and masks nothing
            scores = self._do("scale", heads * window, [scores], role="scores")
        bias = self._do("biases of distances", heads * window, [], heads * (seen + 1), role="biases of distances")
        for _ in range(0 if self._windowed else 2):  # outside the window, and not filled yet
            bias = self._do("mask", heads * window, [bias], role="biases of distances")
        scores = self._do("add biases", heads * window, [scores, bias], role="scores")
        scores = self._do("softmax", heads * window, [scores], role="scores")
        y = self._do("attend", width, [scores, values], 0, n * window * width, of=read)
        y = self._joined(y, width)
        for role, joined in (("keys", keys), ("values", values)):
            self._do("keep", width, [joined], rows=seen, kind=STATE, role=f"next {role}", of=seen * width)
        return y

    def _sums(self, index: int, shape: BlockShape, qkv: str) -> str:
        """Linear attention: in the engine frame by frame, elsewhere the frames of a call with one another first."""
        width, heads, size, n = shape.attention_width, shape.heads, shape.head_size, self.new
        mapped = self._do("elu + 1", 2 * width, [qkv])
        if self._windowed:
            key_sum = self._do("add to sum of keys", width, [mapped], heads, n * width, of=2 * n * width)
            sums = self._do("add to sums", size * width, [mapped, qkv], 0, n * size * width, of=n * (size + 2) * width)
            return self._joined(self._do("recall", width, [mapped, key_sum, sums], 0, n * (size + 1) * width), width)
        kept = self._do("fading", heads * n, [], heads)
        scores = self._do("scores", heads * n, [mapped], 0, n * n * width)
        scores = self._do("fade", heads * n, [scores, kept], role="scores")
        faded = self._do("faded queries", width, [mapped], role="queries")
        total = self._do("total", heads, [scores, faded, f"keys {index}"], 0, n * width)
        y = self._do("attend", width, [scores, qkv], 0, n * n * width)
        z = self._do("recall", width, [faded, f"values {index}"], 0, n * size * width)
        y = self._do("add and divide", width, [y, z, total])
        left = self._do("faded keys", width, [mapped], role="keys")
        self._do("add to sum of keys", width, [left, f"keys {index}"], rows=1, kind=STATE, role="next sums of keys")
        role, macs = "next sums of values", n * size * width
        self._do("add to sums", width, [left, qkv, f"values {index}"], 0, macs, rows=size, kind=STATE, role=role)
        return self._joined(y, width)

    def _convolution(self, index: int, width: int, x: str) -> str:
        self._at = (index + 1, "convolution")
        kernel, n = self.encoder.conv_kernel_size, self.new
        y = self._linear("gate", self._norm(x), self.width, 2 * width)
        y = self._do("glu", width, [y])
        past = kernel - 1
        joined = self._do("join", width, [f"conv {index}", y], rows=past + n)
        y = self._do("depthwise", width, [joined], (kernel + 1) * width, n * kernel * width)
        y = self._do("batch norm", width, [y], 4 * width)
        y = self._linear("output", self._do("silu", width, [y]), width, self.width)
        role = "next convolution's past"
        self._do("keep", width, [joined], rows=past, kind=STATE, role=role, of=past * width)
        return self._do("add", self.width, [x, y])


def macs_per_s(config: Config, units: int) -> int:
    """Multiply-accumulates of the encoder for one second of audio, in steps, caches full."""
    step = config.encoder.streaming_step_size
    walk = Walk(config, units, step, windowed=True)
    return round(sum(each.macs for each in walk.operations) * 1000 / (step * config.features.frame_shift_ms))
