"""`kouling compare`: models and runtimes side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kouling import show
from kouling.cli.measure import add_report
from kouling.cli.options import check_rate, tell_skipped, verb


def add(verbs: Any) -> None:
    beside = verb(verbs, "compare", run, "memory, latency and hearing of models and runtimes side by side")
    beside.add_argument("models", nargs="+", metavar="MODEL[:RUNTIME]", help="installed names or paths: en-small:onnx")
    beside.add_argument("--data", type=Path, metavar="DIR", help="clips, DIR/<label>/*.wav: how many each gets right")
    beside.add_argument(
        "--speech", type=Path, metavar="DIR", help="DIR/<any>/*.wav, speech without commands: what each misses at"
    )
    beside.add_argument(
        "--false-alarms-per-hour", type=float, default=0.5, metavar="R", help="in that speech, at most (%(default)s)"
    )
    beside.add_argument("--commands", type=Path, metavar="SET", help="command set, TOML; every word if left out")
    add_report(beside)


def run(options: argparse.Namespace) -> int:
    from kouling.measure import datasheet, datasheet_page, recordings, runtimes

    if len(options.models) < 2:
        raise ValueError(
            f"compare {options.models[0]}; allowed: two or more, such as {options.models[0]}:engine and :onnx"
        )
    given = [name for name, value in (("--speech", options.speech), ("--commands", options.commands)) if value]
    if given and not options.data:
        raise ValueError(f"{given[0]} goes with --data, clips of the commands")
    check_rate(options.false_alarms_per_hour)
    recordings.check(options.data, options.speech)
    found = [runtimes.find(*_named(each, list(runtimes.RUNTIMES))) for each in options.models]
    subjects = [runtimes.open_subject(runtime, path) for runtime, path in found]
    if options.report:
        datasheet_page.prepare(options.report)
    sheets = [datasheet.begin(subject) for subject in subjects]
    datasheet.fill_footprint(sheets, subjects, show.progress)
    skipped: list[str] = []
    if options.data:
        chosen = options.commands, options.data, options.speech, options.false_alarms_per_hour
        skipped = datasheet.fill_hearing(sheets, subjects, *chosen, show.progress)
    result = {"models": [sheet.to_dict("500") for sheet in sheets]}
    if options.report:
        datasheet_page.comparison(sheets, options.lang).write(options.report, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show.comparison(sheets)
    return tell_skipped(skipped)


def _named(text: str, runtimes: list[str]) -> tuple[str, str | None]:
    """`MODEL:RUNTIME` -> both; a colon may also be part of a path."""
    model, _, runtime = text.rpartition(":")
    return (model, runtime) if model and (runtime in runtimes or "/" not in runtime) else (text, None)
