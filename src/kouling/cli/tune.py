"""`kouling tune`: which chunk, cache, step and threshold, on the user's own clips."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from kouling import show
from kouling.cli.options import DONE, add_model, complain, verb

USUAL_DELAY_MS = 60.0


def add(verbs: Any) -> None:
    study = verb(verbs, "tune", run, "what chunk, cache, step and threshold cost and buy, on labelled recordings")
    study.add_argument("--data", type=Path, required=True, metavar="DIR", help="DIR/<label>/*.wav, or a tar of it")
    for name, what in (("chunk", "step and lookahead"), ("cached", "left context"), ("step", "new frames at once")):
        study.add_argument(f"--{name}", type=whole_numbers, default=(), metavar="N,N", help=f"{what}, in 10 ms frames")
    study.add_argument("--threshold", type=shares, default=(), metavar="X,X", help="thresholds (the model's own)")
    study.add_argument("--delay", type=milliseconds, metavar="TIME", help="longest delay of the answer (60ms)")
    study.add_argument("--quick", action="store_true", help="500 clips, always the same ones")
    study.add_argument("--report", type=Path, metavar="DIR", help="write a page with pictures and result.json")
    study.add_argument("--lang", default="en", help="language of the page: en or zh (%(default)s)")
    study.add_argument("-o", "--output", type=Path, metavar="OUT", help="write the best setting as a model")
    add_model(study)


def whole_numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text) or 0 in map(int, text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers above 0, as in 5,10,15")
    return tuple(map(int, text.split(",")))


def shares(text: str) -> tuple[float, ...]:
    if not re.fullmatch(r"\d*\.?\d+(,\d*\.?\d+)*", text) or not all(0 < float(x) <= 1 for x in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: numbers above 0, at most 1, as in 0.3,0.5")
    return tuple(map(float, text.split(",")))


def milliseconds(text: str) -> float:
    found = re.fullmatch(r"(\d+\.?\d*)\s*(ms|s)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a time, as in 60ms or 0.06s")
    return float(found[1]) * (1000 if found[2] == "s" else 1)


def run(options: argparse.Namespace) -> int:
    from kouling.measure import tune, tune_page
    from kouling.measure.grid import grid
    from kouling.measure.pictures import figure
    from kouling.measure.words import speaker

    speaker(options.lang)
    own = tune.info_of(options.model).config.encoder
    settings = grid(own, options.chunk, options.cached, options.step, options.threshold)
    study = tune.Study(options.model, options.data, settings, options.commands, options.quick)
    try:
        delay_ms = USUAL_DELAY_MS if options.delay is None else options.delay
        least = min(each.setting.delay_ms for each in study.outcomes)
        if least > delay_ms and (options.delay is not None or options.output):
            raise ValueError(
                f"no setting that can be run has a delay of at most {delay_ms:g} ms; the least is {least} ms"
            )
        if options.report:
            figure()  # matplotlib is missed now, not at the end
            writable(options.report / "index.html")
        if options.output:
            writable(options.output)
        stopped = False
        try:
            with show.progress("tuning", total=len(study.recordings)) as report:
                study.run(report)
        except KeyboardInterrupt:
            stopped = True
            if not study.done:
                raise
        result = study.to_dict(delay_ms)
        if options.report:
            tune_page.page(study, delay_ms, options.lang).write(options.report, result)
        if options.json:
            print(json.dumps(result, ensure_ascii=False))
        else:
            front = study.pareto()
            table = Table(box=None, header_style="bold")
            for column in tune_page.HEAD:
                table.add_column(column, justify="right")
            for each in study.outcomes:
                cells = tune_page.row(each, front)
                table.add_row(*(cell if isinstance(cell, str) else "✓" if cell else "" for cell in cells))
            show.console.print(table)
            for reason, names in study.reasons().items():
                show.console.print(f"[dim]not run: {', '.join(names)}: {reason}[/]")
            for reason in study.unreadable:
                show.console.print(f"[dim]left out: {escape(reason)}[/]")
            show.console.print(f"[dim]{' '.join(tune_page.LEGEND)}[/]")
            show.console.print(tune_page.answer(study, delay_ms, speaker("en")))
        best = study.best(delay_ms)
        if stopped:
            unwritten = "; no model was written" if options.output else ""
            return complain(f"stopped after {study.done} of {len(study.recordings)} clips{unwritten}", 130)
        if options.output and best is not None:
            study.write(best, options.output)
        return DONE
    finally:
        study.close()


def writable(path: Path) -> None:
    """Raises: ValueError where a file of that name cannot be written; makes its folder, and leaves no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder")
        probe = path.with_name(f".{path.name}.probe")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
