"""The model file of the C engine: a checkpoint packed in the order in which a step reads it.

`docs/model-file.md` describes the format; `engine/src/model.h` is its other half. What can be folded is: the gains and
biases of normalisations into the linear layers behind them, batch normalisation into the depthwise convolution, the
half of the feed-forward modules, the scale of the scores and the scales of a state in int8 into weights. What the
engine takes sixteen at a time is filled up with heads and channels that are always 0.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.commands import UNKNOWN, CommandSet
from kouling.config import BlockShape, EncoderConfig
from kouling.decoder import DEFAULT_ONSET_S
from kouling.deploy import grid, state_scales
from kouling.deploy.grid import GROUP, LANES, Grid, grids_of, padded, through_bfloat16, to_bfloat16
from kouling.deploy.state_scales import StateScales
from kouling.features import mel_filters, povey_window
from kouling.graph_search import PAST_WEAK, SetGraph
from kouling.recognizer import decoder_of, overlay_decoder, priming
from kouling.templates import TAIL_S, Templates

MAGIC = b"KOULING\0"
VERSION, WITH_BATCH_NORM = 2, 3  # one without is what it always was
ALIGN = 64
HEADER_BYTES = 128
COMMANDS_MAGIC = b"KLWORDS\0"
COMMANDS_VERSION, COMMANDS_WITH_GRAPHS, COMMANDS_WITH_TEMPLATES = 1, 2, 3  # a set without is what it always was
COMMANDS_HEADER_BYTES = 128
SCHEMES = ("float", "int8", "int4")
# Of linear layers. Sparse is an int8 layer whose zeros come in blocks; nobody asks for it.
KINDS = {"float": 0, "int8": 1, "int4": 2, "sparse": 3, "bfloat16": 4}
ATTENTIONS = {"windowed": 0, "local": 0, "linear": 1}  # a local window is one that is short
NORMS = {"layer": 0, "batch": 1}
STATES = {"float": 0, "bfloat16": 1, "int8": 2}
SPARSE_LEAST_ZEROS = 0.25  # of all blocks: with fewer, a product takes no less time than with all of them
SPARSE_MOST_INPUTS = 4096
MAX_WINDOW = 64

Floats = NDArray[np.float64]


def pack(
    info: ModelInfo,
    weights: Mapping[str, NDArray[Any]],
    command_set: CommandSet,
    scheme: str | None = None,
    state: str = "float",
) -> bytes:
    """The model file as bytes. scheme: of the weights, the checkpoint's own if left out: int4 for layers with a grid
    and int8 for the rest; state: of what attention and convolution remember.

    Raises: ValueError where the model's shape is none that the engine runs, a grid does not fit its layer, or there are
    no scales of an int8 state.
    """
    if scheme is not None and scheme not in SCHEMES:
        raise ValueError(f"weights are {scheme!r}; allowed: {', '.join(SCHEMES)}")
    if state not in STATES:
        raise ValueError(f"the state is {state!r}; allowed: {', '.join(STATES)}")
    encoder, features = info.config.encoder, info.config.features
    _check(info)
    tables = b"".join(map(_aligned, _feature_tables(info)))
    grids = grids_of(weights, info.name) if scheme in (None, "int4") else {}
    packer = _Packer({k: v.astype(np.float64) for k, v in weights.items()}, scheme or "int8", grids)
    packer.stem(encoder.stem_layers)
    stored = stored_shapes(encoder)
    whole = state == "int8"
    remembered = state_scales.of_checkpoint(info, weights) if whole else list(map(state_scales.none, encoder.blocks))
    for index, shapes in enumerate(zip(encoder.blocks, stored, remembered, strict=True)):
        packer.block(f"blocks.{index}", *shapes, encoder.attention, whole)
    # The head costs little and its errors go straight into the result.
    packer.linear(*packer.layer("head"), scheme=packer.unrounded)
    body = b"".join(map(_aligned, [bytes(packer.kinds), *packer.parts]))
    text = info.to_json().encode()
    layers = _aligned(b"".join(struct.pack("<4I", s.heads, s.ffn_in, s.ffn_out, s.channels) for s in stored))
    tables_at = HEADER_BYTES + len(layers)
    weights_at = tables_at + len(tables)
    commands_at = weights_at + len(body)
    own = pack_commands(info, command_set)
    text_at = commands_at + len(own)
    fields = [
        *(len(packer.kinds), features.num_mels, encoder.layers, encoder.head_size, encoder.hidden_size),
        *(encoder.conv_kernel_size, ATTENTIONS[encoder.attention], padded(encoder.stem_channels)),
        *(encoder.stem_layers, encoder.subsampling, encoder.lookahead, encoder.frames_per_step),
        *(encoder.left_context, len(info.units)),
    ]
    sections = (tables_at, weights_at, commands_at, len(own), text_at, len(text))
    before, level = len(priming(info)) // encoder.subsampling, overlay_decoder(info).priming_level
    log = (features.log_floor, features.log_scale)
    header = struct.pack(f"<{len(fields)}I2f{len(sections)}I", *fields, *log, *sections)
    header += struct.pack("<3If", before, STATES[state], packer.unrounded == "bfloat16", level)
    header += struct.pack("<I", NORMS[encoder.norm])
    version = WITH_BATCH_NORM if NORMS[encoder.norm] else VERSION
    return _file(MAGIC, version, header.ljust(HEADER_BYTES - 20, b"\0") + layers + tables + body + own + _aligned(text))


def pack_commands(info: ModelInfo, command_set: CommandSet) -> bytes:
    """A command set compiled for a model: what `Decoder` derives from both. See `command_set` in decoder.h.

    A set without graphs and enrolled commands is written as version 1, which older engines read."""
    decoder = decoder_of(info, command_set)
    tree, settings = decoder.tree, decoder.config
    nodes, units = len(tree.unit), len(info.units)
    beyond = [tree.beyond.get(node, np.zeros(0, dtype=np.int64)) for node in range(nodes)]
    beyond_at = np.cumsum([0, *map(len, beyond)])
    names = [spec.name.encode() for spec in command_set.commands]
    text = b"".join(names)
    unknown = info.units.index(UNKNOWN) if UNKNOWN in info.units else 0
    frames = (decoder.settle, decoder.isolation, decoder.hesitation)
    numbers = (
        *(decoder.frame_s, decoder.first_frame_s, decoder.max_gap, decoder.max_frames),
        *(decoder.refractory_s / decoder.frame_s, settings.sure, settings.confidence_slope, settings.confidence_bias),
    )
    tree_arrays = (
        tree.unit,
        tree.parent,
        tree.command,
        tree.depth,
        tree.first_unit,
        beyond_at,
        np.concatenate(beyond),
    )
    arrays = (
        *(np.asarray(values, dtype="<i4") for values in tree_arrays),
        np.array(decoder.thresholds, dtype="<f8"),
        np.array([settings.onset_s.get(unit, DEFAULT_ONSET_S) for unit in info.units], dtype="<f8"),
        np.array([settings.offset_s.get(unit, 0.0) for unit in info.units], dtype="<f8"),
        np.cumsum([0, *map(len, names)]).astype("<u4"),
    )
    parts = b"".join(_aligned(values.tobytes()) for values in arrays) + _aligned(text)
    graph_at = COMMANDS_HEADER_BYTES + len(parts) if decoder.graph else 0
    graph = b""
    if decoder.graph:
        graph = _packed_graph(decoder.graph, decoder.search.fillers, settings.confidence_per_word)
    recorded = [(index, spec.enrolled) for index, spec in enumerate(command_set.commands) if spec.enrolled]
    templates_at = COMMANDS_HEADER_BYTES + len(parts) + len(graph) if recorded else 0
    counts = (nodes, len(names), units, int(beyond_at[-1]), len(text), *frames, unknown, graph_at, templates_at)
    header = struct.pack(f"<{len(counts)}I{len(numbers)}d", *counts, *numbers)
    content = header.ljust(COMMANDS_HEADER_BYTES - 20, b"\0") + parts
    version = COMMANDS_WITH_TEMPLATES if recorded else COMMANDS_WITH_GRAPHS if graph else COMMANDS_VERSION
    return _file(COMMANDS_MAGIC, version, content + graph + _packed_templates(recorded, decoder.frame_s))


def _packed_templates(recorded: Sequence[tuple[int, Templates]], frame_s: float) -> bytes:
    """See `templates` in templates.h. recorded: the index of each such command, and its templates."""
    if not recorded:
        return b""
    each = [rows for _, templates in recorded for rows in templates.recordings]
    rows = np.concatenate(each)
    arrays = (
        np.array([index for index, _ in recorded], dtype="<i4"),
        np.cumsum([0, *(len(templates.recordings) for _, templates in recorded)]).astype("<u4"),
        np.cumsum([0, *map(len, each)]).astype("<u4"),
        np.ascontiguousarray(rows[:, :-1], dtype="<f4"),
        np.ascontiguousarray(rows[:, -1], dtype="<f4"),
    )
    tail = round(TAIL_S / frame_s)
    header = struct.pack("<5I", len(recorded), len(each), len(rows), rows.shape[1] - 1, tail)
    return b"".join(_aligned(part) for part in (header.ljust(ALIGN, b"\0"), *(values.tobytes() for values in arrays)))


def _packed_graph(graph: SetGraph, fillers: float, per_word: float) -> bytes:
    """See `graph` in graph.h."""
    pieces = [piece.encode() for piece in graph.piece]
    names = [name.encode() for name, _ in graph.slots]
    piece_at = np.cumsum([0, *map(len, pieces)])
    flags = sum(
        np.asarray(bits, dtype=np.uint8) << place
        for place, bits in enumerate((graph.starts, graph.ends, graph.opens, graph.goes_on))
    )
    text = b"".join(pieces + names)
    arrays = (
        *(np.asarray(values, dtype="<i4") for values in (graph.unit, graph.command, graph.slot, graph.adds)),
        np.asarray(flags, dtype=np.uint8),
        graph.before_at.astype("<u4"),
        np.where(graph.share < 1.0, ~graph.before, graph.before).astype("<i4"),
        piece_at.astype("<u4"),
        np.cumsum([piece_at[-1], *map(len, names)]).astype("<u4"),
        np.array([is_number for _, is_number in graph.slots], dtype=np.uint8),
    )
    counts = (len(graph.unit), len(graph.before), len(names), len(text))
    header = struct.pack("<4I3d", *counts, fillers, PAST_WEAK, per_word)
    return b"".join(_aligned(part) for part in (header, *(values.tobytes() for values in arrays), text))


def _file(magic: bytes, version: int, content: bytes) -> bytes:
    return magic + struct.pack("<3I", version, 20 + len(content), zlib.crc32(content)) + content


def _check(info: ModelInfo) -> None:
    encoder = info.config.encoder
    if encoder.hidden_size % LANES:
        raise ValueError(
            f"{info.name}: encoder.hidden_size is {encoder.hidden_size}; the engine runs multiples of {LANES}"
        )
    window = encoder.subsampling + encoder.lookahead
    if window > MAX_WINDOW:
        raise ValueError(f"{info.name}: the stem hears {window} frames at once; the engine runs at most {MAX_WINDOW}")


def stored_shapes(encoder: EncoderConfig) -> tuple[BlockShape, ...]:
    """The blocks as the engine runs them: whole vectors of channels, and as many heads as fill whole vectors. There are
    never more of these than before pruning, since the whole width is a multiple of LANES."""
    heads = LANES // math.gcd(LANES, encoder.head_size)
    return tuple(
        replace(
            shape,
            heads=padded(shape.heads, heads),
            ffn_in=padded(shape.ffn_in),
            ffn_out=padded(shape.ffn_out),
            channels=padded(shape.channels),
        )
        for shape in encoder.blocks
    )


def _more_rows(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Filled up with rows of zeros."""
    return np.pad(values, [(0, rows - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _more_in_each(values: NDArray[Any], parts: int, rows: int) -> NDArray[Any]:
    """Of parts that lie one behind the other, each filled up with rows of zeros."""
    return np.concatenate([_more_rows(part, rows) for part in np.split(values, parts)])


def _more_columns(values: Floats, columns: int) -> Floats:
    return _more_rows(values.T, columns).T


def _aligned(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // ALIGN) * ALIGN, b"\0")


def _feature_tables(info: ModelInfo) -> list[bytes]:
    """The window, the turns of the FFT, and the mel triangles; see `feature_tables` in model.h."""
    config = info.config.features
    filters = mel_filters(config)
    heard = [np.flatnonzero(column) for column in filters.T]  # a triangle's bins; none in a very narrow one
    first = [int(bins[0]) if len(bins) else 0 for bins in heard]
    counts = [int(bins[-1]) + 1 - start if len(bins) else 0 for bins, start in zip(heard, first, strict=True)]
    triangles = [column[start : start + count] for column, start, count in zip(filters.T, first, counts, strict=True)]
    turn = 2 * np.pi * np.outer(np.arange(16), np.arange(16)).ravel() / 256
    unpack = 2 * np.pi * np.arange(384) / 512
    tables = (povey_window(config)[:200], np.cos(turn), -np.sin(turn), np.cos(unpack))
    return [
        *(table.astype("<f4").tobytes() for table in tables),
        *(np.array(numbers, dtype="u1").tobytes() for numbers in (first, counts)),
        np.concatenate(triangles).astype("<f4").tobytes(),
    ]


def round_to_int4(weight: Floats, on: Grid | None = None) -> tuple[NDArray[np.int8], NDArray[np.int8], Floats]:
    """weight: (outputs, inputs), inputs a multiple of GROUP -> whole numbers from -8 to 7 (outputs, inputs), the
    multiplier of each group (outputs, groups), and a scale for each output, a bfloat16; weight = number * multiplier *
    scale.

    on: the grid of the first outputs and inputs, zeros filling up; the one that fits best if left out.
    """
    if on is None:
        on = grid.fit(weight)
    more, groups = len(weight) - len(on.scale), weight.shape[1] // GROUP - on.multipliers.shape[1]
    on = Grid(np.pad(on.scale, (0, more)), np.pad(on.multipliers, ((0, more), (0, groups))))
    return grid.numbers(weight, on), on.multipliers, through_bfloat16(on.scale.astype(np.float64))


def _without_zeros(blocks: NDArray[np.int8]) -> list[bytes] | None:
    """blocks: (O / 16, I / 4, 16, 4) -> the parts of a sparse layer, or None where there is little to leave out."""
    kept = blocks.any(axis=(2, 3))
    if 4 * kept.shape[1] > SPARSE_MOST_INPUTS or kept.mean() > 1 - SPARSE_LEAST_ZEROS:
        return None
    first = np.cumsum([0, *kept.sum(axis=1)]).astype("<u4")
    parts = [first.tobytes(), np.nonzero(kept)[1].astype("<u2").tobytes(), blocks[kept].tobytes()]
    smaller = sum(len(_aligned(part)) for part in parts) < len(_aligned(blocks.tobytes()))
    return parts if smaller else None


class _Packer:
    """Weights in, parts of the file out, in the order of a step."""

    def __init__(self, weights: dict[str, Floats], scheme: str, grids: Mapping[str, Grid]) -> None:
        """scheme: of the layers without a grid; those with one are int4."""
        self.weights = weights
        self.scheme = scheme
        self.grids = grids
        self.unrounded = "float" if scheme == "float" else "bfloat16"  # how weights are stored that are never integers
        self.kinds: list[int] = []  # of the linear layers
        self.parts: list[bytes] = []

    def layer(self, name: str) -> tuple[Floats, Floats]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def after_norm(self, norm: str, name: str) -> tuple[Floats, Floats]:
        """The linear layer `name` with the gain and bias of the normalisation before it folded in."""
        (weight, bias), (gain, shift) = self.layer(name), grid.gain_and_shift(self.weights, norm)
        return weight * gain, bias + weight @ shift

    def floats(self, values: Floats) -> None:
        self.parts.append(values.astype("<f4").tobytes())

    def halves(self, values: Floats) -> None:
        self.parts.append(to_bfloat16(values).tobytes())

    def grid_of(self, name: str, factor: Floats | float = 1.0, parts: int = 1, rows: int = 0) -> Grid | None:
        """That of a layer, if it has one, whose outputs are multiplied by `factor`; where they are filled up part by
        part, the rows of each."""
        if name not in self.grids:
            return None
        own = self.grids[name].scaled(factor)
        if parts == 1:
            return own
        return Grid(_more_in_each(own.scale, parts, rows), _more_in_each(own.multipliers, parts, rows))

    def linear(self, weight: Floats, bias: Floats, scheme: str | None = None, on: Grid | None = None) -> None:
        """weight: (outputs, inputs); see `linear` in model.h for how it lies. scheme: the packer's if left out; int4
        where it lies on a grid."""
        outputs, inputs = weight.shape
        columns, fours = -(-outputs // 16) * 16, -(-inputs // 4)
        whole = np.zeros((columns, 4 * fours))
        whole[:outputs, :inputs] = weight
        scheme = scheme or ("int4" if on else self.scheme)
        self.kinds.append(KINDS[scheme])
        numbers = self.floats if scheme == "float" else self.halves
        if scheme in ("float", "bfloat16"):
            numbers(whole[:, :inputs].reshape(-1, 16, inputs).transpose(0, 2, 1))
        elif scheme == "int8":
            scale = through_bfloat16(np.maximum(np.abs(whole).max(axis=1), 1e-12) / 127)
            rounded = np.rint(whole / scale[:, None]).clip(-127, 127).astype(np.int8)
            blocks = rounded.reshape(-1, 16, fours, 4).transpose(0, 2, 1, 3)
            if sparse := _without_zeros(blocks):
                self.kinds[-1] = KINDS["sparse"]
            self.parts += sparse or [blocks.tobytes()]
            numbers(scale)
            self.parts.append(rounded.sum(axis=1, dtype=np.int32).astype("<i4").tobytes())
        else:
            halves, multipliers, scale = round_to_int4(_more_columns(whole[:, :inputs], padded(inputs, GROUP)), on)
            pairs = (halves + 8).astype(np.uint8).reshape(-1, 16, halves.shape[1] // 8, 2, 4).transpose(3, 0, 2, 1, 4)
            self.parts.append((pairs[0] | pairs[1] << 4).tobytes())
            self.parts.append(multipliers.reshape(-1, 16, multipliers.shape[1]).transpose(0, 2, 1).tobytes())
            numbers(scale)
        numbers(np.pad(bias, (0, columns - outputs)))

    def stem(self, layers: int) -> None:
        """Channels are filled up to a multiple of LANES with some that are always 0."""
        channels = len(self.weights["stem.patch.weight"])
        more = padded(channels) - channels
        for name in ("stem.patch", *(f"stem.deepen.{i}" for i in range(layers)), "stem.mix"):
            weight, bias = self.stem_layer(name)
            scheme = "int8" if name == "stem.patch" and self.scheme == "int4" else None  # see `grid.layers`
            self.linear(np.pad(weight, ((0, more), (0, 0))), np.pad(bias, (0, more)), scheme, self.grid_of(name))
        self.linear(*self.stem_layer("stem.project"), on=self.grid_of("stem.project"))
        for values in grid.gain_and_shift(self.weights, "stem.norm"):
            self.floats(values)

    def stem_layer(self, name: str) -> tuple[Floats, Floats]:
        """A layer of the stem with its inputs in the order of a step."""
        (weight, bias), order = self.layer(name), grid.input_order(self.weights, name)
        return grid.packed(weight, order)[:, : len(order)], bias

    def block(
        self, name: str, shape: BlockShape, stored: BlockShape, scales: StateScales, attention: str, whole: bool
    ) -> None:
        """shape: of what is there, to be filled up to what is stored. scales: what is remembered is divided by them,
        and what reads it multiplied. attention: its kind. whole: whether whole numbers are remembered."""
        self.feed_forward(f"{name}.feed_forward_in", stored.ffn_in)
        weight, bias = self.after_norm(f"{name}.attention.norm", f"{name}.attention.query_key_value")
        factors = (1.0, 1.0, 1.0)
        if attention != "linear":
            factors = (shape.head_size**-0.5 * scales.keys, 1 / scales.keys, 1 / scales.values)
        scale = np.repeat(factors, shape.attention_width)
        width = stored.attention_width
        on = self.grid_of(f"{name}.attention.query_key_value", scale, 3, width)
        self.linear(_more_in_each(weight * scale[:, None], 3, width), _more_in_each(bias * scale, 3, width), on=on)
        weight, bias = self.layer(f"{name}.attention.output")
        on = self.grid_of(f"{name}.attention.output", scales.values)
        self.linear(_more_columns(weight * scales.values, width), bias, on=on)
        if attention == "linear":
            kept = 1 / (1 + np.exp(-self.weights[f"{name}.attention.decay"]))
            self.floats(_more_rows(kept, stored.heads))
        else:
            distances = self.weights[f"{name}.attention.distance_bias"].T[::-1]  # the farthest first
            self.floats(_more_columns(distances, stored.heads))
        self.convolution(f"{name}.convolution", stored.channels, scales, whole)
        self.feed_forward(f"{name}.feed_forward_out", stored.ffn_out)
        for values in grid.gain_and_shift(self.weights, f"{name}.norm"):
            self.floats(values)

    def feed_forward(self, name: str, inner: int) -> None:
        weight, bias = self.after_norm(f"{name}.norm", f"{name}.expand")
        self.linear(_more_rows(weight, inner), _more_rows(bias, inner), on=self.grid_of(f"{name}.expand"))
        weight, bias = self.layer(f"{name}.contract")
        self.linear(_more_columns(weight, inner) / 2, bias / 2, on=self.grid_of(f"{name}.contract", 0.5))

    def convolution(self, name: str, channels: int, scales: StateScales, whole: bool) -> None:
        weight, bias = self.after_norm(f"{name}.norm", f"{name}.gate")
        factor = np.concatenate([1 / scales.conv, np.ones_like(scales.conv)])  # of what is let through; of what lets it
        on = self.grid_of(f"{name}.gate", factor, 2, channels)
        weight, bias = weight * factor[:, None], bias * factor
        self.linear(_more_in_each(weight, 2, channels), _more_in_each(bias, 2, channels), on=on)
        taps, bias = self.layer(f"{name}.depthwise")  # (C, 1, K)
        factor, shift = grid.gain_and_shift(self.weights, f"{name}.batch_norm")
        numbers = self.floats if self.unrounded == "float" else self.halves
        taps = taps[:, 0] * factor[:, None]
        numbers(_more_rows(taps * scales.conv[:, None], channels).T)
        numbers(_more_rows(bias * factor + shift + scales.middle * taps.sum(axis=1), channels))
        if whole:
            self.floats(_more_rows(scales.middle / scales.conv, channels))
        weight, bias = self.layer(f"{name}.output")
        self.linear(_more_columns(weight, channels), bias, on=self.grid_of(f"{name}.output"))
