"""What a step has to do at least: multiply-accumulates and bytes of weights, from a model's configuration alone."""

from __future__ import annotations

from dataclasses import dataclass

from kouling.config import Config

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Work:
    macs: int  # multiply-accumulates of one encoder frame with full caches
    weight_bytes: int  # weights in int8 with a scale and a bias in float32 for each output; all else in float32


def per_frame(config: Config, units: int) -> Work:
    """units: V, blank included."""
    encoder, mels = config.encoder, config.features.num_mels
    width, channels = encoder.hidden_size, encoder.stem_channels
    seen = encoder.left_context + 1
    half, quarter = mels // 2, mels // 4
    # (outputs, inputs, how often in an encoder frame)
    stem = [
        (channels, 5 * (encoder.subsampling + encoder.lookahead), half),
        *[(channels, 3 * channels, half)] * encoder.stem_layers,
        (channels, 3 * channels, quarter),
        (width, channels * quarter, 1),
    ]
    matrices = [*stem, (units, width, 1)]
    others, floats = 0, 2 * width  # multiply-accumulates of other kinds; numbers that are no matrix
    for shape in encoder.blocks:
        attended, convolved = shape.attention_width, shape.channels
        for outputs, inputs in (
            (shape.ffn_in, width),
            (width, shape.ffn_in),
            (3 * attended, width),
            (width, attended),
            (2 * convolved, width),
            (width, convolved),
            (shape.ffn_out, width),
            (width, shape.ffn_out),
        ):
            matrices.append((outputs, inputs, 1))
        depthwise = encoder.conv_kernel_size * convolved
        # Scores and the sum of values; of linear attention the sums, to which is added and of which is read.
        each = encoder.head_size + 1 if encoder.attention == "linear" else seen
        others += 2 * each * attended + depthwise
        floats += depthwise + convolved + shape.heads * seen + 2 * width  # seen is 1 in linear attention
    macs = others + sum(outputs * inputs * times for outputs, inputs, times in matrices)
    weights = sum(outputs * (inputs + 2 * FLOAT_BYTES) for outputs, inputs, _ in matrices)
    return Work(macs, weights + FLOAT_BYTES * floats)
