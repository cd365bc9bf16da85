"""`kouling compare`: models and runtimes side by side."""

from __future__ import annotations

import argparse
import json
from typing import Any

from kouling import show
from kouling.cli.measure import add_report
from kouling.cli.options import DONE, verb


def add(verbs: Any) -> None:
    beside = verb(verbs, "compare", run, "memory and latency of models and runtimes side by side")
    beside.add_argument("models", nargs="+", metavar="MODEL[:RUNTIME]", help="installed names or paths: en-small:onnx")
    add_report(beside)


def run(options: argparse.Namespace) -> int:
    from kouling.measure import datasheet, datasheet_page, runtimes

    if len(options.models) < 2:
        raise ValueError(
            f"compare {options.models[0]}; allowed: two or more, such as {options.models[0]}:engine and :onnx"
        )
    found = [runtimes.find(*_named(each, list(runtimes.RUNTIMES))) for each in options.models]
    subjects = [runtimes.open_subject(runtime, path) for runtime, path in found]
    if options.report:
        datasheet_page.prepare(options.report)
    sheets = [datasheet.begin(subject) for subject in subjects]
    datasheet.fill_footprint(sheets, subjects, show.progress)
    result = {"models": [sheet.to_dict("500") for sheet in sheets]}
    if options.report:
        datasheet_page.comparison(sheets, options.lang).write(options.report, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show.comparison(sheets)
    return DONE


def _named(text: str, runtimes: list[str]) -> tuple[str, str | None]:
    """`MODEL:RUNTIME` -> both; a colon may also be part of a path."""
    model, _, runtime = text.rpartition(":")
    return (model, runtime) if model and (runtime in runtimes or "/" not in runtime) else (text, None)
