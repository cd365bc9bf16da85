"""The command line: parses, calls, prints. Exit status 0 done, 1 the work failed, 2 the user's input is wrong."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kouling import __version__, audio, checkpoint, commands, recognizer, show
from kouling.commands import Command
from kouling.recognizer import DEFAULT_MODEL, Recognizer

DONE, FAILED, WRONG_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()  # here, where a failure can still be told
        return status
    except (ValueError, FileNotFoundError) as error:
        return complain(error, WRONG_INPUT)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        discard_output()
        return DONE
    except OSError as error:
        discard_output()
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return 130


def discard_output() -> None:
    """Drop what is not written yet, where it cannot be; or Python complains when it flushes at exit."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def complain(error: Exception | str, status: int) -> int:
    print("kouling: " + " ".join(str(error).split()), file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other error, in place of the usage."""
        self.exit(WRONG_INPUT, f"kouling: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="kouling", description="Hears voice commands: listen, measure, train.")
    top.add_argument("--version", action="version", version=f"kouling {__version__}")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    listen_to = verb(verbs, "listen", listen, "hear commands in recordings, raw PCM on stdin, or the microphone")
    listen_to.add_argument("files", nargs="*", metavar="FILE", help="recordings; - for 16 kHz mono int16 on stdin")
    listen_to.add_argument("--mic", action="store_true", help="listen to the microphone, until Ctrl-C")
    add_model(listen_to)

    judge = verb(verbs, "evaluate", evaluate, "accuracy on labelled recordings, DIR/<label>/*.wav")
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
    add_model(judge)

    learn = verb(verbs, "train", train, "train a model from a recipe; go on where it was stopped")
    learn.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe.toml")
    learn.add_argument("--data", type=Path, action="append", help="folder of the data (KOULING_DATA, else ./data)")
    learn.add_argument("--out", type=Path, help="folder of the run (runs/<name>)")
    learn.add_argument(
        "--validation", type=Path, metavar="DIR", help="no training: write what it never hears, to evaluate on"
    )
    learn.add_argument("--cache", type=Path, default=default_cache(), help="folder of decoded samples (%(default)s)")

    send = verb(verbs, "export", export, "write a trained model for another runtime")
    send.add_argument("model", type=Path, metavar="MODEL", help="checkpoint, model.safetensors")
    send.add_argument("--target", required=True, choices=["engine", "onnx"])
    send.add_argument("--commands", type=Path, metavar="SET", help="engine: what to listen for; every word if left out")
    send.add_argument(
        "--weights", choices=["int8", "int4", "float"], help="engine: how weights are stored; int8 if left out"
    )
    send.add_argument("-o", "--output", type=Path, required=True)

    listing = verb(verbs, "models", models, "the models that are installed")
    listing.add_argument("--json", action="store_true", help="one object a line")
    return top


def verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    added.set_defaults(run=run)
    return added


def add_model(target: argparse.ArgumentParser) -> None:
    target.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="installed name or path (%(default)s)")
    target.add_argument("--commands", metavar="SET", help="command set, TOML; every word of the model if left out")
    target.add_argument("--json", action="store_true", help="results as JSON on stdout, and nothing else there")


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kouling"


def listen(options: argparse.Namespace) -> int:
    if bool(options.files) == options.mic:
        raise ValueError("nothing to listen to, or both; give files, or - for stdin, or --mic")
    heard_by = recognizer.load(options.model, options.commands)
    if options.mic:
        return live(heard_by, "microphone", audio.microphone(), options.json)
    status = DONE
    for file in options.files:
        try:
            if file == "-":
                if sys.stdin is None:
                    raise ValueError("-: stdin is closed")
                live(heard_by, "-", audio.pcm_stream(sys.stdin.buffer), options.json)
            else:
                recording(heard_by, file, options.json)
        except ValueError as error:  # a bad file does not stop the others
            status = complain(error, WRONG_INPUT)
    return status


def recording(heard_by: Recognizer, file: str, as_json: bool) -> None:
    heard_by.reset()
    heard: list[Command] = []
    samples = 0
    for block in audio.stream(file):
        samples += len(block)
        heard += heard_by.accept(block)
    heard += heard_by.finish()
    if as_json:
        for command in heard:
            print(show.command_json(file, command), flush=True)
    else:
        show.timeline(file, heard, samples / audio.SAMPLE_RATE_HZ)


def live(heard_by: Recognizer, name: str, blocks: Iterable[NDArray[np.int16]], as_json: bool) -> int:
    heard_by.reset()

    def report(heard: list[Command]) -> None:
        for command in heard:
            if as_json:
                print(show.command_json(name, command), flush=True)
            else:
                show.live(command)

    if not as_json:
        show.errors.print(f"[dim]listening for {len(heard_by.command_set.commands)} commands; Ctrl-C ends[/]")
    for block in blocks:
        report(heard_by.accept(block))
    report(heard_by.finish())
    return DONE


def evaluate(options: argparse.Namespace) -> int:
    from kouling.measure import accuracy, stream

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
    with show.progress("evaluating") as report:
        figures = accuracy.evaluate(heard_by, options.folder, disturb, report, against)
    if options.json:
        print(json.dumps(figures.to_dict(), ensure_ascii=False))
    else:
        show.evaluation(figures)
    return DONE


def train(options: argparse.Namespace) -> int:
    try:
        from kouling.train import recipe
        from kouling.train.run import run
        from kouling.train.validation import write_validation
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    given = os.environ.get("KOULING_DATA")
    folders = options.data or ([Path(p) for p in given.split(os.pathsep)] if given else [Path("data"), Path(".")])
    chosen = recipe.load(options.recipe)
    out = options.out or Path("runs") / chosen.name
    if options.validation:
        write_validation(chosen, folders, options.cache, options.validation)
        return DONE
    try:
        run(chosen, folders, out, options.cache)
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    except KeyboardInterrupt:
        return complain(f"stopped; the same command goes on from the last full epoch, in {out}", 130)
    except FileNotFoundError:  # of the user's input
        raise
    except OSError as error:
        return complain(f"training stopped: {error}; the last good checkpoint is in {out}", FAILED)
    return DONE


def export(options: argparse.Namespace) -> int:
    if options.target == "engine":
        from kouling.deploy import engine

        engine.export(options.model, options.output, options.weights or "int8", options.commands)
        return DONE
    if options.commands or options.weights:
        raise ValueError(f"--commands and --weights go with --target engine, not with --target {options.target}")
    try:
        from kouling.deploy import onnx

        onnx.export(options.model, options.output)
    except ModuleNotFoundError as error:
        raise ValueError(f"export needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    return DONE


def models(options: argparse.Namespace) -> int:
    rows = []
    for name in recognizer.model_names():
        path = recognizer.find_model(name)
        info = checkpoint.load_info(path.with_name("model.safetensors"))
        rows.append(
            {
                "name": name,
                "language": info.language,
                "commands": [spec.name for spec in commands.every_unit(info.units).commands],
                "parameters": info.provenance.get("parameters"),
                "bytes": path.stat().st_size,
                "accuracy": info.provenance.get("accuracy"),
            }
        )
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        show.models(rows)
    return DONE
