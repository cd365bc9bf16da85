"""`kouling evaluate`: accuracy on labelled recordings, streams and running speech."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kouling import audio, recognizer, show
from kouling.cli.options import DONE, add_model, complain, interruptible, tell_skipped, verb, writable_folder


def add(verbs: Any) -> None:
    judge = verb(verbs, "evaluate", run, "accuracy on labelled recordings, DIR/<label>/*.wav")
    judge.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder of folders named after commands, or a tar of one"
    )
    judge.add_argument(
        "--gain", type=float, default=0.0, metavar="DB", help="change the level first, clipped to 16 bits"
    )
    judge.add_argument("--snr", type=float, metavar="DB", help="add noise at this signal-to-noise ratio first")
    judge.add_argument(
        "--noise", type=Path, metavar="DIR", help="recordings of noise, for --snr; pink noise if left out"
    )
    judge.add_argument(
        "--stream", type=float, metavar="MIN", help="one stream this long, with --count commands in noise"
    )
    judge.add_argument("--count", type=int, default=100, help="commands in the stream (100)")
    judge.add_argument(
        "--against", metavar="M", help="another form of the model, to count the clips that both decide alike"
    )
    judge.add_argument("--running", action="store_true", help="no commands in DIR: count false alarms an hour")
    judge.add_argument(
        "--report",
        type=Path,
        metavar="OUT",
        help="a page with confusions, conditions, near misses to listen to, and more",
    )
    judge.add_argument(
        "--speech", type=Path, metavar="DIR", help="for --report: DIR/<any>/*.wav, speech without commands"
    )
    judge.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the report (%(default)s)")
    add_model(judge)


def run(options: argparse.Namespace) -> int:
    from kouling.measure import accuracy, recordings, stream

    if options.report:
        return report_on(options)
    if options.speech:
        raise ValueError("--speech goes with --report; false alarms alone are counted with: evaluate DIR --running")
    heard_by = recognizer.load(options.model, options.commands)
    names = [spec.name for spec in heard_by.command_set.commands]
    if options.stream is not None and options.running:
        raise ValueError("--stream and --running exclude one another")
    if (options.stream is not None or options.running) and options.gain:
        raise ValueError("--gain goes with single clips, not with --stream or --running")
    if (options.stream is not None or options.running) and options.against:
        raise ValueError("--against goes with single clips, not with --stream or --running")
    if options.running and (options.snr is not None or options.noise):
        raise ValueError("--snr and --noise go with clips or --stream, not with --running")
    if options.stream is not None or options.running:
        if options.stream is not None:
            snr_db = 15.0 if options.snr is None else options.snr
            samples, spoken = stream.compose(
                options.folder, names, options.stream, options.count, snr_db, options.noise
            )
            result = stream.score(stream.hear(heard_by, samples), spoken, len(samples) / audio.SAMPLE_RATE_HZ)
        else:
            with show.progress("listening") as report:
                result = stream.false_alarms(heard_by, options.folder, report)
        if options.json:
            print(json.dumps(result.to_dict(), ensure_ascii=False))
        else:
            show.stream(result)
        return DONE
    disturb = accuracy.disturbance(options.gain, options.snr, options.noise)
    against = recognizer.load(options.against, options.commands) if options.against else None
    skipped: list[str] = []
    with show.progress("evaluating", recordings.count(options.folder)) as bar, interruptible(bar) as report:
        figures = accuracy.evaluate(heard_by, options.folder, disturb, report, against, skipped)
    if options.json:
        print(json.dumps(figures.to_dict(), ensure_ascii=False))
    else:
        show.evaluation(figures)
    return tell_skipped(skipped)


def report_on(options: argparse.Namespace) -> int:
    from kouling.measure import evaluation_page, pictures, recordings, study

    alone = {"--stream": options.stream, "--snr": options.snr, "--against": options.against}
    given = [name for name, value in alone.items() if value is not None]
    given += [name for name, value in (("--running", options.running), ("--gain", options.gain)) if value]
    if given:
        raise ValueError(f"--report and {given[0]} exclude one another; the report has noise, gain and false alarms")
    runner = recognizer.load_runner(options.model)
    chosen = recognizer.chosen_commands(runner.info, options.commands)
    pictures.figure()  # whether matplotlib is there; found out, like the folder, before long work begins
    writable_folder(options.report)
    folders = options.folder, options.speech, options.noise
    recordings.check(*folders)
    with show.progress("evaluating", study.passes(*folders)) as bar, interruptible(bar) as report:
        made = study.study(runner, chosen, *folders, options.report, report)
    runtime = "engine" if isinstance(runner, recognizer.Engine) else "onnx"
    page = evaluation_page.write(made, options.report, runner.info.name, runtime, options.lang)
    if options.json:
        print(json.dumps(made.figures.to_dict(), ensure_ascii=False))
    else:
        show.evaluation(made.figures)
        show.written("report in", page)
    labels = made.figures.decided.keys()
    if len(labels) == 1:
        complain(
            f"{options.folder}: holds one label alone, {next(iter(labels))}: rejection and confusions say little", DONE
        )
    elif not labels & made.thresholds.keys():
        complain(f"{options.folder}: no folder is named after a command; commands: {', '.join(made.thresholds)}", DONE)
    return tell_skipped(made.skipped)
