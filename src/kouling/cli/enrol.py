"""`kouling enrol`: a command from three to eight recordings, in seconds and without training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kouling import recognizer, show
from kouling.cli.options import check_rate, default_cache, verb, writable_folder


def add(verbs: Any) -> None:
    own = verb(verbs, "enrol", run, "make a command of a few recordings of it, in any language, without training")
    own.add_argument("set", type=Path, metavar="SET", help="command set, TOML, that the command goes into; may be new")
    own.add_argument("name", metavar="NAME", help="of the command; one that is there gets these recordings")
    own.add_argument("recordings", nargs="+", type=Path, metavar="AUDIO", help="three to eight recordings of it")
    own.add_argument(
        "--false-alarms-per-hour", type=float, default=0.5, metavar="R", help="of this command (%(default)s)"
    )
    own.add_argument("--only-this-voice", action="store_true", help="others who say it are heard less often")
    own.add_argument(
        "--model", default=recognizer.SPEECH_MODEL, metavar="M", help="installed name or path (%(default)s)"
    )
    own.add_argument("--cache", type=Path, default=default_cache(), help="folder of what is kept (%(default)s)")
    own.add_argument("--json", action="store_true", help="what to expect as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    from kouling.deploy.engine import Engine
    from kouling.teach import enrol

    check_rate(options.false_alarms_per_hour)
    runner = recognizer.load_runner(options.model)
    if not isinstance(runner, Engine):
        raise ValueError(
            f"--model {options.model}: only the C engine hears enrolled commands; allowed: .kouling models"
        )
    writable_folder(options.set.resolve().parent)
    if options.set.exists():
        recognizer.chosen_commands(runner.info, options.set)
    result = enrol.enrol(
        runner,
        options.name,
        options.recordings,
        options.false_alarms_per_hour,
        options.cache,
        options.only_this_voice,
        lambda line: show.errors.print(f"[dim]{line}[/]"),
    )
    enrol.write(options.set, result, lambda table: recognizer.parsed(table, runner.info, str(options.set)))
    if options.json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        show.enrolled(result, options.set, options.model)
    return 0
