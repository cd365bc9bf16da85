"""Arm Ethos-U: the static int8 step of LiteRT, compiled for the NPU by Vela, with Vela's own estimate of its cost.

Vela changes no number: what `step.tflite` computes on a host the NPU computes, so parity is proven with that file, and
`step_vela.tflite` is the one for the device. Cycles, memory and time are Vela's estimates for the system named.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import write_whole
from kouling.deploy import litert
from kouling.deploy.graph import STATIC, Graph, Placed, Written

INSTALL = "pip install 'kouling[ethos-u]'"
SCHEMES = (STATIC,)
COMPILED = "step_vela.tflite"
REPORT = "ethos-u.json"
# Accelerator -> Vela's system and memory mode: the parts' common homes, whose clocks and memories the figures are of.
SYSTEMS = {
    "ethos-u55-32": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u55-64": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u55-128": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u55-256": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65-256": ("Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    "ethos-u65-512": ("Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    "ethos-u85-128": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    "ethos-u85-256": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    "ethos-u85-512": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    "ethos-u85-1024": ("Ethos_U85_SYS_DRAM_High", "Dedicated_Sram_512KB"),
    "ethos-u85-2048": ("Ethos_U85_SYS_DRAM_High", "Dedicated_Sram_512KB"),
}
DEFAULT = "ethos-u55-128"


@dataclass(frozen=True)
class Estimate:
    """Vela's figures of one call."""

    accelerator: str
    system: str
    memory_mode: str
    clock_mhz: float
    sram_bytes: int
    storage_bytes: int  # flash, or the DRAM that takes its place: weights, biases and commands
    npu_cycles: int
    total_cycles: int  # with what is waited for
    time_ms: float
    npu_operators: int
    cpu_operators: int

    maker = "Vela's estimate"

    @property
    def line(self) -> str:
        return (
            f"{self.accelerator} ({self.system}, {self.memory_mode}): {self.npu_operators} operators on the NPU, "
            f"{self.cpu_operators} on the CPU; {self.sram_bytes / 1024:.1f} KiB SRAM, "
            f"{self.storage_bytes / 1024:.0f} KiB flash, {self.total_cycles:,} cycles, {self.time_ms:.3f} ms a call"
        )


def convert(
    graph: Graph, accelerator: str, features: NDArray[np.float32] | None, folder: Path
) -> tuple[Written, Estimate]:
    """Write `step.tflite`, `step_vela.tflite` and `ethos-u.json`. features: see `litert.convert`.

    Raises: ValueError where the accelerator is unknown, a package is missing, or Vela refuses the model.
    """
    if accelerator not in SYSTEMS:
        raise ValueError(f"no accelerator {accelerator!r}; allowed: {', '.join(SYSTEMS)}")
    written = litert.convert(graph, STATIC, features, folder)
    estimate, placed = compile_for(folder / written.file, accelerator, folder / COMPILED)
    write_whole(folder / REPORT, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return replace(written, placed=placed, compiled=COMPILED), estimate


def compile_for(source: Path, accelerator: str, output: Path) -> tuple[Estimate, tuple[Placed, ...]]:
    """A static int8 .tflite file through Vela -> its estimate, and where operators run.

    Raises: ValueError where Vela is missing or refuses the model.
    """
    system, memory = SYSTEMS[accelerator]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "ethosu.vela", str(source), f"--accelerator-config={accelerator}"]
        command += [f"--system-config={system}", f"--memory-mode={memory}", "--config=Arm/vela.ini"]
        command += ["--show-cpu-operations", f"--output-dir={scratch}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if "No module named" in done.stderr:
            raise ValueError(f"export to Ethos-U needs Vela; install with: {INSTALL}")
        summaries = list(Path(scratch).glob("*summary*.csv"))
        if done.returncode or not summaries:
            words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
            raise ValueError(f"Vela refuses {source.name} for {accelerator}: {words[-1]}")
        summary = summaries[0].read_text()
        (compiled,) = Path(scratch).glob("*_vela.tflite")
        write_whole(output, compiled.read_bytes())
    counts = {where: _count(done.stdout, where) for where in ("NPU", "CPU")}
    estimate = read_summary(summary, accelerator, counts["NPU"], counts["CPU"])
    return estimate, (Placed("operators", counts["NPU"], "NPU"), *left_behind(done.stdout))


def read_summary(text: str, accelerator: str, npu_operators: int, cpu_operators: int) -> Estimate:
    """What Vela's summary, a CSV file of one row, says of one call."""
    (row,) = csv.DictReader(text.splitlines())
    system, memory = SYSTEMS[accelerator]
    stored = ("dram", "on_chip_flash", "off_chip_flash")
    return Estimate(
        accelerator=accelerator,
        system=system,
        memory_mode=memory,
        clock_mhz=float(row["core_clock"]) / 1e6,
        sram_bytes=round(float(row["sram_memory_used"]) * 1024),
        storage_bytes=round(sum(float(row[f"{part}_memory_used"]) for part in stored) * 1024),
        npu_cycles=round(float(row["cycles_npu"])),
        total_cycles=round(float(row["cycles_total"])),
        time_ms=float(row["inference_time"]) * 1000,
        npu_operators=npu_operators,
        cpu_operators=cpu_operators,
    )


def left_behind(printed: str) -> list[Placed]:
    """The operators that Vela leaves on the CPU, and why, from what it prints."""
    found: Counter[tuple[str, str]] = Counter()
    lines = printed.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"Warning \(supported operators\) operator: (\w+)", line)
        if match:
            reasons = [each.removeprefix("Reason: ") for each in lines[number + 1 : number + 3] if each.strip()]
            short = "; ".join(re.sub(r" \(.*\)$", "", each) for each in reasons)
            found[match.group(1), short] += 1
    return [Placed(kind, count, "CPU", why) for (kind, why), count in found.most_common()]


def _count(printed: str, where: str) -> int:
    match = re.search(rf"{where} operators = (\d+)", printed)
    return int(match.group(1)) if match else 0
