"""What the verbs share: how they are added, common options, exit status, and how errors are told."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kouling import recognizer
from kouling.recognizer import DEFAULT_MODEL

DONE, FAILED, WRONG_INPUT = 0, 1, 2


def complain(error: Exception | str, status: int) -> int:
    print("kouling: " + " ".join(str(error).split()), file=sys.stderr)
    return status


def verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    added.set_defaults(run=run)
    return added


def add_model_name(target: argparse.ArgumentParser) -> None:
    target.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="installed name or path (%(default)s)")


def add_model(target: argparse.ArgumentParser) -> None:
    add_model_name(target)
    target.add_argument("--commands", metavar="SET", help="command set, TOML; every word of the model if left out")
    target.add_argument("--json", action="store_true", help="results as JSON on stdout, and nothing else there")


def check_rate(per_hour: float | None) -> None:
    """Raises: ValueError for a --false-alarms-per-hour that is none."""
    if per_hour is not None and not 0 < per_hour <= 1e6:
        raise ValueError(f"--false-alarms-per-hour {per_hour}; allowed: above 0")


@contextmanager
def interruptible(report: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """`report`, which raises KeyboardInterrupt on its next call after Ctrl-C. At once it might be raised where
    libsndfile reads a file: there it is lost, and the file seems cut short. A second Ctrl-C acts at once.
    """
    asked = threading.Event()

    def ask(signal_number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    def checked(done: int) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        report(done)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, ask)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, before)


def tell_skipped(skipped: list[str], most: int = 20) -> int:
    """A line for each recording that could not be read -> the exit status."""
    for line in skipped[:most]:
        complain(f"skipped: {line}", WRONG_INPUT)
    if len(skipped) > 1:
        complain(f"skipped {len(skipped)} recordings that cannot be read", WRONG_INPUT)
    return WRONG_INPUT if skipped else DONE


def writable_folder(folder: Path) -> Path:
    """The folder, made where it is not there: found out before long work begins. Raises: ValueError."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written: {error.strerror or error}") from None


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kouling"


def checkpoint_of(model: str) -> Path:
    """The checkpoint of an installed model's name, a folder, or itself. Raises: ValueError saying what there is."""
    path = recognizer.MODELS / model if model in recognizer.model_names() else Path(model)
    path = path / "model.safetensors" if path.is_dir() else path
    if path.suffix != ".safetensors" or not path.is_file():
        names = ", ".join(recognizer.model_names())
        raise ValueError(f"{model}: no checkpoint; allowed: {names}, or a path to model.safetensors")
    return path
