"""An export as a folder: the model's file, all that its user needs to run it, and the proof that it is right."""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kouling import audio
from kouling.checkpoint import write_whole
from kouling.deploy import (
    bundle_page,
    ethos_u,
    executorch,
    executorch_ethos_u,
    frontend,
    fused,
    litert,
    openvino,
    ort,
    parity,
    rknn,
    speech,
)
from kouling.deploy.graph import FLOAT, STATIC, BundleRunner, Call, Description, Graph, Placed, Written
from kouling.deploy.parity import Parity
from kouling.deploy.pytorch import one_thread
from kouling.features import LogMel
from kouling.recognizer import BUNDLE_FILE

GOLDEN = "golden"
GOLDEN_S = 8.0
MADE_UP_S = 20.0
Converter = Callable[[Graph, str, speech.Features | None, Path], Written]
Loader = Callable[[Description, Path], Call]
CONVERTERS: dict[str, Converter] = {
    "onnx": ort.convert,
    "litert": litert.convert,
    "openvino": openvino.convert,
    "executorch": executorch.convert,
}
LOADERS: dict[str, Loader] = {
    "onnx": ort.load,
    "litert": litert.load,
    "ethos-u": litert.load,
    "openvino": openvino.load,
    "executorch": executorch.load,
    "executorch-ethos-u": executorch_ethos_u.load,
    "rknn": rknn.load,
}
SCHEMES = {
    "onnx": ort.SCHEMES,
    "litert": litert.SCHEMES,
    "ethos-u": ethos_u.SCHEMES,
    "openvino": openvino.SCHEMES,
    "executorch": executorch.SCHEMES,
    "executorch-ethos-u": executorch_ethos_u.SCHEMES,
    "rknn": rknn.SCHEMES,
}
TARGETS = tuple(SCHEMES)
# Seconds of audio that are heard for the comparison where a call is simulated: that takes tens of milliseconds.
SIMULATED_S = {"rknn": 60.0, "executorch-ethos-u": 30.0}
Estimate = ethos_u.Estimate | rknn.Estimate

Progress = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Order:
    """What is wanted. frames: feature frames of a call, those of a step if None; recordings: real audio to calibrate
    static int8 by and to prove the export with; accelerator: of an NPU, its most usual one if left out; levels: see
    `fused.cluster`."""

    target: str
    scheme: str = FLOAT
    frames: int | None = None
    recordings: Path | None = None
    accelerator: str = ""
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.target not in SCHEMES:
            raise ValueError(f"no target {self.target!r}; allowed: {', '.join(TARGETS)}")
        if self.scheme not in SCHEMES[self.target]:
            can = [target for target, schemes in SCHEMES.items() if self.scheme in schemes]
            raise ValueError(
                f"{self.target} takes {', '.join(SCHEMES[self.target])}, not {self.scheme}; that runs on: "
                f"{', '.join(can) or 'no target'}"
            )
        if self.levels is not None and not (3 <= self.levels <= 127 and self.levels % 2):
            raise ValueError(f"levels is {self.levels}; allowed: odd numbers from 3 to 127")
        if self.scheme == STATIC and self.recordings is None:
            raise ValueError("static int8 is calibrated by recordings; give --recordings, a folder of real speech")


@dataclass(frozen=True)
class Exported:
    description: Description
    placed: tuple[Placed, ...]
    parity: Parity | None  # None: a call is longer than the silence with which a stream begins
    estimate: Estimate | None


def export(checkpoint: Path, order: Order, out: Path, progress: Progress = lambda text: nullcontext()) -> Exported:
    """Write a bundle into the new folder `out`, which appears whole or not at all; one that fails the comparison with
    PyTorch is written too, and says so.

    Raises: ValueError where the checkpoint, the order or the recordings are unusable, a package is missing, or `out`
    exists; OSError where it cannot be written.
    """
    if out.exists():
        raise ValueError(f"{out} exists; give a folder that does not, or delete it")
    if order.target == "rknn":
        rknn.python()  # what is missing is said before the work
    with one_thread():  # a step is too small to share
        return _export(checkpoint, order, out, progress)


