"""Arm Ethos-U by way of ExecuTorch: static int8 (PT2E), lowered through TOSA, compiled by Vela into one delegate.

`step.pte` is for the device. `step.pt2` is the same quantised step before it was lowered: PyTorch runs it on a host,
and parity is proven with that. Inputs and outputs are float32; ExecuTorch's own kernels quantise them at the borders.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import write_whole
from kouling.deploy import ethos_u
from kouling.deploy.ethos_u import Estimate
from kouling.deploy.executorch import CALIBRATION_CALLS, placed
from kouling.deploy.graph import STATIC, Array, Call, Description, Graph, Placed, Written, quiet

INSTALL = "pip install 'kouling[executorch-ethos-u]'"
SCHEMES = (STATIC,)
FILE = "step.pt2"
COMPILED = "step.pte"
BORDERS = ("quantize_per_tensor", "dequantize_per_tensor")  # from and to the float32 of inputs and outputs


def convert(
    graph: Graph, accelerator: str, features: NDArray[np.float32] | None, folder: Path
) -> tuple[Written, Estimate]:
    """Write `step.pt2`, `step.pte` and `ethos-u.json`. features: (frames, M), what static int8 is calibrated by.

    Raises: ValueError where the accelerator is unknown, a package is missing, or there is nothing to calibrate by.
    """
    import torch

    if accelerator not in ethos_u.SYSTEMS:
        raise ValueError(f"no accelerator {accelerator!r}; allowed: {', '.join(ethos_u.SYSTEMS)}")
    system, memory = ethos_u.SYSTEMS[accelerator]
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        try:
            from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner
            from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_quantization_config
            from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        except ImportError as error:
            raise ValueError(f"export to ExecuTorch for Ethos-U needs {error.name}; install with: {INSTALL}") from None
        flags = ["--verbose-performance"]  # a table of operators too
        spec = EthosUCompileSpec(accelerator, system_config=system, memory_mode=memory, extra_flags=flags)
        spec.dump_intermediate_artifacts_to(scratch)  # Vela's summary and table among them
        quantizer = EthosUQuantizer(spec)
        quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
        exported = torch.export.export(graph.module, graph.inputs(), strict=False)
        # Without its guards: Arm's passes know no calls of modules.
        prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
        with torch.no_grad():
            for call in islice(graph.named_calls(features, CALIBRATION_CALLS), CALIBRATION_CALLS + 1):
                prepared(*(torch.from_numpy(tensor) for tensor in call.values()))
        quantised = torch.export.export(convert_pt2e(prepared), graph.inputs(), strict=False)
        torch.export.save(quantised, folder / FILE)
        edge = to_edge_transform_and_lower(
            quantised,
            partitioner=[EthosUPartitioner(spec)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = edge.to_executorch()
        with (folder / COMPILED).open("wb") as file:
            program.write_to_file(file)
        (summary,) = Path(scratch).rglob("*_summary_*.csv")
        (layers,) = Path(scratch).rglob("*_per-layer.csv")
        on_npu = len(layers.read_text().splitlines()) - 1
        told = _explained(placed(program.executorch_program, "NPU"))
        on_cpu = sum(each.count for each in told if each.on == "CPU" and each.kind not in BORDERS)
        estimate = ethos_u.read_summary(summary.read_text(), accelerator, on_npu, on_cpu)
    write_whole(folder / ethos_u.REPORT, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return Written(FILE, *graph.specs(), told, COMPILED), estimate


def load(description: Description, folder: Path) -> Call:
    """The quantised step in PyTorch, on the CPU. Raises: ValueError where a package is missing or the file is unusable;
    FileNotFoundError."""
    path = folder / description.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    with quiet():
        try:
            import torch
            import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  (brings the operators of the file)

            step = torch.export.load(path).module()
        except ImportError as error:
            raise ValueError(f"{path.name} needs {error.name}; install with: {INSTALL}") from None
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: no usable program of PyTorch ({str(error).splitlines()[0]})") from None

    def call(tensors: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            found: Any = step(*(torch.from_numpy(np.array(tensor)) for tensor in tensors))
        return [tensor.numpy() for tensor in found]

    return call


def _explained(found: Sequence[Placed]) -> tuple[Placed, ...]:
    why = "inputs and outputs are float32"
    return tuple(replace(each, why=why) if each.kind in BORDERS else each for each in found)
