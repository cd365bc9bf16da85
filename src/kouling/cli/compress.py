"""`kouling compress`: a smaller model that keeps a budget, and a report of how."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from kouling import show
from kouling.cli.options import DONE, FAILED, checkpoint_of, complain, default_cache, verb, writable_folder


def add(verbs: Any) -> None:
    press = verb(verbs, "compress", run, "make a model smaller until it keeps a budget, and report what that cost")
    press._negative_number_matcher = re.compile(r"-\d")  # so that a budget of -1MB is refused as a budget
    press.add_argument("model", metavar="MODEL", help="installed name, folder, or model.safetensors")
    press.add_argument("--memory", metavar="SIZE", help="budget of model file and variables together, as 6MB")
    press.add_argument("--latency", metavar="TIME", help="budget of a call, as 100ms")
    press.add_argument("--at", type=int, default=500, metavar="FRAMES", help="of the call, 10 ms each (%(default)s)")
    press.add_argument("--max-loss", type=float, default=0.5, metavar="POINTS", help="of accuracy (%(default)s)")
    press.add_argument("--recipe", type=Path, help="recipe whose data is trained, calibrated and verified on")
    press.add_argument("--data", type=Path, action="append", help="folder of the data (KOULING_DATA, else ./data)")
    press.add_argument("--epochs", type=int, default=6, help="of fine-tuning; a student gets five times as many (6)")
    press.add_argument("--teacher", metavar="M", help="model to learn from; MODEL itself if left out")
    press.add_argument("--candidate", metavar="NAME", help="carry out just this one; the report lists their names")
    press.add_argument("--seed", type=int, default=0, help="the same seed makes the same model (%(default)s)")
    press.add_argument(
        "--target", default="engine", metavar="T", help="what it is for: engine or ethos-u (%(default)s)"
    )
    press.add_argument("--accelerator", metavar="A", help="of ethos-u: ethos-u55-128 if left out")
    press.add_argument("--recordings", type=Path, metavar="DIR", help="for ethos-u: speech to calibrate static int8 by")
    press.add_argument("-o", "--out", type=Path, help="folder of the result (runs/NAME-compressed)")
    press.add_argument(
        "--keep-scenes", type=Path, metavar="DIR", help="as in training; in the result's folder if left out"
    )
    press.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that draw scenes ahead while it trains (%(default)s)",
    )
    press.add_argument("--cache", type=Path, default=default_cache(), help="folder of decoded samples (%(default)s)")
    press.add_argument("--json", action="store_true", help="results as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    from kouling.measure import budget as measured

    memory_bytes = measured.parse_memory(options.memory) if options.memory is not None else None
    latency_ms = measured.parse_latency(options.latency) if options.latency is not None else None
    if memory_bytes is None and latency_ms is None:
        raise ValueError("compress needs a budget: --memory 6MB, --latency 100ms, or both")
    if not 1 <= options.at <= 100_000:
        raise ValueError(f"--at is {options.at}; allowed: 1 to 100000 feature frames")
    if not 0 <= options.max_loss <= 100:
        raise ValueError(f"--max-loss is {options.max_loss}; allowed: 0 to 100 percentage points")
    if options.epochs < 1:
        raise ValueError(f"--epochs is {options.epochs}; allowed: 1 or more")
    if options.workers < 0:
        raise ValueError(f"--workers is {options.workers}; allowed: 0 or more")
    if options.target not in ("engine", "ethos-u"):
        allowed = "engine (int8 and int4 weights), ethos-u (static int8)"
        raise ValueError(f"--target is {options.target!r}; allowed: {allowed}")
    if options.target == "engine" and (options.accelerator or options.recordings):
        raise ValueError("--accelerator and --recordings go with --target ethos-u")
    if options.target == "ethos-u" and not options.recordings:
        raise ValueError(
            "--target ethos-u needs --recordings, a folder of real speech: static int8 is calibrated by it"
        )
    try:
        from kouling.compress import report
        from kouling.compress.lessons import Data
        from kouling.compress.plan import Budget
        from kouling.compress.run import Compression
        from kouling.compress.target import InEngine, OnEthosU, Target
        from kouling.measure.pictures import figure
        from kouling.train import recipe
    except ModuleNotFoundError as error:
        raise ValueError(f"compress needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    figure()  # matplotlib is missed now, not at the end
    path = checkpoint_of(options.model)
    given = os.environ.get("KOULING_DATA")
    folders = options.data or ([Path(p) for p in given.split(os.pathsep)] if given else [Path("data"), Path(".")])
    if options.data and not options.recipe:
        raise ValueError("--data without --recipe; give the recipe whose recordings these are")
    if options.recipe:
        teacher = checkpoint_of(options.teacher) if options.teacher else path
        chosen = recipe.load(options.recipe)
        data = Data(chosen, folders, options.cache, teacher, options.keep_scenes, options.workers)
    elif options.teacher or options.keep_scenes:
        raise ValueError("--teacher and --keep-scenes go with --recipe: without one nothing is trained")
    else:
        data = None
    target: Target = InEngine()
    if options.target == "ethos-u":
        target = OnEthosU(options.accelerator or "", options.recordings)
    budget = Budget(memory_bytes, latency_ms, options.at, options.max_loss)
    out = writable_folder(options.out or Path("runs") / f"{path.parent.name}-compressed")
    work = Compression(path, budget, out, data, options.epochs, options.seed, target)
    try:
        work.run(show.errors.print, show.progress, options.candidate)
    except KeyboardInterrupt:
        return complain(f"stopped; the same command goes on in {out}", 130)
    except FileNotFoundError:
        raise
    except OSError as error:
        return complain(f"stopped: {error}; the same command goes on in {out}", FAILED)
    result = work.to_dict()
    report.page(work).write(out, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        table = Table(box=None, header_style="bold")
        for number, column in enumerate(report.HEAD[:-1]):  # what was done stands in the report
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for stage in work.stages:
            table.add_row(*map(escape, report.row(stage)[:-1]))
        show.console.print(table)
        for name, why in work.rejected:
            show.console.print(f"[dim]rejected: {escape(name)}: {escape(why)}[/]")
        for passed, text in work.verdicts():
            show.console.print(f"[{'green' if passed else 'red'}]{'✓' if passed else '✗'}[/] {escape(text)}")
    return DONE if result["kept"] else FAILED
