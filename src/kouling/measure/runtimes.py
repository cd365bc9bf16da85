"""The runtimes that can be measured, each behind the same calls. Another one is a `Runtime` in `RUNTIMES`.

What `kouling export` makes of a model for another runtime is a bundle, whose `model.json` says for which. An NPU's is
not run here: its figures are its compiler's estimates, and of what the compiler does not say there are none.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import recognizer
from kouling.checkpoint import ModelInfo
from kouling.deploy import engine, ethos_u, rknn
from kouling.deploy.graph import Description
from kouling.deploy.onnx import OnnxRunner
from kouling.measure import arena, footprint
from kouling.measure.footprint import ACTIVATION, Buffer, Plan
from kouling.recognizer import Recognizer, Runner

SIZES = {"step": 0, "300": 300, "500": 500}  # feature frames of a call; a step has as many as the model says

Floats = NDArray[np.float32]
Call = Callable[[Floats], Floats]  # feature frames (T, M) -> log-probabilities (N, V)


@dataclass(frozen=True)
class Runtime:
    name: str
    file: str  # of a model's folder
    module: str  # which must be installed
    install: str  # the command that installs it
    export: str  # how to get the file from a checkpoint
    open: Callable[[Path], Any]  # -> Engine or Runner
    plan: Callable[[Path, Any, int], Plan]  # file, opened, feature frames
    target: str = ""  # of its bundles
    estimates: str = ""  # a file of a bundle's folder: what an NPU's compiler says, where there is no NPU to measure


def _plan_engine(path: Path, opened: engine.Engine, frames: int) -> Plan:
    at_once = _at_once(opened.info, frames)
    return arena.plan(path.read_bytes(), opened.info, frames, opened.stream(at_once).size, at_once)


def _plan_onnx(path: Path, opened: Runner, frames: int) -> Plan:
    return footprint.in_float32(opened.info.config, len(opened.info.units), frames, path.stat().st_size)


def _plan_torch(path: Path, opened: Runner, frames: int) -> Plan:
    return footprint.in_float32(opened.info.config, len(opened.info.units), frames)


def _open_bundle(path: Path) -> Runner:
    from kouling.deploy import bundle

    return bundle.load(path.parent)


def _plan_bundle(path: Path, opened: Any, frames: int) -> Plan:
    file = path.parent / opened.description.file
    return footprint.in_float32(opened.info.config, len(opened.info.units), frames, file.stat().st_size)


def _plan_ethos_u(path: Path, opened: Any, frames: int) -> Plan:
    told = json.loads((path.parent / ethos_u.REPORT).read_text())
    counted = _plan_bundle(path, opened, frames)
    sram = Buffer("SRAM", ACTIVATION, told["sram_bytes"], 0, len(counted.operations) - 1)
    return replace(counted, buffers=(sram,), model_bytes=told["storage_bytes"])


def _plan_rknn(path: Path, opened: Any, frames: int) -> Plan:
    told = json.loads((path.parent / rknn.REPORT).read_text())
    counted = _plan_bundle(path, opened, frames)
    internal = Buffer("internal memory", ACTIVATION, told["internal_bytes"], 0, len(counted.operations) - 1)
    return replace(counted, buffers=(internal,), model_bytes=told["weight_bytes"])


@dataclass(frozen=True)
class Described:
    """A bundle that is not run: RKNN Toolkit's simulator takes an environment of its own, and knows no time."""

    description: Description

    @property
    def info(self) -> ModelInfo:
        return self.description.info


def _bundle(name: str, target: str, module: str, plan: Any = _plan_bundle, estimates: str = "") -> Runtime:
    install = f"pip install 'kouling[{target}]'"
    export = f"kouling export {{}} --target {target} -o DIR"
    return Runtime(name, recognizer.BUNDLE_FILE, module, install, export, _open_bundle, plan, target, estimates)


def _open_torch(path: Path) -> Runner:
    from kouling.deploy.pytorch import TorchRunner

    return TorchRunner(path)


RUNTIMES = {
    each.name: each
    for each in (
        Runtime(
            "engine",
            recognizer.ENGINE_FILE,
            "kouling._engine",
            "pip install --force-reinstall --no-deps kouling  (with a C++ compiler; the engine was not built)",
            "kouling export {} --target engine -o MODEL.kouling",
            engine.Engine,
            _plan_engine,
        ),
        Runtime(
            "onnx",
            recognizer.STEP_FILE,
            "onnxruntime",
            "pip install 'kouling[onnx]'",
            "kouling export {} --target onnx -o step.onnx",
            OnnxRunner,
            _plan_onnx,
        ),
        _bundle("onnx-bundle", "onnx", "onnxruntime"),
        _bundle("litert", "litert", "ai_edge_litert"),
        _bundle("openvino", "openvino", "openvino"),
        _bundle("executorch", "executorch", "executorch"),
        _bundle("ethos-u", "ethos-u", "ai_edge_litert", _plan_ethos_u, ethos_u.REPORT),
        _bundle("executorch-ethos-u", "executorch-ethos-u", "torchao", _plan_ethos_u, ethos_u.REPORT),
        replace(
            _bundle("rknn", "rknn", "kouling", _plan_rknn, rknn.REPORT),
            open=lambda path: Described(Description.load(path)),
        ),
        Runtime(
            "torch",
            "model.safetensors",
            "torch",
            "pip install 'kouling[train]'",
            "kouling train",
            _open_torch,
            _plan_torch,
        ),
    )
}


