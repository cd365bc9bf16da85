"""What the operating system says of a fresh process that opens a model on a runtime and calls it (Linux).

    python -m kouling.measure.memory RUNTIME FILE SIZE    -> one line of JSON

"Private" is Private_Dirty of /proc/self/smaps_rollup: memory that no other process shares and that cannot be read again
from a file. Everything is measured in a process of its own, before and after: what is between is the model's.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

CALLS = 3  # before the second look: workspaces grow with the first ones
NO_HUGE_PAGES = 41  # PR_SET_THP_DISABLE: pages of 2 MB would hide what is below
ROLLUP, STATUS = Path("/proc/self/smaps_rollup"), Path("/proc/self/status")


@dataclass(frozen=True)
class Process:
    """A fresh process that did nothing but this, bytes."""

    private_bytes: int  # what the model added: weights, state, workspace, input and output
    process_private_bytes: int  # all of the process, Python and the runtime's library included
    peak_rss_bytes: int  # the most that was resident since it started (VmHWM), files mapped from disk included

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def of_fresh_process(runtime: str, path: Path, size: str) -> Process | None:
    """None where the system has no such figures (it is no Linux). Raises: OSError where the process failed."""
    if not ROLLUP.exists():
        return None
    program = [sys.executable, "-m", "kouling.measure.memory", runtime, str(path), size]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        raise OSError(f"{path}: measuring its memory failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return Process(**json.loads(done.stdout.splitlines()[-1]))


def _private_bytes() -> int:
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # gives back what is free
    return _field(ROLLUP, "Private_Dirty")


def _field(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return next(int(words[1]) * 1024 for words in lines if words and words[0] == f"{name}:")


def main(arguments: list[str]) -> int:
    name, file, size = arguments
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(NO_HUGE_PAGES, 1, 0, 0, 0)
    import numpy as np

    from kouling.deploy.pytorch import one_thread
    from kouling.measure import runtimes

    runtime = runtimes.RUNTIMES[name]
    importlib.import_module(runtime.module)
    with one_thread():
        _private_bytes()
        before = _private_bytes()
        subject = runtimes.open_subject(runtime, Path(file))
        call = subject.call(size)
        features = np.full((subject.frames(size), subject.info.config.features.num_mels), 0.5, np.float32)
        for _ in range(CALLS):
            result = call(features)
        after = _private_bytes()
    assert len(result)
    print(json.dumps(Process(after - before, after, _field(STATUS, "VmHWM")).to_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
