"""A figure with all that is needed to get it again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kouling


@dataclass(frozen=True)
class Measurement:
    """One figure, and where it comes from."""

    metric: str  # what was measured: "step", "false alarms"
    value: float
    unit: str  # "ms", "bytes", "1/h", "" for a share
    model: str
    runtime: str  # "engine", "onnx", "torch"
    samples: int  # of what the figure is a statistic: repetitions, clips
    seed: int = 0
    detail: str = ""  # which statistic of what: "median", "p95 at 500 frames"
    device: str = ""
    commit: str = ""
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measured(metric: str, value: float, unit: str, model: str, runtime: str, samples: int, **more: Any) -> Measurement:
    """A measurement made here and now: by this program, on this machine."""
    return Measurement(
        metric, value, unit, model, runtime, samples, **more, device=device(), commit=commit(), command=command()
    )


@cache
def device() -> str:
    """The processor's name and the number of cores that this process may use."""
    names = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith(("model name", "Model", "Hardware"))
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"


@cache
def commit() -> str:
    """The version, and the commit where it runs from a working tree of its own repository."""
    folder = Path(kouling.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        tracked = subprocess.run([*command[:3], "ls-files", "--error-unmatch", "__init__.py"], capture_output=True)
        found = subprocess.run(command, capture_output=True, text=True) if tracked.returncode == 0 else None
    except OSError:  # no git
        found = None
    described = found.stdout.strip() if found else ""
    return f"{kouling.__version__}+{described}" if described else kouling.__version__


def command() -> str:
    """The command that was given, as it can be given again."""
    return " ".join(["kouling", *sys.argv[1:]])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
