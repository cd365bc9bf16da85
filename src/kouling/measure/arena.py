"""The engine's plan: the model where it lies, and one arena, laid out as `encoder_place` in `engine/` does."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kouling.checkpoint import ModelInfo
from kouling.deploy import model_file
from kouling.deploy.grid import GROUP, LANES, padded
from kouling.deploy.model_file import stored_shapes
from kouling.measure.footprint import ACTIVATION, FLOAT_BYTES, IO, STATE, Buffer, Operation, Plan, Walk

ALIGN = 64
STATE_AT = 112  # in the header: how a stream stores what it remembers
STATE_BYTES = {model_file.STATES[name]: size for name, size in (("float", FLOAT_BYTES), ("bfloat16", 2), ("int8", 1))}
TAPS_AT = 116  # and the file the convolutions' taps
HALF_BYTES = 2  # of a bfloat16
NODE_BYTES, CANDIDATE_BYTES, DOUBLE_BYTES, POINTER_BYTES = 40, 48, 8, 8  # node_state and candidate of decoder.h
WAITING, WAITED = 64, 16  # DECODER_WAITING, DECODER_WAITED
FLOW_BYTES, PATH_BYTES, SLOT_BYTES = 72, 216, 48  # graph_flow, graph_path and kouling_slot
GRAPH_OPEN, SLOTS = 128, 96  # DECODER_GRAPH_OPEN, DECODER_SLOTS
GRAPH_ENDS = 2  # a flag of a node
SCRATCH = {  # which scratch buffers hold something in which part of a step
    "patch": ("window, then positions", "int8 inputs"),
    "deepen": ("positions", "convolved", "int8 inputs"),
    "mix": ("positions", "stem rows", "int8 inputs"),
    "project": ("stem rows", "frames", "int8 inputs"),
    "feed-forward in": ("frames", "normalised", "wide rows", "int8 inputs"),
    "attention": ("frames", "normalised", "wide rows", "scores", "int8 inputs"),
    "convolution": ("frames", "normalised", "wide rows", "int8 inputs"),
    "feed-forward out": ("frames", "normalised", "wide rows", "int8 inputs"),
    "head": ("frames", "wide rows", "int8 inputs"),
}


def plan(file: bytes, info: ModelInfo, frames: int, arena_bytes: int, at_once: int) -> Plan:
    """A call of so many feature frames, given as features, on a stream that computes up to `at_once` encoder frames.

    file: the model file. arena_bytes: what `kouling_stream_size` says that the stream takes.
    """
    encoder, mels = info.config.encoder, info.config.features.num_mels
    per_step = encoder.frames_per_step
    most = max(at_once // per_step, 1) * per_step
    new = frames // encoder.subsampling
    passes = -(-new // most)
    walk = Walk(info.config, len(info.units), frames, windowed=True)
    operations = _operations(info, walk, dict(_weights(file, info)))
    end = len(operations) - 1
    state, scratch, scratch_bytes = _arena(file, info, most)
    rest = arena_bytes - sum(state.values()) - scratch_bytes
    buffers = [Buffer(role, STATE, size, 0, end) for role, size in {**state, "stream and its samples": rest}.items()]
    for role, size in scratch.items():  # no scores in linear attention
        used = [i for i, each in enumerate(operations) if role in SCRATCH[_use(each)]]
        for first, last in _runs(used):
            buffers.append(Buffer(role, ACTIVATION, size, first, last))
    buffers.append(Buffer("features", IO, frames * mels * FLOAT_BYTES, 0, end))
    buffers.append(Buffer("log-probabilities", IO, new * len(info.units) * FLOAT_BYTES, end, end))
    return Plan(frames, operations, tuple(buffers), len(file), arena_bytes, passes)


def _use(operation: Operation) -> str:
    return operation.name if operation.part == "stem" else operation.part


def _arena(file: bytes, info: ModelInfo, most: int) -> tuple[dict[str, int], dict[str, int], int]:
    """Bytes of what a stream remembers and of its scratch buffers, and of the place that these share, as laid out by
    `encoder_place`, `decoder_place` and `place` in C."""
    encoder, mels, units = info.config.encoder, info.config.features.num_mels, len(info.units)
    width, channels, shapes = encoder.hidden_size, padded(encoder.stem_channels), stored_shapes(encoder)
    linear = encoder.attention == "linear"
    context = encoder.left_context + 1
    (state_kind,) = struct.unpack_from("<I", file, STATE_AT)
    number = STATE_BYTES[state_kind]
    sums = FLOAT_BYTES if linear else number  # sums are always float32
    rows = encoder.head_size if linear else context  # of values
    names = ("sum of keys", "sums of keys times values") if linear else ("keys of the past", "values of the past")
    state = {
        "stem state": _floats(encoder.lookahead * mels) + _aligned(3 * POINTER_BYTES * encoder.layers),
        names[0]: sum(_aligned(sums * context * shape.attention_width) for shape in shapes),
        names[1]: sum(_aligned(sums * rows * shape.attention_width) for shape in shapes),
        "convolution's past": sum(_aligned(number * encoder.conv_kernel_size * shape.channels) for shape in shapes),
        "decoder": _decoder_bytes(file),
        "features that wait": _floats(most * encoder.subsampling * mels),
        "log-probabilities that wait": _floats(most * units),
    }
    attended = max(shape.attention_width for shape in shapes)
    convolved = max(shape.channels for shape in shapes)
    narrow = max(width, attended, convolved)
    inner = max(max(shape.ffn_in, shape.ffn_out) for shape in shapes)
    wide = max(padded(units), inner, 3 * attended, 2 * convolved)
    lot = 0 if linear else max(_lot(shape.heads) for shape in shapes)
    turned = padded((mels + 4) * (encoder.lookahead + encoder.subsampling) + 3)
    stem_width, positions = channels * (mels // 4), padded((mels // 2 + 2) * channels)
    reads_window = file[_weights_at(file)] in (model_file.KINDS["float"], model_file.KINDS["bfloat16"])
    ends = _floats(positions) if reads_window else 0  # where the window begins
    scratch = {
        "window, then positions": max(ends + _floats(turned), _floats(positions)),
        "positions": _floats(positions),
        "convolved": _floats(mels // 2 * channels if encoder.stem_layers else 0),
        "stem rows": _floats(most * stem_width),
        "frames": _floats(most * width),
        "normalised": _floats(most * narrow),
        "wide rows": _floats(most * wide),
        "scores": _floats(padded(context * lot)),
        "int8 inputs": _floats(most) + _aligned(max(most * max(narrow, wide, stem_width), turned, positions) + GROUP),
    }
    stem = scratch["stem rows"]
    convolving = max(scratch["window, then positions"], scratch["positions"] + scratch["convolved"])
    running = max(stem, scratch["normalised"] + scratch["wide rows"] + scratch["scores"]) + scratch["frames"]
    return state, scratch, max(stem + convolving, running) + scratch["int8 inputs"]


def _decoder_bytes(file: bytes) -> int:
    """Of the command set inside the model; its header is in decoder.h."""
    (at,) = struct.unpack_from("<I", file, 92)
    nodes, names, units, _, _, _, isolation, _, _, graph_at = struct.unpack_from("<10I", file, at + 20)
    commands = struct.unpack_from(f"<{nodes}i", file, at + 128 + 2 * _aligned(4 * nodes))
    ends = sum(command >= 0 for command in commands[1:])
    graph_nodes, graph_ends = _graph_size(file, at + graph_at) if graph_at else (0, 0)
    ends += min(graph_ends, GRAPH_OPEN)
    waiting = min(ends + WAITED, WAITING) + 1
    doubles = sum(_aligned(DOUBLE_BYTES * count) for count in (units, units, isolation, names))
    candidates = sum(_aligned(CANDIDATE_BYTES * count) for count in (ends, waiting))
    graphs = sum(_aligned(each * graph_nodes) for each in (NODE_BYTES, FLOW_BYTES, PATH_BYTES))
    if graph_at:
        graphs += _aligned(PATH_BYTES * (ends + waiting)) + _aligned(ends + waiting) + _aligned(SLOT_BYTES * SLOTS)
    return _aligned(NODE_BYTES * nodes) + doubles + candidates + graphs


def _graph_size(file: bytes, at: int) -> tuple[int, int]:
    """Nodes, and how many of them end a sentence; the header is in graph.h."""
    (nodes,) = struct.unpack_from("<I", file, at)
    flags = file[at + ALIGN + 4 * _aligned(4 * nodes) :][:nodes]
    return nodes, sum(bool(flag & GRAPH_ENDS) for flag in flags)


def _operations(info: ModelInfo, walk: Walk, weights: dict[tuple[int, str], int]) -> tuple[Operation, ...]:
    """One for each part of a step; those of the stem one by one. Weights by (block, part), in the stem by name."""
    found: dict[tuple[int, str], list[Operation]] = {}
    last = "patch"
    for each in walk.operations:
        if each.part == "stem":
            last = each.name if each.name in SCRATCH else last  # silu and the like go with what is before them
        found.setdefault((each.block, last if each.part == "stem" else each.part), []).append(each)
    return tuple(
        Operation(
            own[0].block,
            own[0].part,
            name,
            weights[block, name],
            sum(each.macs for each in own),
            sum(each.moved_bytes for each in own),
        )
        for (block, name), own in found.items()
    )


def _weights_at(file: bytes) -> int:
    at: int = struct.unpack_from("<I", file, 88)[0]
    return at


def _weights(file: bytes, info: ModelInfo) -> Iterator[tuple[tuple[int, str], int]]:
    """Bytes in the model file of each part of a step, in the order in which they lie (`walk_weights` in model.c)."""
    encoder, mels = info.config.encoder, info.config.features.num_mels
    width, channels = encoder.hidden_size, padded(encoder.stem_channels)
    weights_at = _weights_at(file)
    linears, state_kind, taps_kind = (struct.unpack_from("<I", file, at)[0] for at in (20, STATE_AT, TAPS_AT))
    kinds = iter(file[weights_at : weights_at + linears])
    tap = HALF_BYTES if taps_kind else FLOAT_BYTES
    at = weights_at + _aligned(linears)  # of what is not counted yet

    def part(size: int) -> int:
        nonlocal at
        at += _aligned(size)
        return _aligned(size)

    def floats(count: int) -> int:
        return part(FLOAT_BYTES * count)

    def linear(outputs: int, inputs: int) -> int:
        columns, kind = padded(outputs), next(kinds)
        number = FLOAT_BYTES if kind == model_file.KINDS["float"] else HALF_BYTES
        if kind in (model_file.KINDS["float"], model_file.KINDS["bfloat16"]):
            weights = part(number * columns * inputs)
        elif kind == model_file.KINDS["int8"]:
            weights = part(columns * padded(inputs, 4)) + part(number * columns) + floats(columns)
        elif kind == model_file.KINDS["sparse"]:
            blocks = columns // LANES
            (kept,) = struct.unpack_from("<I", file, at + 4 * blocks)
            weights = part(4 * (blocks + 1)) + part(2 * kept) + part(4 * LANES * kept)
            weights += part(number * columns) + floats(columns)
        else:
            whole = columns * padded(inputs, GROUP)
            weights = part(whole // 2) + part(whole // GROUP) + part(number * columns)
        return weights + part(number * columns)

    def norm() -> int:
        return floats(width) + floats(width)

    yield (0, "patch"), linear(channels, 5 * (encoder.lookahead + encoder.subsampling))
    if encoder.stem_layers:
        yield (0, "deepen"), sum(linear(channels, 3 * channels) for _ in range(encoder.stem_layers))
    yield (0, "mix"), linear(channels, 3 * channels)
    yield (0, "project"), linear(width, channels * (mels // 4)) + norm()
    for block, shape in enumerate(stored_shapes(encoder), start=1):
        yield (block, "feed-forward in"), linear(shape.ffn_in, width) + linear(width, shape.ffn_in)
        attention = linear(3 * shape.attention_width, width) + linear(width, shape.attention_width)
        distances = 1 if encoder.attention == "linear" else encoder.left_context + 1  # or what is kept of each head
        yield (block, "attention"), attention + floats(shape.heads * distances)
        gate = linear(2 * shape.channels, width)
        taps = part(tap * encoder.conv_kernel_size * shape.channels) + part(tap * shape.channels)
        if state_kind == model_file.STATES["int8"]:
            taps += floats(shape.channels)
        yield (block, "convolution"), gate + taps + linear(width, shape.channels)
        yield (block, "feed-forward out"), linear(shape.ffn_out, width) + linear(width, shape.ffn_out) + norm()
    yield (0, "head"), linear(len(info.units), width)


def _runs(indices: list[int]) -> Iterator[tuple[int, int]]:
    """[1, 2, 3, 7] -> (1, 3), (7, 7)."""
    start = 0
    for at in range(1, len(indices) + 1):
        if at == len(indices) or indices[at] != indices[at - 1] + 1:
            yield indices[start], indices[at - 1]
            start = at


def _lot(heads: int) -> int:
    """Numbers kept for a key's heads; `attention_lot` in kernels.h."""
    lot = 1
    while lot < heads:
        lot = 2 * lot if lot < 16 else lot + 16
    return lot


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _floats(count: int) -> int:
    return _aligned(FLOAT_BYTES * count)
