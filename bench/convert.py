"""Graphs to the files of the peers, kept in build/bench/models until anything that they come from changes.

`python -m bench.convert MODEL KIND RUNTIME FOLDER DIGEST SCHEME...`, a process of its own, converts a graph for a
runtime: exporters print, warn and crash as they like. What was tried and is not here stands in docs/bench.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from bench import graphs
from bench.graphs import Graph
from bench.result import ENGINE
from bench.workers import Variant
from kouling import encoder, recognizer

CALIBRATION_CALLS = 64  # of the step, for static int8
ROOT = Path(__file__).parent.parent
SUFFIXES = {"ONNX Runtime": ".onnx", "LiteRT": ".tflite", "ExecuTorch": ".pte", "OpenVINO": ".xml"}
UNFINISHED = "-unfinished"
EXPORTERS = (
    *("torch", "onnxruntime", "onnxscript", "litert-torch", "ai-edge-quantizer", "executorch", "torchao"),
    *("openvino", "nncf"),
)
Files = dict[tuple[str, str, str], Path]  # graph, runtime, scheme


def onnx(graph: Graph, output: Path, scheme: str, whole: Path) -> None:
    """whole: the float file, which is written first."""
    if scheme == "float":
        program = torch.onnx.export(graph.module, tuple(graph.inputs), opset_version=18, dynamo=True, verbose=False)
        assert program is not None
        program.save(output)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Without skip_optimization it makes Reshape, Gemm and Reshape of every linear layer, which is slower.
    quant_pre_process(whole, output, skip_symbolic_shape=True, skip_optimization=True)
    kinds = ["MatMul", "Gemm"]
    quantize_dynamic(output, output, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=kinds)


def openvino(graph: Graph, output: Path, scheme: str, whole: Path) -> None:
    """Two files: the weights lie beside the graph, under the name that it ends up with."""
    import nncf
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        onnx(graph, Path(folder) / "float.onnx", "float", whole)
        model = ov.convert_model(Path(folder) / "float.onnx")
        if scheme != "float":
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        kept = output.with_stem(output.stem.removesuffix(UNFINISHED))
        ov.serialize(model, output, kept.with_suffix(".bin"))


def litert(graph: Graph, output: Path, scheme: str, whole: Path) -> None:
    if scheme == "float":
        import litert_torch

        litert_torch.convert(graph.module, tuple(graph.inputs)).export(str(output))
        return
    from ai_edge_quantizer import quantizer, recipe

    quantising = quantizer.Quantizer(str(whole))
    # The linear layers alone. The recipe as it is takes the depthwise convolutions too: 19 dB in en-small, and slower.
    rules = [{**rule, "operation": "FULLY_CONNECTED"} for rule in recipe.dynamic_wi8_afp32()]
    if scheme == "dynamic int4":
        for rule in rules:  # a scale for 32 weights, as in the engine
            rule["op_config"]["weight_tensor_config"] |= {"num_bits": 4, "granularity": "BLOCKWISE_32"}
    quantising.load_quantization_recipe(rules)
    quantising.quantize().export_model(str(output), overwrite=True)


def executorch(graph: Graph, output: Path, scheme: str, whole: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    module = graph.module if scheme == "float" else quantised(graph, scheme == "dynamic int8")
    partitioners: list[Any] = [XnnpackPartitioner()]
    if scheme == "dynamic int8":
        partitioners.insert(0, XnnpackDynamicallyQuantizedPartitioner())
    program = torch.export.export(module, tuple(graph.inputs), strict=False)
    edge = to_edge_transform_and_lower(
        program, partitioner=partitioners, compile_config=EdgeCompileConfig(_check_ir_validity=False)
    )
    # Inputs and outputs stay where the caller has them, so that a state goes from one step to the next without a copy.
    planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    with output.open("wb") as file:
        edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).write_to_file(file)


def quantised(graph: Graph, dynamic: bool) -> nn.Module:
    """int8 weights by channel; activations by their range in each call, or by that in the speech."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    exported: Any = torch.export.export(graph.module, tuple(graph.inputs), strict=False).module()
    prepared = prepare_pt2e(exported, XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for inputs in [graph.inputs] if dynamic else calibration(graph):
            prepared(*inputs)
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def calibration(graph: Graph) -> Iterator[list[Tensor]]:
    """Inputs from the speech: for the step, calls one behind the other with the states that they meet."""
    state = graph.inputs[1:]
    speech = torch.from_numpy(graph.speech[: CALIBRATION_CALLS * graph.frames])
    for features in speech.split(graph.frames):
        yield [features[None], *state]
        if state:
            _, *state = graph.module(features[None], *state)


CONVERTERS = {"ONNX Runtime": onnx, "LiteRT": litert, "ExecuTorch": executorch, "OpenVINO": openvino}


def all_of(every: list[Graph], variants: list[Variant], folder: Path, failures: dict[str, str]) -> Files:
    """The files of the peers, made where they are missing, as many at once as there are cores."""
    folder.mkdir(parents=True, exist_ok=True)
    schemes: dict[str, list[str]] = {}
    for variant in variants:
        if variant.runtime != ENGINE and variant.scheme not in schemes.setdefault(variant.runtime, []):
            schemes[variant.runtime].append(variant.scheme)
    tasks = [(graph, runtime) for graph in every for runtime in schemes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(one_of, graph, runtime, schemes[runtime], folder) for graph, runtime in tasks]
        files: Files = {}
        for future in track(futures, "converting ...", console=Console(stderr=True)):
            made, errors = future.result()
            files |= made
            failures |= errors
    return files


def one_of(graph: Graph, runtime: str, schemes: list[str], folder: Path) -> tuple[Files, dict[str, str]]:
    """The files of a graph for a runtime, and why some are missing."""
    digest = digest_of(graph.model)
    paths = {scheme: path_of(folder, graph.model, graph.kind, runtime, scheme, digest) for scheme in schemes}
    errors: dict[str, str] = {}
    if not all(path.exists() for path in paths.values()):
        command = [sys.executable, "-m", "bench.convert", graph.model, graph.kind, runtime, str(folder), digest]
        done = subprocess.run([*command, *schemes], cwd=ROOT, check=False, capture_output=True, text=True)
        words = done.stderr.strip().splitlines()
        last = f"the exporter ended with code {done.returncode}: {words[-1] if words else ''}"
        told = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else dict.fromkeys(schemes, last)
        missing = [scheme for scheme in told if not paths[scheme].exists()]
        errors = {f"{runtime} {scheme}, {graph.name}": told[scheme] for scheme in missing}
    return {(graph.name, runtime, scheme): path for scheme, path in paths.items() if path.exists()}, errors


def path_of(folder: Path, model: str, kind: str, runtime: str, scheme: str, digest: str) -> Path:
    name = f"{model}-{kind}-{runtime}-{scheme}-{digest}".lower().replace(" ", "-")
    return folder / f"{name}{SUFFIXES[runtime]}"


def digest_of(model: str) -> str:
    """Changes with all that a converted file comes from."""
    versions = [found.version for name in EXPORTERS for found in importlib.metadata.distributions(name=name)]
    code = [Path(each) for each in (__file__, graphs.__file__, encoder.__file__)]
    sources = [*code, recognizer.MODELS / model / "model.safetensors"]
    return hashlib.sha256(b"\0".join([repr(versions).encode(), *(p.read_bytes() for p in sources)])).hexdigest()[:10]


def main() -> None:
    model, kind, runtime, folder, digest, *schemes = sys.argv[1:]
    torch.set_num_threads(1)
    _, loaded = graphs.load(model, graphs.speech(ROOT / "examples"))
    (graph,) = (each for each in loaded if each.kind == kind)
    errors = {}
    for scheme in schemes:
        output, whole = (path_of(Path(folder), model, kind, runtime, each, digest) for each in (scheme, "float"))
        unfinished = output.with_stem(output.stem + UNFINISHED)
        try:
            if not output.exists():
                CONVERTERS[runtime](graph, unfinished, scheme, whole)
                unfinished.rename(output)
        except Exception as error:  # whatever an exporter raises
            errors[scheme] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    print(f"\n{json.dumps(errors)}")


if __name__ == "__main__":
    main()
