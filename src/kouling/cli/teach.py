"""`kouling teach`: a model for one's own commands, from their text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kouling import show
from kouling.cli.options import DONE, FAILED, check_rate, complain, default_cache, verb, writable_folder

STOPPED = 130


def add(verbs: Any) -> None:
    learn = verb(verbs, "teach", run, "make a model that hears the commands of a set, from their text alone")
    learn.add_argument("set", type=Path, metavar="SET", help="command set, TOML")
    learn.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="folder of the model")
    learn.add_argument(
        "--size", default="", metavar="SIZE", help="small (under 500 KB) or base (1.8 MB) (by the size of the set)"
    )
    learn.add_argument("--language", default="", help="of the commands, as in en (the set's own, else en)")
    learn.add_argument(
        "--recordings", type=Path, metavar="DIR", help="real recordings, DIR/<command or phrase>/*.wav; three help"
    )
    learn.add_argument(
        "--more", type=Path, metavar="DIR", help="go on with MODEL: learn from clips that `kouling listen --keep` kept"
    )
    learn.add_argument(
        "--false-alarms-per-hour", type=float, metavar="R", help="of the whole set (0.5; of one with slots 10)"
    )
    learn.add_argument("--voices", metavar="ENGINES", help="espeak-ng, flite, festival, pico, piper: those there are")
    learn.add_argument("--epochs", type=int, metavar="N", help="how long to learn (by the size of the set)")
    learn.add_argument("--seed", type=int, default=0, help="another one makes another model (%(default)s)")
    learn.add_argument("--cache", type=Path, default=default_cache(), help="folder of made speech (%(default)s)")
    learn.add_argument("--json", action="store_true", help="what to expect as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    try:
        from kouling.teach import run as teaching
        from kouling.train.speak import BACKENDS
    except ModuleNotFoundError as error:
        raise ValueError(f"teaching needs {error.name}; install with: pip install 'kouling[train]'") from None
    check_rate(options.false_alarms_per_hour)
    if options.epochs is not None and not 1 <= options.epochs <= 1000:
        raise ValueError(f"--epochs {options.epochs}; allowed: 1 to 1000")
    engines = tuple(options.voices.split(",")) if options.voices else tuple(BACKENDS)
    asked = teaching.Asked(
        options.set,
        writable_folder(options.output),
        options.language,
        options.recordings,
        options.size,
        options.more,
        options.false_alarms_per_hour,
        engines,
        options.epochs,
        options.seed,
    )
    try:
        taught = teaching.teach(asked, options.cache, lambda line: show.errors.print(f"[dim]{line}[/]"))
    except KeyboardInterrupt:
        return complain("stopped; the same command goes on from the last full epoch", STOPPED)
    except FileNotFoundError:  # of the user's input
        raise
    except OSError as error:
        return complain(f"teaching stopped: {error}", FAILED)
    if options.json:
        print(json.dumps(taught.to_dict(), ensure_ascii=False))
    else:
        show.taught(taught)
        show.written("written to", options.output)
    return DONE
