"""ExecuTorch with its XNNPACK delegate: the fused step as float, with int8 weights, or as static int8 (PT2E).

The file runs in Python through the wheel's own runtime, and in C++ against the libraries that the wheel brings:
`bench/executorch.cpp`. LayerNorm is not delegated: XNNPACK has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.deploy.graph import DYNAMIC, FLOAT, STATIC, Array, Call, Description, Graph, Placed, Written, quiet

FILE = "step.pte"
INSTALL = "pip install 'kouling[executorch]'"
SCHEMES = (FLOAT, DYNAMIC, STATIC)
CALIBRATION_CALLS = 100  # PT2E's observers take half a second each


def convert(graph: Graph, scheme: str, features: NDArray[np.float32] | None, folder: Path) -> Written:
    """Write `step.pte`. features: (frames, M), what static int8 is calibrated by.

    Raises: ValueError where a package is missing, or there is nothing to calibrate by.
    """
    import torch

    with quiet():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackDynamicallyQuantizedPartitioner,
                XnnpackPartitioner,
            )
            from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
            from executorch.exir.passes import MemoryPlanningPass
        except ImportError as error:
            raise ValueError(f"export to ExecuTorch needs {error.name}; install with: {INSTALL}") from None
        module = graph.module if scheme == FLOAT else _quantized(graph, scheme, features)
        partitioners: list[Any] = [XnnpackPartitioner()]
        if scheme == DYNAMIC:
            partitioners.insert(0, XnnpackDynamicallyQuantizedPartitioner())
        edge = to_edge_transform_and_lower(
            torch.export.export(module, graph.inputs(), strict=False),
            partitioner=partitioners,
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        # Inputs and outputs stay where the caller has them, so a state goes from one step to the next without a copy.
        planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
        program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
        with (folder / FILE).open("wb") as file:
            program.write_to_file(file)
    return Written(FILE, *graph.specs(), placed(program.executorch_program))


def load(description: Description, folder: Path) -> Call:
    """The step on the CPU, on one thread. Raises: ValueError where ExecuTorch is missing or the file is unusable;
    FileNotFoundError."""
    path = folder / description.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    try:
        with quiet():
            import torch
            from executorch.runtime import Runtime

            method = Runtime.get().load_program(path).load_method("forward")
    except ImportError as error:
        raise ValueError(f"ExecuTorch is needed ({error.name}); install with: {INSTALL}") from None
    except RuntimeError as error:
        raise ValueError(f"{path}: no usable ExecuTorch model ({str(error).strip().splitlines()[0]})") from None
    assert method is not None
    torch.set_num_threads(1)  # its pool is torch's: a step is too small to share

    def call(tensors: Sequence[Array]) -> list[Array]:
        found = method.execute([torch.from_numpy(np.array(tensor)) for tensor in tensors])  # of its own, writable
        return [tensor.numpy().copy() for tensor in found]

    return call


def _quantized(graph: Graph, scheme: str, features: NDArray[np.float32] | None) -> Any:
    """int8 weights by channel; activations by their range in each call, or by that in calibration."""
    import torch

    try:
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    except ImportError as error:
        raise ValueError(f"int8 for ExecuTorch needs {error.name}; install with: {INSTALL}") from None
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=scheme == DYNAMIC)
    exported = torch.export.export(graph.module, graph.inputs(), strict=False).module()
    prepared = prepare_pt2e(exported, XNNPACKQuantizer().set_global(config))
    if scheme == DYNAMIC:
        calls = iter([dict(enumerate(tensor.numpy() for tensor in graph.inputs()))])
    else:
        calls = iter(graph.named_calls(features, CALIBRATION_CALLS))  # type: ignore[arg-type]
    with torch.no_grad():
        for call in islice(calls, CALIBRATION_CALLS + 1):
            prepared(*(torch.from_numpy(tensor) for tensor in call.values()))
    return convert_pt2e(prepared)


def placed(program: Any, delegate: str = "XNNPACK") -> tuple[Placed, ...]:
    """What a program runs in the delegate, a part of the graph each, and what in ExecuTorch's own kernels."""
    plan = program.execution_plan[0]
    kinds: Counter[tuple[str, str]] = Counter()
    for instruction in plan.chains[0].instructions:
        kind = type(instruction.instr_args).__name__
        if kind == "KernelCall":
            kinds[plan.operators[instruction.instr_args.op_index].name.split("::")[-1], "CPU"] += 1
        elif kind == "DelegateCall":
            kinds["part of the graph", delegate] += 1
    return tuple(Placed(name, count, where) for (name, where), count in sorted(kinds.items()))
