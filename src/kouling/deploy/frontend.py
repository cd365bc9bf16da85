"""Features and decoder of a model for a device whose NPU computes the encoder: a model file of the C engine with the
same features, units, time grid and commands, and with next to no encoder. The device calls

    kouling_features(stream, samples, ...)     samples -> feature frames
    (the NPU)                                  a step of features and the state -> logits and the next state
    kouling_decode(stream, log_probs, ...)     -> events

and never `kouling_accept`, whose encoder is a stub.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kouling.checkpoint import ModelInfo
from kouling.commands import CommandSet
from kouling.deploy import model_file
from kouling.encoder import Encoder
from kouling.recognizer import own_commands

FILE = "frontend.kouling"
SUFFIX = "-frontend"


def pack(info: ModelInfo, command_set: CommandSet | None = None) -> bytes:
    """command_set: what to listen for; every word of the model if left out."""
    encoder = replace(
        info.config.encoder,
        layers=1,
        hidden_size=16,
        attention_heads=1,
        conv_kernel_size=3,
        ffn_expansion=1,
        stem_channels=4,
        stem_layers=0,
        attention="windowed",
        layer_heads=[],
        layer_ffn=[],
        layer_channels=[],
    )
    stub = replace(info, name=info.name + SUFFIX, config=replace(info.config, encoder=encoder))
    tensors = Encoder(stub.config, len(stub.units)).state_dict()
    weights = {key: np.zeros_like(value.numpy()) for key, value in tensors.items() if "num_batches" not in key}
    weights |= {key: np.ones_like(value) for key, value in weights.items() if key.endswith("running_var")}
    return model_file.pack(stub, weights, command_set or own_commands(info))