@dataclass(frozen=True)
class Subject:
    """A model's file, opened on a runtime."""

    runtime: Runtime
    path: Path
    opened: Any

    @property
    def info(self) -> ModelInfo:
        info: ModelInfo = self.opened.info
        return info

    @property
    def form(self) -> str:
        """The runtime, and what there is to say of a bundle for it."""
        if not self.runtime.target:
            return self.runtime.name
        description: Description = self.opened.description
        told = self._estimates
        return f"{told['accelerator']} (estimated)" if told else f"{self.runtime.name} ({description.scheme})"

    def frames(self, size: str) -> int:
        """Feature frames of a call: 300 and 500 rounded up to whole steps, or to the calls a bundle is made for."""
        step = self.info.config.encoder.streaming_step_size
        at_once = self.opened.description.frames if self.runtime.target else step
        return max(-(-SIZES[size] // at_once), 1) * int(at_once)

    @property
    def _estimates(self) -> dict[str, Any] | None:
        if not self.runtime.estimates:
            return None
        told: dict[str, Any] = json.loads((self.path.parent / self.runtime.estimates).read_text())
        return told

    def estimated_ms(self, size: str) -> float | None:
        """What a call takes on an NPU; None where it can be measured, or its compiler does not say."""
        time_ms = (self._estimates or {}).get("time_ms")
        return None if time_ms is None else time_ms * self.frames(size) / self.opened.description.frames

    def plan(self, size: str) -> Plan:
        return self.runtime.plan(self.path, self.opened, self.frames(size))

    def call(self, size: str) -> Call:
        """A stream of its own, called with that many feature frames again and again; it remembers from call to call."""
        if isinstance(self.opened, engine.Engine):
            stream = self.opened.stream(_at_once(self.info, self.frames(size)))
            subsampling = self.info.config.encoder.subsampling
            return lambda features: stream.log_probs(features, subsampling)
        state = self.opened.initial_state()

        def call(features: Floats) -> Floats:
            nonlocal state
            log_probs, state = self.opened.step(features, state)
            result: Floats = log_probs
            return result

        return call

    @property
    def hears(self) -> bool:
        return not isinstance(self.opened, Described)

    def recognizer(self) -> Recognizer:
        """A stream of its own from samples to commands, of all the model's words."""
        return self.opened.recognizer() if isinstance(self.opened, engine.Engine) else Recognizer(self.opened)


def find(model: str | Path, runtime: str | None = None) -> tuple[Runtime, Path]:
    """The runtime and its file of a model: an installed model's name, a folder, or a file; the runtime that fits the
    file if none is named, in a folder the engine.

    Raises: ValueError, one line, where there is no such model or runtime, or the runtime is not installed.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise ValueError(f"no runtime {runtime!r}; allowed: {', '.join(RUNTIMES)}")
    path = recognizer.MODELS / str(model) if str(model) in recognizer.model_names() else Path(model)
    if path.is_dir():
        target = _made_for(path / recognizer.BUNDLE_FILE)
        there = [each for each in RUNTIMES.values() if (path / each.file).is_file() and each.target in ("", target)]
        otherwise = recognizer.BUNDLE_FILE if target else recognizer.ENGINE_FILE
        there.sort(key=lambda each: not is_installed(each))  # stable: the engine first, where it was built
        path = path / (RUNTIMES[runtime].file if runtime else there[0].file if there else otherwise)
    elif not path.is_file():
        path = recognizer.find_model(model)  # says what there is
    target = _made_for(path)
    suited = [each for each in RUNTIMES.values() if Path(each.file).suffix == path.suffix and each.target == target]
    if target and not suited:
        raise ValueError(f"{path.parent}: made for {target}, of which nothing can be measured here")
    chosen = RUNTIMES[runtime] if runtime else suited[0] if suited else RUNTIMES["engine"]
    if chosen not in suited or not path.is_file():
        weights = path.with_name(RUNTIMES["torch"].file)
        raise ValueError(f"{path}: no model for {chosen.name}; make one with: {chosen.export.format(weights)}")
    if not is_installed(chosen):
        raise ValueError(f"{chosen.name} is not installed; install it with: {chosen.install}")
    return chosen, path


def _made_for(path: Path) -> str:
    """The target of a bundle, by its description; of all other files none. Raises: ValueError where it is broken."""
    described = path.suffix == Path(recognizer.BUNDLE_FILE).suffix and path.is_file()
    return Description.load(path).target if described else ""


def is_installed(runtime: Runtime) -> bool:
    return importlib.util.find_spec(runtime.module) is not None


def open_subject(runtime: Runtime, path: Path) -> Subject:
    """Raises: ValueError where the file is unusable."""
    return Subject(runtime, path, runtime.open(path))


def _at_once(info: ModelInfo, frames: int) -> int:
    return engine.LIVE if frames <= info.config.encoder.streaming_step_size else engine.FILE
