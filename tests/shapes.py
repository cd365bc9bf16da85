"""Shapes of small encoders, and checkpoints of random weights that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN
from kouling.config import Config, EncoderConfig, FeatureConfig
from kouling.deploy import state_scales

SMALL_ENCODER = EncoderConfig(
    layers=2,
    attention_heads=2,
    hidden_size=16,
    conv_kernel_size=5,
    ffn_expansion=2,
    stem_channels=4,
    subsampling=4,
    streaming_chunk_size=12,
    streaming_step_size=8,
    max_cached_frames=40,
)
# Blocks that are not all alike: what pruning may leave, with heads of 16 numbers and of 8, and all kinds of attention.
WIDE: dict[str, Any] = {"hidden_size": 64, "attention_heads": 4}
NARROWED: dict[str, Any] = {"layer_heads": [3, 1], "layer_ffn": [20, 128, 33, 7], "layer_channels": [64, 41]}
NARROW: dict[str, Any] = {"layer_heads": [1, 2], "layer_ffn": [5, 32, 40, 17], "layer_channels": [3, 20]}
SHAPES: dict[str, dict[str, Any]] = {
    "pruned": {**WIDE, **NARROWED},
    "local": {**NARROW, "attention": "local", "local_frames": 20},
    "linear": {**WIDE, **NARROWED, "attention": "linear"},
    "linear, heads of 8": {**NARROW, "attention": "linear"},
    "batch normalisation": {**WIDE, "norm": "batch"},
}


UNITS = (BLANK, UNKNOWN, "go", "stop", "left")


def save_random(path: Path, shape: EncoderConfig, units: tuple[str, ...] = UNITS) -> None:
    """A checkpoint of random weights, loud in its opinions."""
    torch = pytest.importorskip("torch", reason="the toolkit needs torch", exc_type=ImportError)
    from kouling.encoder import Encoder

    config = Config(features=FeatureConfig(num_mels=16), encoder=shape)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = Encoder(config, len(units))
        state = encoder.state_dict()
        state["head.weight"] *= 6  # else all is near to uniform, and no command is ever heard
        for key, value in state.items():
            if key.endswith(".norm.running_mean"):
                value.normal_(0, 0.2)
            elif key.endswith(("running_mean", "batch_norm.bias")):
                value.normal_()
            elif key.endswith(("running_var", "batch_norm.weight", "distance_bias")):
                value.uniform_(0.3, 2.0)
    weights = {k: v.half().numpy() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    provenance = {"parameters": sum(value.size for value in weights.values()), "accuracy": 0.125}
    info = ModelInfo("tiny", "en", config, units, {"threshold": 0.3}, provenance)
    scales = {
        f"state.{block}.{name}": np.full(size, 0.02)
        for block, own in enumerate(shape.blocks)
        for name, size in state_scales.sizes(info, own).items()
    }
    checkpoint.save(path, info, {**weights, **scales})
