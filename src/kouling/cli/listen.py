"""`kouling listen`: commands in recordings, raw PCM on stdin, or the microphone."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio, recognizer, show
from kouling.cli.options import DONE, WRONG_INPUT, add_model, complain, verb, writable_folder
from kouling.commands import Command
from kouling.recognizer import Engine, Recognizer, Runner

NEARLY = 0.1  # confidence from which something below its threshold is shown


def add(verbs: Any) -> None:
    listen_to = verb(verbs, "listen", run, "hear commands in recordings, raw PCM on stdin, or the microphone")
    listen_to.add_argument("files", nargs="*", metavar="FILE", help="recordings; - for 16 kHz mono int16 on stdin")
    listen_to.add_argument("--mic", action="store_true", help="listen to the microphone, until Ctrl-C")
    listen_to.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --mic: keep what you say went wrong, for kouling teach --more"
    )
    add_model(listen_to)


def run(options: argparse.Namespace) -> int:
    if bool(options.files) == options.mic:
        raise ValueError("nothing to listen to, or both; give files, or - for stdin, or --mic")
    if options.keep and (not options.mic or options.json):
        raise ValueError("--keep goes with --mic, and not with --json: what was heard is numbered on the terminal")
    runner = recognizer.load_runner(options.model)
    chosen = recognizer.chosen_commands(runner.info, options.commands)
    heard_by = recognizer.recognizer_of(runner, chosen)
    if options.mic and not options.json:
        return watched(runner, heard_by, audio.microphone(), options.keep)
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


def watched(
    runner: Runner | Engine, heard_by: Recognizer, blocks: Iterable[NDArray[np.int16]], keep: Path | None
) -> int:
    """The microphone, with what was nearly heard too; with `keep`, its user may say what was wrong."""
    from kouling.measure import detection
    from kouling.measure.keep import HELP, Keeper

    chosen = heard_by.command_set
    names = tuple(spec.name for spec in chosen.commands)
    lower = detection.recognizer_with(runner, chosen, NEARLY)
    keeper = Keeper(writable_folder(keep) if keep else Path(), names)
    typed: queue.SimpleQueue[str] = queue.SimpleQueue()
    if keep and sys.stdin is not None:
        threading.Thread(target=lambda: deque(map(typed.put, sys.stdin), maxlen=0), daemon=True).start()
        show.errors.print(f"[dim]{HELP}[/]")
    show.errors.print(f"[dim]listening for {len(names)} commands; Ctrl-C ends[/]")
    heard_by.reset()
    lower.reset()
    recent: list[Command] = []  # what was heard, so that it is not nearly heard too

    def report(heard: list[Command], nearly: list[Command]) -> None:
        recent[:] = [*recent, *heard][-8:]
        for command in heard:
            show.live(command, keeper.number(command) if keep else None)
        for command in nearly:
            if not any(command.start_s < other.end_s + 0.5 and other.start_s < command.end_s + 0.5 for other in recent):
                show.nearly(command, keeper.number(command) if keep else None)

    for block in blocks:
        keeper.hear(block)
        report(heard_by.accept(block), lower.accept(block))
        while not typed.empty():
            try:
                show.errors.print(f"[dim]{keeper.answer(typed.get())}[/]")
            except ValueError as error:
                complain(error, WRONG_INPUT)
    report(heard_by.finish(), lower.finish())
    return DONE


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
