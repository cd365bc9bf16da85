"""OpenVINO, for Intel's CPUs and NPUs: the fused step as float, with int8 weights, or as static int8 through NNCF."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.deploy import ort
from kouling.deploy.graph import DYNAMIC, FLOAT, STATIC, Array, Call, Description, Graph, Written, on_cpu, quiet

FILE = "step.xml"  # and step.bin, its weights
INSTALL = "pip install 'kouling[openvino]'"
SCHEMES = (FLOAT, DYNAMIC, STATIC)
CALIBRATION_CALLS = 300
# A float model stays one: where a processor has bfloat16, OpenVINO would use it, and NNCF's int8 models then give
# noise. One thread: a step is too small to share.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def convert(graph: Graph, scheme: str, features: NDArray[np.float32] | None, folder: Path) -> Written:
    """Write `step.xml` and `step.bin`. features: (frames, M), what static int8 is calibrated by.

    Raises: ValueError where a package is missing, or there is nothing to calibrate by.
    """
    with tempfile.TemporaryDirectory() as scratch, quiet():
        ov = _openvino()
        ort.write_float(graph, Path(scratch) / ort.FILE)
        model = ov.convert_model(str(Path(scratch) / ort.FILE))
        if scheme != FLOAT:
            model = _quantized(model, scheme, graph, features)
        kinds = Counter(node.get_type_name() for node in model.get_ops())
        for kind in ("Constant", "Parameter", "Result"):  # compute nothing
            del kinds[kind]
        ov.save_model(model, str(folder / FILE), compress_to_fp16=False)
    return Written(FILE, *graph.specs(), on_cpu(kinds))


def load(description: Description, folder: Path) -> Call:
    """The step on the CPU, on one thread. Raises: ValueError where OpenVINO is missing or the file is unusable;
    FileNotFoundError."""
    path = folder / description.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    ov = _openvino()
    try:
        request = ov.Core().compile_model(str(path), "CPU", SETTINGS).create_infer_request()
    except RuntimeError as error:
        raise ValueError(f"{path}: no usable OpenVINO model ({str(error).strip().splitlines()[-1]})") from None
    names = [spec.name for spec in description.inputs]
    wanted = [spec.name for spec in description.outputs]

    def call(tensors: Sequence[Array]) -> list[Array]:
        found = request.infer(dict(zip(names, tensors, strict=True)))
        return [found[name].copy() for name in wanted]

    return call


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ValueError(f"OpenVINO is needed ({error.name}); install with: {INSTALL}") from None
    return openvino


def _quantized(model: Any, scheme: str, graph: Graph, features: NDArray[np.float32] | None) -> Any:
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise ValueError(f"int8 for OpenVINO needs {error.name}; install with: {INSTALL}") from None
    if scheme == DYNAMIC:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    calls = list(graph.named_calls(features, CALIBRATION_CALLS))
    return nncf.quantize(
        model,
        nncf.Dataset(calls),
        subset_size=len(calls),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        # The smallest and the largest number that calibration met: NNCF's own, a mean of each call's, forgets the loud
        # frames of a stream.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
