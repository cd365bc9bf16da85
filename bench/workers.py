"""The variants that are measured, and the processes that run them: each alive to the end, all on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench.result import ENGINE

HERE = Path(__file__).parent
SOURCES = HERE.parent / "engine"


@dataclass(frozen=True)
class Variant:
    runtime: str
    scheme: str  # of the file that convert.py writes; for the engine, of its weights
    host: str  # the language that calls it and reads the clock
    setting: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (f"{self.runtime} {self.scheme}", self.setting)))

    @property
    def slug(self) -> str:
        return f"{self.name} {self.host}".lower().replace(",", "").replace(" ", "-").replace("+", "p")


VARIANTS = [
    Variant(ENGINE, "int8", "C"),
    Variant(ENGINE, "int8", "Python"),
    Variant(ENGINE, "int4", "C"),
    Variant(ENGINE, "int4", "Python"),
    Variant("ONNX Runtime", "float", "Python"),
    Variant("ONNX Runtime", "dynamic int8", "Python"),
    Variant("LiteRT", "float", "Python"),
    Variant("LiteRT", "float", "Python", "in fp16"),
    Variant("LiteRT", "dynamic int8", "Python"),
    Variant("LiteRT", "dynamic int8", "Python", "in fp16"),
    Variant("LiteRT", "dynamic int4", "Python"),
    Variant("OpenVINO", "float", "Python"),
    Variant("OpenVINO", "dynamic int8", "Python"),
    Variant("ExecuTorch", "float", "C++"),
    Variant("ExecuTorch", "dynamic int8", "C++"),
    Variant("ExecuTorch", "static int8", "C++"),
]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of its graph."""

    kind: str  # "step", "300", "500"
    frames: int  # of a call
    mels: int
    subsampling: int
    outputs: int  # numbers of a call
    speech: Path
    state: Path | None


class Worker:
    """A process that answers lines, see worker.h. Raises: RuntimeError with its last words where it has died."""

    def __init__(self, command: list[str], core: int, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=pin(core),
            )
        self.before: dict[str, int] = json.loads(self._answer())  # its memory before it has a model; {} if not known

    def times_ns(self, calls: int) -> list[int]:
        return [int(time) for time in self._ask(f"go {calls}").split()]

    def memory_kb(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._ask("memory"))
        return found

    def log_probs(self, path: Path) -> NDArray[np.float32]:
        """All calls from the beginning of the speech."""
        self._ask(f"check {path}")
        return np.fromfile(path, np.float32)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str) -> str:
        try:
            _pipe(self._process.stdin).write(f"{line}\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # its last words are told below
        return self._answer()

    def _answer(self) -> str:
        line = _pipe(self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            words = self._log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"ended with code {code}: {words[-1] if words else 'without a word'}")
        return line


def pin(core: int) -> Callable[[], None]:
    """What a new process does first: stay on that core."""
    return lambda: os.sched_setaffinity(0, {core})


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def start(variant: Variant, job: Job, file: Path, programs: Path, core: int, log: Path) -> Worker:
    """file: the model as the runtime reads it."""
    state = [str(job.state)] if job.state else []
    common = [str(file), str(job.speech)]
    mode = "live" if job.kind == "step" else "file"  # KOULING_LIVE, KOULING_FILE
    if variant.host == "C":
        command = [str(programs / "engine"), *common, str(job.frames), str(job.outputs), mode]
    elif variant.host == "C++":
        command = [str(programs / "executorch"), *common, str(job.outputs), *state]
    else:
        runtime, option = {
            ENGINE: ("engine", f"{mode},{job.subsampling}"),
            "ONNX Runtime": ("ort", ""),
            "OpenVINO": ("openvino", ""),
            "LiteRT": ("compiled", "fp16") if variant.setting else ("interpreter", ""),
        }[variant.runtime]
        shape = [str(number) for number in (job.frames, job.mels, job.outputs)]
        own = state if variant.runtime != ENGINE else []
        command = [sys.executable, "-P", str(HERE / "worker.py"), runtime, *common, *shape, option, *own]
    return Worker(command, core, log)


def compile_program(name: str, folder: Path) -> Path:
    """engine, streams, hour, floor, executorch, or listen, the engine's example.

    Raises: RuntimeError with the compiler's first complaint; FileNotFoundError.
    """
    output = folder / name
    output.unlink(missing_ok=True)  # one of another day must not stand in for it
    cc, cxx = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")
    if name == "floor":
        command: list[Any] = [cc, "-O3", "-march=native", HERE / "floor.c", "-o", output]
    elif name != "executorch":
        in_order = sorted((SOURCES / "src").glob("*.c"), key=lambda file: file.stem == "kernels")  # last, as in CMake
        flags = ["-std=gnu11", "-O3", "-ffp-contract=off", "-Wno-psabi", f"-I{SOURCES}"]
        flags += ["-static", "-Wl,--gc-sections", "-Wl,-z,noseparate-code"]  # little of it is ever read into memory
        main = SOURCES / "examples" / "listen.c" if name == "listen" else HERE / f"{name}.c"
        command = [cc, *flags, main, *in_order, "-o", output, "-lm", "-lpthread"]
    else:
        import executorch

        wheel = Path(next(iter(executorch.__path__)))
        include, lib = wheel / "include", wheel / "lib"
        flags = ["-std=c++17", "-O2", "-Wno-deprecated-declarations", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
        flags += [f"-I{include}", f"-I{include}/executorch/runtime/core/portable_type/c10"]
        # The libraries register their kernels on loading; nothing refers to them.
        link = [f"-L{lib}", f"-Wl,-rpath,{lib}", "-Wl,--no-as-needed", "-lexecutorch", "-lexecutorch_backend_xnnpack"]
        link += ["-lexecutorch_kernels_optimized", "-lexecutorch_kernels_quantized", "-lexecutorch_threadpool"]
        command = [cxx, *flags, HERE / "executorch.cpp", "-o", output, *link]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise RuntimeError(complaints[0] if complaints else f"{command[0]} ended with code {done.returncode}")
    return output
