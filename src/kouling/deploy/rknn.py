"""Rockchip's NPUs: the fused step as static int8, built by RKNN Toolkit and run in its simulator.

The toolkit's pins go with none of ours, so it lives in a Python environment of its own, and `rknn_program.py` runs
there. The simulator computes what the NPU computes, and knows no time: cycles and memory are those that the build says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import write_whole
from kouling.deploy import ort
from kouling.deploy.graph import STATIC, Array, Call, Description, Graph, Placed, Written

SCHEMES = (STATIC,)
PLATFORMS = ("rk3588", "rk3576", "rk3568", "rk3566", "rk3562", "rv1106", "rv1103")
DEFAULT = "rk3588"
COMPILED = "step.rknn"
REPORT = "rknn.json"
CALIBRATION = "calibration.npz"
LOG = "build.log"
CALIBRATION_CALLS = 80
PYTHON = "KOULING_RKNN_PYTHON"  # the environment variable that names the toolkit's Python
VENV = Path(".venv-rknn")  # of the folder that one is in
PROGRAM = Path(__file__).with_name("rknn_program.py")
REQUIREMENTS = Path(__file__).with_name("rknn-requirements.txt")
BORDERS = ("InputOperator", "OutputOperator")  # copies in and out; no computing is left to the CPU by them
_ROW = re.compile(r"^D RKNN: \[[\d:.]+\] \d+ +(\w+) +\w+ +(NPU|CPU|GPU) .* (\d+)/(\d+)/(\d+) +\d+ +\S+", re.MULTILINE)


@dataclass(frozen=True)
class Estimate:
    """What the build says of one call."""

    accelerator: str
    internal_bytes: int  # activations
    weight_bytes: int
    total_cycles: int  # of the operators on the NPU, with what is waited for
    npu_operators: int
    cpu_operators: int

    maker = "RKNN Toolkit's build"

    @property
    def line(self) -> str:
        return (
            f"{self.accelerator}: {self.npu_operators} operators on the NPU, {self.cpu_operators} on the CPU; "
            f"{self.internal_bytes / 1024:.1f} KiB for activations, {self.weight_bytes / 1024:.0f} KiB for weights, "
            f"{self.total_cycles:,} NPU cycles a call"
        )


def convert(
    graph: Graph, platform: str, features: NDArray[np.float32] | None, folder: Path
) -> tuple[Written, Estimate]:
    """Write `step.rknn`, and what the simulator needs: `model.onnx`, `calibration.npz`. features: (frames, M), what it
    is calibrated by.

    Raises: ValueError where the platform is unknown, a package or the toolkit is missing, or it refuses the model.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"no accelerator {platform!r}; allowed: {', '.join(PLATFORMS)}")
    python()
    ort.write_float(graph, folder / ort.FILE)
    calls = list(graph.named_calls(features, CALIBRATION_CALLS))
    stacked: dict[str, Any] = {name: np.stack([call[name] for call in calls]) for name in graph.names}
    np.savez_compressed(folder / CALIBRATION, **stacked)
    with (folder / LOG).open("wb") as log:
        done = subprocess.run(_command(folder, platform, str(folder.resolve() / COMPILED)), check=False, stderr=log)
    said = _plain((folder / LOG).read_text(errors="replace"))
    write_whole(folder / LOG, said.encode())
    if done.returncode:
        raise ValueError(f"RKNN Toolkit refuses {graph.info.name} for {platform}: {_reason(said)}")
    estimate, placed = read_log(said, platform)
    write_whole(folder / REPORT, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return Written(ort.FILE, *graph.specs(), placed, COMPILED), estimate


def load(description: Description, folder: Path) -> Call:
    """The step in the toolkit's simulator, on the CPU. Raises: ValueError where the toolkit is missing, or refuses the
    model; FileNotFoundError."""
    platform = json.loads((folder / REPORT).read_text())["accelerator"]
    sizes = [int(np.prod(spec.shape)) for spec in description.outputs]
    log = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the simulator)
    simulator = subprocess.Popen(
        _command(folder, platform, "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )

    def call(tensors: Sequence[Array]) -> list[Array]:
        assert simulator.stdin and simulator.stdout
        try:
            simulator.stdin.write(b"".join(np.ascontiguousarray(each, np.float32).tobytes() for each in tensors))
            simulator.stdin.flush()
            answer = simulator.stdout.read(4 * sum(sizes))
        except BrokenPipeError:
            answer = b""
        if len(answer) != 4 * sum(sizes):
            log.seek(0)
            raise ValueError(f"{folder}: RKNN Toolkit's simulator failed: {_reason(_plain(log.read().decode()))}")
        parts = np.split(np.frombuffer(answer, np.float32), np.cumsum(sizes)[:-1])
        return [part.reshape(spec.shape) for part, spec in zip(parts, description.outputs, strict=True)]

    weakref.finalize(call, _end, simulator, log)
    return call


def python() -> str:
    """The Python that has RKNN Toolkit. Raises: ValueError where there is none, with how to make it."""
    named = os.environ.get(PYTHON)
    found = Path(named) if named else VENV / "bin" / "python"
    if found.is_file():
        return str(found.absolute())
    if not named and find_spec("rknn"):
        return sys.executable
    where = f"{PYTHON} names {named}, which is no file" if named else f"neither {VENV} nor {PYTHON} is there"
    pip = f"{VENV}/bin/pip install"
    raise ValueError(
        f"export to RKNN needs RKNN Toolkit in an environment of its own ({where}); make it with: "
        f"python3 -m venv {VENV} && {pip} -r {REQUIREMENTS} && {pip} --no-deps rknn-toolkit2==2.5.0"
    )


def read_log(said: str, platform: str) -> tuple[Estimate, tuple[Placed, ...]]:
    """What a build says of one call, and where operators run."""
    rows = _ROW.findall(said)
    kinds = Counter((on, kind) for kind, on, *_ in rows if kind not in BORDERS)
    memory = dict(re.findall(r"Total (Internal|Weight) Memory Size: ([\d.]+)KB", said))
    estimate = Estimate(
        platform,
        round(float(memory["Internal"]) * 1024),
        round(float(memory["Weight"]) * 1024),
        sum(int(row[-1]) for row in rows),
        sum(count for (on, _), count in kinds.items() if on == "NPU"),
        sum(count for (on, _), count in kinds.items() if on == "CPU"),
    )
    why = {"NPU": "", "CPU": f"the NPU of {platform} has no such operator", "GPU": ""}
    return estimate, tuple(Placed(kind, count, on, why[on]) for (on, kind), count in kinds.most_common())


def _command(folder: Path, platform: str, output: str) -> list[str]:
    files = [str((folder / name).resolve()) for name in (ort.FILE, CALIBRATION)]
    return [python(), "-W", "ignore", str(PROGRAM), *files, platform, output]


def _plain(said: str) -> str:
    """Without colours and progress bars."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", said)
    return "".join(line for line in text.splitlines(keepends=True) if "it/s]" not in line)


def _reason(said: str) -> str:
    """The last error among what the toolkit said."""
    errors = [line for line in said.splitlines() if line.startswith("E ")] or said.splitlines() or ["it said nothing"]
    return errors[-1].strip()


def _end(simulator: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    simulator.kill()
    simulator.communicate()  # closes its pipes
    log.close()
