"""`kouling listen`: commands in recordings, raw PCM on stdin, or the microphone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio, recognizer, show
from kouling.cli.options import DONE, WRONG_INPUT, add_model, complain, verb
from kouling.commands import Command
from kouling.recognizer import Recognizer


def add(verbs: Any) -> None:
    listen_to = verb(verbs, "listen", run, "hear commands in recordings, raw PCM on stdin, or the microphone")
    listen_to.add_argument("files", nargs="*", metavar="FILE", help="recordings; - for 16 kHz mono int16 on stdin")
    listen_to.add_argument("--mic", action="store_true", help="listen to the microphone, until Ctrl-C")
    add_model(listen_to)


def run(options: argparse.Namespace) -> int:
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