def _export(checkpoint: Path, order: Order, out: Path, progress: Progress) -> Exported:
    graph = Graph(checkpoint, order.frames)
    calibrating, verifying = None, speech.made_up(MADE_UP_S)
    if order.recordings is not None:
        with progress("reading recordings"):
            calibrating, verifying = speech.halves(order.recordings)
    features = None
    if order.scheme == STATIC and calibrating is not None:
        with progress("calibrating"):
            features = speech.calibration(graph, calibrating)
            graph.equalize(features)
    if order.levels is not None:
        fused.cluster(graph.module, order.levels)
    unfinished = out.with_name(f"{out.name}.{os.getpid()}.part")
    unfinished.mkdir(parents=True)
    try:
        with progress(f"converting for {order.target}"):
            written, estimate = _convert(graph, order, features, unfinished)
        description = _describe(graph, order, written, unfinished)
        if order.target in SIMULATED_S:
            verifying = verifying[: round(SIMULATED_S[order.target] * audio.SAMPLE_RATE_HZ)]
        with progress("comparing with PyTorch"):
            compared = _golden(graph, description, unfinished, verifying)
        told = {
            "operators": [asdict(each) for each in written.placed],
            "parity": compared.to_dict() if compared else None,
            "estimate": asdict(estimate) if estimate else None,
        }
        write_whole(unfinished / "report.json", (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
        card = checkpoint.with_name("card.md")
        if card.is_file():
            shutil.copy(card, unfinished / "card.md")
        found = Exported(description, written.placed, compared, estimate)
        said = f"{estimate.maker}: {estimate.line}" if estimate else ""
        bundle_page.write(unfinished, description, written, compared, said)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return found


def load(folder: Path) -> BundleRunner:
    """The runner of a bundle. Raises: ValueError where it is none or its runtime is missing; FileNotFoundError."""
    description = Description.load(folder / BUNDLE_FILE)
    if description.target not in LOADERS:
        raise ValueError(f"{folder}: made for {description.target!r}; allowed: {', '.join(LOADERS)}")
    return BundleRunner(folder, LOADERS[description.target](description, folder))


def _convert(
    graph: Graph, order: Order, features: speech.Features | None, folder: Path
) -> tuple[Written, Estimate | None]:
    if order.target == "ethos-u":
        return ethos_u.convert(graph, order.accelerator or ethos_u.DEFAULT, features, folder)
    if order.target == "executorch-ethos-u":
        return executorch_ethos_u.convert(graph, order.accelerator or ethos_u.DEFAULT, features, folder)
    if order.target == "rknn":
        return rknn.convert(graph, order.accelerator or rknn.DEFAULT, features, folder)
    return CONVERTERS[order.target](graph, order.scheme, features, folder), None


def _describe(graph: Graph, order: Order, written: Written, folder: Path) -> Description:
    description = Description(
        graph.info, order.target, order.scheme, written.file, graph.frames, written.inputs, written.outputs
    )
    stored = [spec.stored(tensor.numpy()) for spec, tensor in zip(written.inputs[1:], graph.state, strict=True)]
    write_whole(folder / description.initial, b"".join(tensor.tobytes() for tensor in stored))
    write_whole(folder / BUNDLE_FILE, description.to_json().encode())
    write_whole(folder / frontend.FILE, frontend.pack(graph.info))
    write_whole(folder / "units.txt", "".join(f"{unit}\n" for unit in graph.info.units).encode())
    return description


def _golden(graph: Graph, description: Description, folder: Path, samples: speech.Samples) -> Parity | None:
    """Golden vectors of the export itself and of PyTorch, and the comparison over all of the samples."""
    (folder / GOLDEN).mkdir()
    few = samples[: round(GOLDEN_S * audio.SAMPLE_RATE_HZ)]
    features = LogMel(graph.info.config.features).accept(few)
    features = features[: max(len(features) // graph.frames, 1) * graph.frames]
    runner = BundleRunner(folder, LOADERS[description.target](description, folder))
    with wave.open(str(folder / GOLDEN / "samples.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(audio.SAMPLE_RATE_HZ)
        file.writeframes(few.tobytes())
    features.tofile(folder / GOLDEN / "features.f32")
    if len(features) < graph.frames:  # a call is longer than the golden audio: one call of it and silence
        features = np.pad(features, ((0, graph.frames - len(features)), (0, 0)))
        features.tofile(folder / GOLDEN / "features.f32")
    runner.step(features, runner.initial_state())[0].tofile(folder / GOLDEN / "log_probs.f32")
    if graph.frames > graph.info.config.encoder.streaming_step_size:
        return None
    return parity.compare(runner, graph.reference(), description.scheme, samples)
