"""`kouling mine`: false alarms in hours of recordings, as clips to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kouling import show
from kouling.cli.options import add_model_name, complain, interruptible, tell_skipped, verb, writable_folder


def add(verbs: Any) -> None:
    dig = verb(verbs, "mine", run, "collect false alarms from hours of recordings, as clips to train on")
    dig.add_argument("folder", type=Path, metavar="DIR", help="recordings in which nothing is meant as a command")
    dig.add_argument(
        "-o", "--output", type=Path, default=Path("mined"), metavar="OUT", help="folder of the clips (%(default)s)"
    )
    dig.add_argument("--commands", metavar="SET", help="command set, TOML; every word of the model if left out")
    dig.add_argument(
        "--confidence",
        type=float,
        metavar="C",
        help="collect from this confidence on; each command's threshold if left out",
    )
    add_model_name(dig)


def run(options: argparse.Namespace) -> int:
    from kouling.measure import mining

    miner = mining.Miner(options.model, options.commands, options.folder, options.confidence)
    writable_folder(options.output)
    with show.progress("mining, seconds", round(miner.seconds)) as bar, interruptible(bar) as report:
        try:
            result = miner.run(options.output, lambda seconds: report(round(seconds)))
        except KeyboardInterrupt:
            return complain(f"stopped; the same command goes on from there; what was found is in {options.output}", 130)
    show.mined(result, options.output)
    return tell_skipped(result.skipped)
