"""`kouling calibrate`: the thresholds of a command set, from recordings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kouling import recognizer, show
from kouling.cli.options import (
    FAILED,
    add_model_name,
    check_rate,
    complain,
    interruptible,
    tell_skipped,
    verb,
    writable_folder,
)


def add(verbs: Any) -> None:
    fit = verb(verbs, "calibrate", run, "find the threshold of every command of a set, and write it into the set")
    fit.add_argument("set", type=Path, metavar="SET", help="command set, TOML; its comments stay")
    fit.add_argument("--data", type=Path, required=True, metavar="DIR", help="clips, DIR/<command>/*.wav; or a tar")
    fit.add_argument("--speech", type=Path, metavar="DIR", help="DIR/<any>/*.wav: hours in which nothing is a command")
    fit.add_argument(
        "--false-alarms-per-hour", type=float, default=0.5, metavar="R", help="of the whole set, at most (%(default)s)"
    )
    fit.add_argument("--unproven", action="store_true", help="also where there is too little speech to show that rate")
    fit.add_argument("-o", "--output", type=Path, metavar="OUT", help="write to another file than SET")
    add_model_name(fit)
    fit.add_argument("--json", action="store_true", help="results as JSON on stdout, and nothing else there")


def run(options: argparse.Namespace) -> int:
    from kouling.measure import recordings, thresholds

    asked = options.false_alarms_per_hour
    check_rate(asked)
    runner = recognizer.load_runner(options.model)
    chosen = recognizer.chosen_commands(runner.info, options.set)
    output = options.output or options.set
    writable_folder(output.resolve().parent)
    recordings.check(options.data, options.speech)
    totals = [recordings.count(path) for path in (options.data, options.speech) if path]
    known = [total for total in totals if total is not None]
    skipped: list[str] = []
    done = {"clips": 0, "speech": 0, "checking": 0}
    total = 2 * sum(known) if len(known) == len(totals) else None
    with show.progress("listening, then checking", total) as shown, interruptible(shown) as bar:

        def report(phase: str, recordings: int) -> None:
            done[phase] = done[phase] + 1 if phase == "checking" else recordings
            bar(sum(done.values()))

        try:
            result = thresholds.calibrate(
                runner, chosen, options.data, options.speech, asked, skipped, options.unproven, report
            )
        except thresholds.CannotReach as error:
            return complain(f"{options.set}: {error}; nothing was written", FAILED)
    thresholds.write(options.set, output, {command.name: command.threshold for command in result.commands})
    if options.json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        show.calibration(result)
        show.written("written to", output)
    return tell_skipped(skipped)
