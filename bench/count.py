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
    inner, seen = width * encoder.ffn_expansion, encoder.left_context + 1
    half, quarter = mels // 2, mels // 4
    # (outputs, inputs, how often in an encoder frame)
    stem = [
        (channels, 5 * (encoder.subsampling + encoder.lookahead), half),
        *[(channels, 3 * channels, half)] * encoder.stem_layers,
        (channels, 3 * channels, quarter),
        (width, channels * quarter, 1),
    ]
    feed_forward = [(inner, width, 1), (width, inner, 1)]
    square = (width, width, 1)
    block = [*feed_forward, (3 * width, width, 1), square, (2 * width, width, 1), square, *feed_forward]
    matrices = [*stem, *block * encoder.layers, (units, width, 1)]
    attention = 2 * seen * width  # scores, and the sum of values
    depthwise = encoder.conv_kernel_size * width
    macs = sum(outputs * inputs * times for outputs, inputs, times in matrices)
    norm = 2 * width
    floats = encoder.layers * (depthwise + width + encoder.attention_heads * seen + norm) + norm
    weights = sum(outputs * (inputs + 2 * FLOAT_BYTES) for outputs, inputs, _ in matrices)
    return Work(macs + encoder.layers * (attention + depthwise), weights + FLOAT_BYTES * floats)
