"""Make the seeds of the fuzz corpus anew: tiny models of several shapes and schemes, and command sets.

Usage: .venv-test/bin/python engine/fuzz/seeds.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kouling import commands, templates
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN, CommandSet, CommandSpec
from kouling.config import Config, EncoderConfig, FeatureConfig
from kouling.deploy import model_file, state_scales
from kouling.encoder import Encoder
from kouling.templates import Templates

CORPUS = Path(__file__).parent / "corpus"
UNITS = (BLANK, UNKNOWN, "go", "stop", "left")
SMALLEST: dict[str, Any] = {
    "layers": 1,
    "attention_heads": 1,
    "hidden_size": 16,
    "conv_kernel_size": 2,
    "ffn_expansion": 1,
    "stem_channels": 4,
    "subsampling": 4,
    "streaming_chunk_size": 8,
    "streaming_step_size": 4,
    "max_cached_frames": 20,
}
DEEP = {"layers": 2, "stem_layers": 1, "streaming_chunk_size": 16, "streaming_step_size": 16}
PRUNED = {
    "layers": 2,
    "attention_heads": 4,
    "layer_heads": [1, 3],
    "layer_ffn": [5, 20, 16, 1],
    "layer_channels": [3, 20],
}
# How weights and state are stored, mels, and what differs from the smallest.
SHAPES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "small": ("int8", "float", 8, {}),
    "heads": ("float", "bfloat16", 8, {"attention_heads": 4, "conv_kernel_size": 5, "max_cached_frames": 80}),
    "deep": ("int8", "float", 12, DEEP),
    "fine": ("int8", "bfloat16", 16, {"subsampling": 1, "streaming_chunk_size": 3, "streaming_step_size": 3}),
    "pruned": ("int8", "float", 8, {**PRUNED, "attention": "local", "local_frames": 8}),
    "linear": ("int4", "bfloat16", 8, {**PRUNED, "attention": "linear"}),
    "sparse": ("int8", "int8", 8, {"hidden_size": 32, "stem_channels": 16, "conv_kernel_size": 5}),
    "wide": ("int4", "float", 8, {"hidden_size": 32, "attention_heads": 2, "stem_channels": 32}),
}
EAGER = {"threshold": 0.01, "refractory_s": 0.0, "hesitation_s": 0.0}
SETS: dict[str, dict[str, Any]] = {
    "words": {"command": [{"name": word, "phrases": [word]} for word in UNITS[2:]]},
    "eager": {**EAGER, "command": [{"name": word, "phrases": [word]} for word in UNITS[2:]]},
    "phrases": {
        "hesitation_s": 0.5,
        "command": [
            {"name": "go", "phrases": ["go [go] (left|stop)", "go"], "threshold": 0.05},
            {"name": "向左", "phrases": ["left [left [left]]", "stop left"]},
        ],
    },
    "slots": {
        **EAGER,
        "slots": {"way": {"l": ["left", "left left"], "s": ["stop"]}},
        "command": [
            {"name": "go", "phrases": ["go ([go] {way})+", "[go & {way} & {then:way}] left"]},
            {"name": "stop", "phrases": ["stop [{way}]"]},
            {"name": "left", "phrases": ["left"]},
        ],
    },
}


def make_model(name: str) -> tuple[ModelInfo, dict[str, Any]]:
    """A model of random weights, loud in its opinions, that is primed with few frames."""
    _, _, mels, changes = SHAPES[name]
    config = Config(features=FeatureConfig(num_mels=mels), encoder=EncoderConfig(**{**SMALLEST, **changes}))
    torch.manual_seed(3)
    state = Encoder(config, len(UNITS)).state_dict()
    for key, value in state.items():
        if key.endswith(("running_var", "batch_norm.weight", "distance_bias")):
            value.uniform_(0.3, 2.0)
    state["head.weight"] *= 12
    if name == "sparse":  # also the very first layer, where the mutator looks
        state["stem.patch.weight"][:, :, :4] = 0
        for key, value in state.items():
            if value.ndim == 2 and key.endswith(".weight") and key != "head.weight":
                blocks = value.view(-1, 16, value.shape[1] // 4, 4)
                blocks *= torch.rand(len(blocks), 1, blocks.shape[2], 1) < 0.5
    weights = {key: value.numpy() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    info = ModelInfo(name, "en", config, UNITS, {"threshold": 0.2, "priming_s": 0.1})
    scales = {
        f"{state_scales.PREFIX}{block}.{each}": np.full(size, 0.02)
        for block, shape in enumerate(config.encoder.blocks)
        for each, size in state_scales.sizes(info, shape).items()
    }
    return info, {**weights, **scales}


def make_set(name: str) -> CommandSet:
    return commands.parse(SETS[name], UNITS, name)


def make_enrolled(info: ModelInfo) -> CommandSet:
    """Two commands of random templates, one of which has a phrase too."""
    rng = np.random.default_rng(3)
    width = info.config.encoder.hidden_size + 1
    key = templates.encoder_key(info)
    made = [
        Templates(info.name, key, tuple(rng.normal(0, 0.2, (rows, width)).astype(np.float32) for rows in sizes))
        for sizes in ((1, 3, 6), (2, 9, 4, 5))
    ]
    first, *_ = make_set("words").commands
    second = CommandSpec("往左", (), (), 0.05, enrolled=made[1])
    return CommandSet((replace(first, threshold=0.1, enrolled=made[0]), second), refractory_s=0.1)


def main() -> None:
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.glob("seed-*"):
        old.unlink()
    for name, (scheme, state, _, _) in SHAPES.items():
        info, weights = make_model(name)
        (CORPUS / f"seed-{name}").write_bytes(model_file.pack(info, weights, make_set("phrases"), scheme, state))
    for name in SETS:
        (CORPUS / f"seed-set-{name}").write_bytes(model_file.pack_commands(make_model("small")[0], make_set(name)))
    info = make_model("small")[0]
    (CORPUS / "seed-set-enrolled").write_bytes(model_file.pack_commands(info, make_enrolled(info)))


if __name__ == "__main__":
    main()
