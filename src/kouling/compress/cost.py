"""What a shape costs in the engine. Bytes and time do not hang on what the weights are, so nothing need be trained to
know them: a candidate is packed with random weights, and run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.deploy import engine, model_file
from kouling.measure.latency import quiet_core, time_ns
from kouling.recognizer import own_commands

TURNS = 40
WARMING_STEPS = 30


@dataclass(frozen=True)
class Cost:
    """Of a model file in the engine. A stream computes one step at once; however much it is given, it takes no more
    memory, so 500 frames need the variables of one step."""

    parameters: int
    model_bytes: int
    variable_bytes: int  # state and workspace of a stream
    step_us: float
    frames: int  # feature frames of the call that is judged
    call_ms: float  # their time, step by step

    @property
    def total_bytes(self) -> int:
        return self.model_bytes + self.variable_bytes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}


def of_file(path: Path, frames: int, turns: int = TURNS) -> Cost:
    """The cost of a model file. Raises: ValueError where it is none."""
    opened = engine.Engine(path)
    info = opened.info
    encoder = info.config.encoder
    stream = opened.stream(engine.LIVE)
    step = encoder.streaming_step_size
    heard = np.random.default_rng(0).uniform(0, 2, (step, info.config.features.num_mels)).astype(np.float32)
    many = np.tile(heard, (max(frames // step, 1), 1))
    for _ in range(encoder.max_cached_frames // step + WARMING_STEPS):  # the caches are full
        stream.log_probs(heard, encoder.subsampling)
    with quiet_core():
        # Many steps in one call: Python's part in a single one is as long as a small model's step.
        taken = [time_ns(lambda: stream.log_probs(many, encoder.subsampling)) for _ in range(turns)]
    steps = len(many) // step
    median = float(np.median(taken))
    return Cost(
        int(info.provenance.get("parameters", 0)),
        path.stat().st_size,
        stream.size,
        median / steps / 1e3,
        len(many),
        median / 1e6,
    )


def of_shape(info: ModelInfo, weights: str, state: str, frames: int, turns: int = 10) -> Cost:
    """The cost of a model of this configuration, whatever it has learnt.

    weights, state: as `model_file.pack` takes them. Raises: ValueError where the engine does not run such a shape.
    """
    made = random_weights(info)
    packed = model_file.pack(info, made, own_commands(info), weights, state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.kouling"
        path.write_bytes(packed)
        cost = of_file(path, frames, turns)
    return replace(cost, parameters=parameters_of(info))


def parameters_of(info: ModelInfo) -> int:
    """Trained numbers of a model of this configuration."""
    return sum(value.size for name, value in random_weights(info).items() if "running" not in name)


def random_weights(info: ModelInfo) -> Mapping[str, NDArray[Any]]:
    import torch

    from kouling.encoder import Encoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = Encoder(info.config, len(info.units)).state_dict()
    return {k: v.numpy() for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
