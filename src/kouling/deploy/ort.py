"""ONNX Runtime, and whatever else reads ONNX: the fused step with named tensors and fixed shapes, as float, with int8
weights, or as static int8; each also in ORT format, which the runtime's small builds for devices take.

`onnx.py` is the other ONNX export: the step as it is in PyTorch, in which a shipped model runs where the C engine was
not built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import write_whole
from kouling.deploy.graph import (
    DYNAMIC,
    FLOAT,
    STATIC,
    Array,
    Call,
    Description,
    Graph,
    Written,
    on_cpu,
    quiet,
)
from kouling.deploy.onnx import METADATA_KEY, open_session, to_onnx

FILE = "model.onnx"  # a folder with `step.onnx` is one of the other kind (recognizer.STEP_FILE)
SMALL_FILE = "model.ort"
INSTALL = "pip install 'kouling[train,onnx]'"
SCHEMES = (FLOAT, DYNAMIC, STATIC)
CALIBRATION_CALLS = 300


def convert(graph: Graph, scheme: str, features: NDArray[np.float32] | None, folder: Path) -> Written:
    """Write `model.onnx` and `model.ort`. features: (frames, M), what static int8 is calibrated by.

    Raises: ValueError where a package is missing, or there is nothing to calibrate by.
    """
    path = folder / FILE
    write_float(graph, path)
    if scheme != FLOAT:
        _quantize(path, scheme, graph, features)
    _write_small(path, folder / SMALL_FILE)
    return Written(FILE, *graph.specs(), on_cpu(operators(path)))


def write_float(graph: Graph, path: Path) -> None:
    """The fused step as ONNX. Raises: ValueError where a package is missing."""
    with quiet():
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(f"export to ONNX needs {error.name}; install with: {INSTALL}") from None
        given, made = graph.specs()
        names = [spec.name for spec in given], [spec.name for spec in made]
        model = to_onnx(graph.module, graph.inputs(), *names)
    _write(model, graph, path)


def operators(path: Path) -> Counter[str]:
    """How many operators of each kind an ONNX file has."""
    import onnx

    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def load(description: Description, folder: Path) -> Call:
    """The step in ONNX Runtime, on one thread. Raises: ValueError where it is missing or the file is unusable."""
    session = open_session(folder / description.file)
    names = [spec.name for spec in description.inputs]
    wanted = [spec.name for spec in description.outputs]

    def call(tensors: Sequence[Array]) -> list[Array]:
        found: list[Array] = session.run(wanted, dict(zip(names, tensors, strict=True)))
        return found

    return call


def _write(model: Any, graph: Graph, path: Path) -> None:
    """With the model's description, and how to drive the step, as metadata: another program needs no model.json."""
    import onnx

    del model.metadata_props[:]
    told = {
        METADATA_KEY: graph.info.to_json(),
        "frames": str(graph.frames),
        "state": "each output NAME.next is the input NAME of the next call; state.bin has the first",
    }
    for key, value in told.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    write_whole(path, model.SerializeToString())


def _quantize(path: Path, scheme: str, graph: Graph, features: NDArray[np.float32] | None) -> None:
    """int8 weights by channel, in place, of the products with weights; static int8 of the convolutions too."""
    with quiet():
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

        model = onnx.load(str(path))
        fixed = {tensor.name for tensor in model.graph.initializer}
        # Scores and what they weigh: products of two activations, float. To quantise each frame of them anew costs more
        # than it saves.
        attending = [n.name for n in model.graph.node if n.op_type == "MatMul" and not fixed & set(n.input)]
        chosen: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8, "nodes_to_exclude": attending}
        if scheme == DYNAMIC:
            quantize_dynamic(str(path), str(path), op_types_to_quantize=["MatMul", "Gemm"], **chosen)
        else:
            quantize_static(
                str(path),
                str(path),
                _reader(graph.named_calls(features, CALIBRATION_CALLS)),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,  # signed ones take twice as long on x86
                op_types_to_quantize=["MatMul", "Gemm", "Conv"],
                **chosen,
            )
        _write(onnx.load(str(path)), graph, path)


def _reader(calls: Iterator[dict[str, Array]]) -> Any:
    """Calls as ONNX Runtime's quantizer asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(calls, None)

    return Reader()


def _write_small(path: Path, output: Path) -> None:
    """The same model in ORT format, with the optimisations that no device is needed for."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(output)
    with quiet():
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
