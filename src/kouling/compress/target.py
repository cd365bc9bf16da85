"""What a compression is for, the C engine or an NPU: which forms of a model it runs, what they cost, how they are made,
and how to hear with them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from kouling import audio, checkpoint
from kouling.checkpoint import ModelInfo
from kouling.compress import cost
from kouling.compress.cost import Cost
from kouling.compress.plan import FORMS
from kouling.deploy import bundle, engine, ethos_u, speech
from kouling.deploy.graph import STATIC, Graph
from kouling.deploy.pytorch import one_thread
from kouling.features import LogMel
from kouling.recognizer import Recognizer, load

Tensors = Mapping[str, NDArray[Any]]
PRICED_S = 10.0  # of audio, by which a candidate is made static int8 to see what it costs: ranges cost nothing


class Target(Protocol):
    """Weights and state, as a candidate names them, are two of `forms`; weights of None are those of the checkpoint."""

    name: str
    identity: str  # the name, and all else that what it makes depends on
    forms: tuple[tuple[str, str], ...]  # the gentlest first
    suffix: str  # of the file or folder that `make` writes
    said: str  # how costs came about, for people

    def price(self, info: ModelInfo, weights: str, state: str, frames: int, tensors: Tensors | None = None) -> Cost:
        """Of a model of this configuration; frames: feature frames of the call that is judged. tensors: what it has
        learnt, if it has. Raises: ValueError where it does not run such a shape."""

    def make(self, source: Path, made: Path, weights: str | None, state: str, frames: int) -> Cost:
        """Write a checkpoint in this form -> its cost. Raises: ValueError where it cannot."""

    def recognizer(self, made: Path) -> Recognizer: ...


class InEngine:
    name, identity, suffix = "engine", "engine", ".kouling"
    forms: tuple[tuple[str, str], ...] = FORMS
    said = "In the C engine, a stream that computes one step at a time. Variables are a stream's state and workspace."

    def price(self, info: ModelInfo, weights: str, state: str, frames: int, tensors: Tensors | None = None) -> Cost:
        return cost.of_shape(info, weights, state, frames)

    def make(self, source: Path, made: Path, weights: str | None, state: str, frames: int) -> Cost:
        engine.export(source, made, weights, state=state)
        return cost.of_file(made, frames)

    def recognizer(self, made: Path) -> Recognizer:
        return engine.Engine(made).recognizer()


class OnEthosU:
    """Static int8, compiled by Vela, which estimates what a step takes; nothing is run on an NPU. LiteRT hears, which
    computes the same numbers."""

    suffix = ".ethos-u"
    forms: tuple[tuple[str, str], ...] = (("int8", "int8"),)

    def __init__(self, accelerator: str, recordings: Path) -> None:
        """accelerator: Vela's name of it, the most usual one if empty. recordings: real speech, by which static int8 is
        calibrated. Raises: ValueError where there is no such accelerator or no speech."""
        self.accelerator = accelerator or ethos_u.DEFAULT
        if self.accelerator not in ethos_u.SYSTEMS:
            raise ValueError(f"no accelerator {accelerator!r}; allowed: {', '.join(ethos_u.SYSTEMS)}")
        self.recordings = recordings
        self.name = f"ethos-u ({self.accelerator})"
        self.said = (
            f"Vela's estimate for {self.accelerator}; nothing was run on an NPU. Model: what lies in flash; variables: "
            "SRAM. What was right was counted in LiteRT, which computes the same numbers. As trained: in the C engine."
        )
        calibrating, _ = speech.halves(recordings)
        self.identity = f"{self.name}, {digest(calibrating.tobytes())}"
        self._heard = calibrating[: round(PRICED_S * audio.SAMPLE_RATE_HZ)]

    def price(self, info: ModelInfo, weights: str, state: str, frames: int, tensors: Tensors | None = None) -> Cost:
        """Without tensors some hundredths off: Vela stores numbers that come often in fewer bits."""
        with tempfile.TemporaryDirectory() as scratch, one_thread():
            source, folder = Path(scratch) / "model.safetensors", Path(scratch) / "made"
            folder.mkdir()
            checkpoint.save(source, info, cost.random_weights(info) if tensors is None else tensors)
            graph = Graph(source)
            features = LogMel(info.config.features).accept(self._heard)
            graph.equalize(features)
            _, estimate = ethos_u.convert(graph, self.accelerator, features, folder)
        return _cost(estimate, info, cost.parameters_of(info), frames)

    def make(self, source: Path, made: Path, weights: str | None, state: str, frames: int) -> Cost:
        shutil.rmtree(made, ignore_errors=True)
        order = bundle.Order("ethos-u", STATIC, recordings=self.recordings, accelerator=self.accelerator)
        found = bundle.export(source, order, made)
        assert isinstance(found.estimate, ethos_u.Estimate)
        info = found.description.info
        return _cost(found.estimate, info, int(info.provenance.get("parameters", 0)), frames)

    def recognizer(self, made: Path) -> Recognizer:
        return load(made)


def digest(content: bytes) -> str:
    """By which it is known again."""
    return hashlib.sha256(content).hexdigest()[:12]


def _cost(estimate: ethos_u.Estimate, info: ModelInfo, parameters: int, frames: int) -> Cost:
    steps = max(frames // info.config.encoder.streaming_step_size, 1)
    step_us, sizes = 1e3 * estimate.time_ms, (estimate.storage_bytes, estimate.sram_bytes)
    return Cost(parameters, *sizes, step_us, steps * info.config.encoder.streaming_step_size, steps * estimate.time_ms)
