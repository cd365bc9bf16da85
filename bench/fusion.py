"""What the fused form is worth on an NPU: operators, memory and cycles of a step by Vela's estimate, of the encoder as
it is in PyTorch and as it is exported. Both are static int8 of the same weights, calibrated by the same recordings.

    python -m bench.fusion MODEL RECORDINGS [ACCELERATOR ...]

MODEL is an installed name or a checkpoint; RECORDINGS a folder of real speech. ethos-u55-128 and ethos-u85-256 if no
accelerator is named. Needs `pip install 'kouling[train,ethos-u]'`. docs/ethos-u.md has what it prints.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kouling.cli.options import checkpoint_of
from kouling.deploy import ethos_u, fused, litert, speech, step
from kouling.deploy.ethos_u import Estimate
from kouling.deploy.graph import STATIC, Graph, Placed

ACCELERATORS = ("ethos-u55-128", "ethos-u85-256")
LEVELS = 31
PLAIN, FUSED, CLUSTERED = FORMS = ("as in PyTorch", "fused", f"fused, `--levels {LEVELS}`")


@dataclass(frozen=True)
class Row:
    form: str
    operators: int  # of the .tflite file; Vela makes several of some, one of others
    estimate: Estimate
    on_cpu: tuple[Placed, ...]


class Plain(nn.Module):
    """The encoder as it is in PyTorch: what `fused.Fused` is without a fold. Its caches are full, and the counter of
    frames is a constant: int8 has no integer that goes from one call to the next."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.seen: Tensor
        info, self.encoder = step.load(checkpoint)
        self.register_buffer("seen", torch.tensor([info.config.encoder.left_context]), persistent=False)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        log_probs, following = self.encoder(features, step.unflatten((*state, self.seen)))
        return log_probs, *step.flatten(following)[:-1]


def graph_of(checkpoint: Path, form: str, features: NDArray[np.float32]) -> Graph:
    """A step in one of `FORMS`, ready for the exporter."""
    graph = Graph(checkpoint)
    if form == PLAIN:
        graph.module = Plain(checkpoint).eval().requires_grad_(False)  # type: ignore[assignment]  # called alike
        return graph
    graph.equalize(features)
    if form == CLUSTERED:
        fused.cluster(graph.module, LEVELS)
    return graph


def compiled(checkpoint: Path, form: str, features: NDArray[np.float32], accelerators: Sequence[str]) -> list[Row]:
    """Raises: ValueError where an accelerator is unknown, a package is missing or Vela refuses the model."""
    with tempfile.TemporaryDirectory() as folder:
        written = litert.convert(graph_of(checkpoint, form, features), STATIC, features, Path(folder))
        source = Path(folder) / written.file
        operators = litert.operators(source).total()
        rows = []
        for accelerator in accelerators:
            estimate, placed = ethos_u.compile_for(source, accelerator, Path(folder) / ethos_u.COMPILED)
            rows.append(Row(form, operators, estimate, tuple(each for each in placed if each.on == "CPU")))
    return rows


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| accelerator | form | operators | on the NPU | SRAM KiB | flash KiB | cycles | ms | cycles saved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    before = {row.estimate.accelerator: row.estimate.total_cycles for row in rows if row.form == PLAIN}
    for row in sorted(rows, key=lambda row: (row.estimate.accelerator, FORMS.index(row.form))):
        told = row.estimate
        share = f"{told.npu_operators} of {told.npu_operators + told.cpu_operators}"
        saved = "" if row.form == PLAIN else f"{1 - told.total_cycles / before[told.accelerator]:.0%}"
        lines.append(
            f"| {told.accelerator} | {row.form} | {row.operators} | {share} | {told.sram_bytes / 1024:.1f} | "
            f"{told.storage_bytes / 1024:,.0f} | {told.total_cycles:,} | {told.time_ms:.3f} | {saved} |"
        )
    for row in rows:
        lines += [
            f"{row.estimate.accelerator}, {row.form}, on the CPU: {each.count} {each.kind}: {each.why}"
            for each in row.on_cpu
        ]
    return "\n".join(lines)


def main(model: str, recordings: Path, accelerators: Sequence[str]) -> None:
    for each in accelerators:
        if each not in ethos_u.SYSTEMS:
            raise ValueError(f"no accelerator {each!r}; allowed: {', '.join(ethos_u.SYSTEMS)}")
    checkpoint = checkpoint_of(model)
    graph = Graph(checkpoint)
    features = speech.calibration(graph, speech.halves(recordings)[0])
    rows = [row for form in FORMS for row in compiled(checkpoint, form, features, accelerators)]
    packages = ", ".join(f"{name} {version(name)}" for name in ("ethos-u-vela", "litert-torch", "torch"))
    print(f"{graph.info.name}, a step of {graph.frames} feature frames, static int8; {packages}.")
    print("Estimates: nothing ran on an NPU, and what is left to the CPU is not in the cycles.\n")
    print(table(rows))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m bench.fusion MODEL RECORDINGS [ACCELERATOR ...]")
    try:
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or ACCELERATORS)
    except ValueError as error:
        sys.exit(f"bench.fusion: {error}")
