"""`make bench`: the C engine against the other runtimes on the same models, on one core, by turns.

Writes bench.json, bench.md and bench.png into build/bench, and shows the tables. BENCH_ROUNDS (30) and BENCH_CORE (the
last one) in the environment change how long it takes and where it runs. Ends with 1 where an answer was wrong.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from bench import convert, count, graphs, picture, report, result, workers
from bench.graphs import Graph
from bench.result import ENGINE, Floor, Result, Row
from bench.workers import VARIANTS, Job, Variant, Worker
from kouling import recognizer
from kouling.deploy import engine

MODELS = ("en-base", "en-small")
ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "bench"
TURN_NS = 25e6  # what a variant gets in a round, about
MOST_CALLS = 200
FLOOR_ROUNDS = 5  # every so many rounds, what the core can do at most
PACKAGES = (
    "kouling",
    "torch",
    "onnxruntime",
    "ai-edge-litert",
    "litert-torch",
    "ai-edge-quantizer",
    "openvino",
    "executorch",
)
Found = TypeVar("Found")


@dataclass
class Running:
    """A variant at work on a graph."""

    variant: Variant
    graph: Graph
    worker: Worker
    memory_kb: dict[str, int]
    snr_db: float
    calls: int  # of a turn
    times_ns: list[int] = field(default_factory=list)

    def row(self) -> Row:
        low, median, high = (float(value) / 1000 for value in np.percentile(self.times_ns, [5, 50, 95]))
        return Row(
            *(self.graph.model, self.graph.kind),
            *(self.variant.runtime, self.variant.scheme, self.variant.setting, self.variant.host),
            *(round(self.snr_db, 2), len(self.times_ns)),
            *(median, low, high, self.memory_kb, self.worker.before),
        )


class Bench:
    """One run. What cannot be measured is written down with its reason, and the rest goes on."""

    def __init__(self, core: int) -> None:
        self.core = core
        self.failures: dict[str, str] = {}
        self.programs = OUTPUT / "programs"
        self.programs.mkdir(parents=True, exist_ok=True)

    def attempt(self, what: str, function: Callable[..., Found], *arguments: Any) -> Found | None:
        try:
            return function(*arguments)
        except Exception as error:  # whatever a peer raises
            text = (str(error).strip() or type(error).__name__).splitlines()[0].replace(str(ROOT), ".")
            self.failures[what] = text[:200]
            return None

    def start(self, variant: Variant, graph: Graph, job: Job, file: Path) -> Running:
        """A fresh process: its memory after some calls, its answer, and how many calls make a turn."""
        name = f"{graph.model}-{graph.kind}-{variant.slug}"
        worker = workers.start(variant, job, file, self.programs, self.core, OUTPUT / "logs" / f"{name}.log")
        try:
            worker.times_ns(20)
            memory_kb = worker.memory_kb()
            answer = worker.log_probs(OUTPUT / "answer.f32").reshape(graph.expected.shape)
            typical = float(np.median(worker.times_ns(9)))
        except BaseException:
            worker.close()
            raise
        snr_db = graphs.signal_to_noise_db(graph.expected, answer)
        return Running(variant, graph, worker, memory_kb, snr_db, int(np.clip(TURN_NS / typical, 3, MOST_CALLS)))

    def take_turns(self, running: list[Running], rounds: int, sizes: list[int]) -> dict[str, Any]:
        """The floor's peaks, the best ones found; the times go to those who run."""
        peaks: dict[str, Any] = {}
        for turn in track(range(rounds), "measuring ...", console=Console(stderr=True)):
            if turn % FLOOR_ROUNDS == 0:
                found = self.attempt("the floor", self.floor, sizes)
                peaks = better(peaks, found) if found else peaks
            for each in list(running):
                times = self.attempt(f"{each.variant.name}, {each.graph.name}", each.worker.times_ns, each.calls)
                if times is None:
                    running.remove(each)
                else:
                    each.times_ns += times
        return peaks

    def floor(self, sizes: list[int]) -> dict[str, Any]:
        command = [self.programs / "floor", *map(str, sizes)]
        done = subprocess.run(command, check=True, capture_output=True, preexec_fn=workers.pin(self.core))
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of two sets of peaks, the higher of each: what disturbs a measurement only lowers it."""
    if not one:
        return other
    rates = {size: max(rate, other["bytes_per_s"][size]) for size, rate in one["bytes_per_s"].items()}
    highest = {key: max(one[key], other[key]) for key in ("macs_per_s", "amx_macs_per_s")}
    return {**one, **highest, "bytes_per_s": rates}


def written(graph: Graph) -> Job:
    """The speech and the first state of a graph as files, for its workers."""
    speech = OUTPUT / "data" / f"{graph.model}-{graph.kind}.f32"
    speech.parent.mkdir(exist_ok=True)
    graph.speech.tofile(speech)
    state = speech.with_suffix(".state.f32") if graph.kind == "step" else None
    if state:
        np.concatenate([tensor.numpy().ravel() for tensor in graph.inputs[1:]]).tofile(state)
    mels, frames_out, units = graph.speech.shape[1], *graph.expected.shape[1:]
    return Job(graph.kind, graph.frames, mels, graph.frames // frames_out, frames_out * units, speech, state)


def machine(core: int) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    pairs = {key.strip(): value.strip() for key, value in named.items()}
    useful = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_fp16", "asimddp", "i8mm"}
    return {
        "cpu": pairs.get("model name", platform.processor() or platform.machine()),
        "flags": sorted(useful & set(pairs.get("flags", pairs.get("Features", "")).split())),
        "cores": os.cpu_count(),
        "core": core,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "compilers": [compiler(os.environ.get(*names)) for names in (("CC", "cc"), ("CXX", "c++"))],
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_before": os.getloadavg()[0],
    }


def compiler(command: str) -> str:
    """What it says about itself."""
    try:
        return subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return f"{command}: not there"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    rounds = int(os.environ.get("BENCH_ROUNDS", 30))
    bench = Bench(int(os.environ.get("BENCH_CORE", max(os.sched_getaffinity(0)))))
    torch.set_num_threads(1)
    (OUTPUT / "logs").mkdir(parents=True, exist_ok=True)
    for name in ("engine", "floor", "executorch"):
        bench.attempt(f"program {name}", workers.compile_program, name, bench.programs)
    speech = graphs.speech(ROOT / "examples")
    loaded = {model: graphs.load(model, speech) for model in MODELS}
    every = [graph for _, each in loaded.values() for graph in each]
    files = convert.all_of(every, VARIANTS, OUTPUT / "models", bench.failures)
    engine_files = {
        (model, scheme): bench.attempt(f"{ENGINE} {scheme}, {model}", engine_file, model, scheme)
        for model in MODELS
        for scheme in result.OWN
    }
    about = machine(bench.core)
    running = []
    for graph in track(every, "checking ...", console=Console(stderr=True)):
        job = written(graph)
        for variant in VARIANTS:
            own = engine_files[graph.model, variant.scheme] if variant.runtime == ENGINE else None
            file = own or files.get((graph.name, variant.runtime, variant.scheme))
            if file:
                one = bench.attempt(f"{variant.name}, {graph.name}", bench.start, variant, graph, job, file)
                running += [one] if one else []
    work = {model: count.per_frame(info.config, len(info.units)) for model, (info, _) in loaded.items()}
    try:
        peaks = bench.take_turns(running, rounds, [each.weight_bytes for each in work.values()])
    finally:
        for each in running:
            each.worker.close()
    about["load_after"] = os.getloadavg()[0]
    floors = {g.name: floor(peaks, work[g.model], g.expected.shape[1]) for g in every} if peaks else {}
    found = Result(
        machine=about,
        versions={package: version(package) for package in PACKAGES},
        rounds=rounds,
        frames={graph.name: graph.frames for graph in every},
        rows=[each.row() for each in running],
        work={model: asdict(each) for model, each in work.items()},
        peaks=peaks,
        floors=floors,
        failures=bench.failures,
    )
    comparisons = [asdict(each) for each in found.comparisons()]
    (OUTPUT / "bench.json").write_text(json.dumps({**asdict(found), "comparisons": comparisons}, indent=1) + "\n")
    (OUTPUT / "bench.md").write_text(report.markdown(found))
    picture.draw(found, OUTPUT / "bench.png")
    report.show(found, Console(width=None if sys.stdout.isatty() else 170))
    return 1 if result.wrong(found.rows) else 0


def engine_file(model: str, scheme: str) -> Path:
    """The model as it is shipped, in int8, or as `kouling export --weights int4` makes it of the same checkpoint."""
    shipped = recognizer.MODELS / model
    if scheme == "int8":
        return shipped / recognizer.ENGINE_FILE
    path = OUTPUT / "models" / f"{model}-{scheme}.kouling"
    engine.export(shipped / "model.safetensors", path, scheme)
    return path


def floor(peaks: dict[str, Any], work: count.Work, frames: int) -> Floor:
    """frames: encoder frames of a call; the weights are read once, however many they are."""
    macs, tiles = frames * work.macs, peaks["amx_macs_per_s"]
    reading = work.weight_bytes / peaks["bytes_per_s"][str(work.weight_bytes)]
    return Floor(1e6 * macs / peaks["macs_per_s"], 1e6 * reading, 1e6 * macs / tiles if tiles else None)


if __name__ == "__main__":
    sys.exit(main())
