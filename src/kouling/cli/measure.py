"""`kouling measure`: what a model takes on a runtime, in memory and time, and whether that keeps a budget."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from kouling import show
from kouling.cli.options import DONE, FAILED, verb
from kouling.recognizer import DEFAULT_MODEL


def add(verbs: Any) -> None:
    take = verb(verbs, "measure", run, "memory and latency of a model on a runtime, and whether they keep a budget")
    # So that a budget of -1MB is refused as a budget; argparse would take it for an option.
    take._negative_number_matcher = re.compile(r"-\d")
    take.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="installed name or path (%(default)s)")
    take.add_argument(
        "--runtime", metavar="R", help="engine, onnx, torch, or that of a bundle; what fits the file if left out"
    )
    take.add_argument("--memory", metavar="SIZE", help="budget of model and variables, as 6MB; exit status 1 above it")
    take.add_argument("--latency", metavar="TIME", help="budget of a call, as 100ms; exit status 1 above it")
    take.add_argument(
        "--at", choices=["step", "300", "500"], default="500", help="the call that is judged, in frames (%(default)s)"
    )
    take.add_argument("--long", action="store_true", help="stream for an hour, not ten minutes")
    take.add_argument("--data", type=Path, metavar="DIR", help="clips, DIR/<command>/*.wav, for the time to command")
    add_report(take)


def add_report(target: argparse.ArgumentParser) -> None:
    target.add_argument("--report", type=Path, metavar="DIR", help="write a page with tables and pictures there")
    target.add_argument("--lang", choices=["en", "zh"], default="en", help="language of the report (%(default)s)")
    target.add_argument("--json", action="store_true", help="results as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    from kouling.measure import budget, datasheet, datasheet_page, recordings, runtimes

    memory_bytes = budget.parse_memory(options.memory) if options.memory is not None else None
    latency_ms = budget.parse_latency(options.latency) if options.latency is not None else None
    runtime, path = runtimes.find(options.model, options.runtime)
    subject = runtimes.open_subject(runtime, path)
    if options.data:
        next(recordings.labelled(options.data))  # nothing there is said now
    if options.report:
        datasheet_page.prepare(options.report)
    sheet = datasheet.begin(subject)
    interrupted: KeyboardInterrupt | None = None
    try:
        datasheet.fill_footprint([sheet], [subject], show.progress)
        minutes = datasheet.LONG_MINUTES if options.long else datasheet.MINUTES
        datasheet.fill_time(sheet, subject, minutes, options.data, show.progress)
    except KeyboardInterrupt as error:  # what is finished stays
        interrupted = error
    verdicts = [] if interrupted else sheet.verdicts(options.at, memory_bytes, latency_ms)
    result = sheet.to_dict(options.at, verdicts)
    if options.report:
        datasheet_page.page(sheet, options.at, verdicts, options.lang).write(options.report, result)
    if not options.json:
        show.datasheet(sheet, options.at, verdicts)
    if interrupted:
        raise interrupted
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return DONE if all(verdict.passed for verdict in verdicts) else FAILED
