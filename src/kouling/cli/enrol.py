"""`kouling enrol`: a command from a few recordings, in a second."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kouling import show
from kouling.cli.options import DONE, verb, writable_folder

PHONE_MODEL = "en-phones"


def add(verbs: Any) -> None:
    learn = verb(verbs, "enrol", run, "add a command to a set from three to eight recordings, without training")
    learn.add_argument("set", type=Path, metavar="SET", help="command set, TOML; made where there is none")
    learn.add_argument("name", metavar="NAME", help="of the command")
    learn.add_argument("recordings", nargs="+", type=Path, metavar="FILE", help="recordings of it, each once")
    learn.add_argument(
        "--model", default=PHONE_MODEL, metavar="M", help="one that spells what it hears in phones (%(default)s)"
    )
    learn.add_argument("--replace", action="store_true", help="a command of that name in the set")
    learn.add_argument(
        "--false-alarms-per-hour", type=float, default=1.0, metavar="R", help="of this command (%(default)s)"
    )
    learn.add_argument("--json", action="store_true", help="the result as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    from kouling.teach import enrol, enrolled_set

    if not 0 < options.false_alarms_per_hour <= 1e6:
        raise ValueError(f"--false-alarms-per-hour {options.false_alarms_per_hour}; allowed: above 0")
    writable_folder(options.set.resolve().parent)
    document = enrolled_set.read(options.set)
    taken = enrolled_set.phrases(document, options.name, options.replace)
    result = enrol.enrol(options.model, options.name, options.recordings, options.false_alarms_per_hour, taken)
    enrolled_set.write(options.set, document, result.name, result.phrases, result.threshold)
    for problem in result.problems:
        show.errors.print(f"[dim]left out: {problem}[/]")
    if options.json:
        print(json.dumps(asdict(result), ensure_ascii=False))
    else:
        show.enrolled(result)
        show.written(f"try it with: kouling listen --mic --model {options.model} --commands", options.set)
    return DONE
