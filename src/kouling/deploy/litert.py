"""LiteRT (TensorFlow Lite): the fused step as float, with dynamic int8 weights, or as fully static int8 for NPUs.

Static int8 has 256 steps for each tensor, so all hangs on two things that the converter does not do by itself: the
channels of a convolution's cache get like ranges before (`fused.equalize`), and a tensor's range is the smallest and
the largest number that calibration met. The quantizer's default, a moving average, forgets the loud frames of a stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.deploy.graph import (
    DYNAMIC,
    FLOAT,
    STATIC,
    Array,
    Call,
    Description,
    Graph,
    TensorSpec,
    Written,
    on_cpu,
    quiet,
)

FILE = "step.tflite"
INSTALL = "pip install 'kouling[litert]'"
SCHEMES = (FLOAT, DYNAMIC, STATIC)
CALIBRATION_CALLS = 500
SATURATED = 12.0  # a sigmoid of this is one but for 6e-6; int8 has steps of 4e-3


def convert(graph: Graph, scheme: str, features: NDArray[np.float32] | None, folder: Path) -> Written:
    """Write `step.tflite`. features: (frames, M), what static int8 is calibrated by; the graph was equalised by them.

    Raises: ValueError where a package is missing, or there is nothing to calibrate by.
    """
    path = folder / FILE
    with quiet():
        try:
            import litert_torch
            from ai_edge_quantizer import quantizer, recipe
        except ImportError as error:
            raise ValueError(f"export to LiteRT needs {error.name}; install with: {INSTALL}") from None
        litert_torch.convert(graph.module, graph.inputs()).export(str(path))
        if scheme != FLOAT:
            quantising = quantizer.Quantizer(str(path))
            found = None
            if scheme == DYNAMIC:
                # The linear layers alone. The recipe as it is takes the depthwise convolutions too: slower, and of
                # en-small's log-probabilities 19 dB above the error are left.
                rules = [{**rule, "operation": "FULLY_CONNECTED"} for rule in recipe.dynamic_wi8_afp32()]
            else:
                rules = recipe.static_wi8_ai8()
                found = _ranges(path, rules, graph, features)
            quantising.load_quantization_recipe(rules)
            quantising.quantize(found).export_model(str(path), overwrite=True)
        kinds = operators(path)
    specs = _specs(_interpreter(path), graph)
    return Written(FILE, *specs, on_cpu(kinds))


def operators(path: Path) -> Counter[str]:
    """How many operators of each kind a .tflite file has."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return Counter(names[codes[each.opcodeIndex]] for part in model.subgraphs for each in part.operators)


def load(description: Description, folder: Path) -> Call:
    """The step in LiteRT, on one thread. Raises: ValueError where LiteRT is missing or the file is unusable."""
    interpreter = _interpreter(folder / description.file)
    inputs, outputs = _details(interpreter)

    def call(tensors: Sequence[Array]) -> list[Array]:
        for detail, tensor in zip(inputs, tensors, strict=True):
            interpreter.set_tensor(detail["index"], tensor)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return call


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ValueError(f"LiteRT is needed to run {path.name}; install with: {INSTALL}") from None
    with quiet():
        try:
            found = Interpreter(model_path=str(path), num_threads=1)
            found.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: no usable LiteRT model ({str(error).splitlines()[0]})") from None
    return found


def _details(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs in the order of the graph's: args_0, args_1, ...; output_0, output_1, ..."""
    signature = interpreter.get_signature_runner()

    def ordered(details: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        return [details[name] for name in sorted(details, key=lambda name: int(name.rsplit("_", 1)[1]))]

    return ordered(signature.get_input_details()), ordered(signature.get_output_details())


def _specs(interpreter: Any, graph: Graph) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    found = []
    for specs, details in zip(graph.specs(), _details(interpreter), strict=True):
        found.append(
            tuple(
                TensorSpec(spec.name, spec.shape, np.dtype(detail["dtype"]).name, *map(_plain, detail["quantization"]))
                for spec, detail in zip(specs, details, strict=True)
            )
        )
    return found[0], found[1]


def _plain(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else number


def _ranges(path: Path, rules: Any, graph: Graph, features: NDArray[np.float32] | None) -> Any:
    """The smallest and the largest number of every tensor in calibration."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    interpreter = _interpreter(path)
    (signature,) = interpreter.get_signature_list()
    calls = [
        {f"args_{index}": tensor for index, tensor in enumerate(call.values())}
        for call in graph.named_calls(features, CALIBRATION_CALLS)
    ]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(rules)
    calibrating = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    calibrating.calibrate({signature: calls}, manager)
    found = calibrating.get_model_qsvs()
    # What a call gives as its state the next one takes: one range for both, so that it goes back as it is. The first
    # state are features.
    inputs, outputs = _details(interpreter)
    pairs = [list(pair) for pair in zip(inputs[1:], outputs[1:], strict=True)]
    for alike in [[inputs[0], *pairs[0]], *pairs[1:]]:
        ranges = [found[detail["name"]] for detail in alike]
        lowest, highest = min(each["min"] for each in ranges), max(each["max"] for each in ranges)
        for each in ranges:
            each["min"], each["max"] = lowest, highest
    for name, both in sigmoids(path).items():
        found[name]["min"] = np.maximum(found[name]["min"], -SATURATED)
        if both:
            found[name]["max"] = np.minimum(found[name]["max"], SATURATED)
    return found


def sigmoids(path: Path) -> dict[str, bool]:
    """The tensors of a .tflite file that nothing reads but a sigmoid, or a sigmoid and its product with them (SiLU):
    where they are far below 0 it makes no difference how far, and without such a product nor where they are far above
    (True)."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    (part,) = model.subgraphs
    found = {}
    for operator in part.operators:
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.LOGISTIC:
            continue
        (given,), (made,) = operator.inputs, operator.outputs
        others = [each for each in part.operators if given in each.inputs and each is not operator]
        silu = [
            each for each in others if made in each.inputs and codes[each.opcodeIndex] == schema.BuiltinOperator.MUL
        ]
        if given not in part.outputs and len(others) == len(silu):
            found[part.tensors[given].name.decode()] = not silu
    return found
