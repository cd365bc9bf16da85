"""The command line: parses, calls, prints; a file for each verb. Exit status 0 done, 1 failed, 2 the input is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kouling import __version__
from kouling.cli import (
    calibrate,
    compare,
    compress,
    enrol,
    evaluate,
    export,
    import_,
    listen,
    measure,
    mine,
    models,
    teach,
    train,
    tune,
)
from kouling.cli.options import DONE, FAILED, WRONG_INPUT, complain


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


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other error, in place of the usage."""
        self.exit(WRONG_INPUT, f"kouling: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="kouling", description="Hears voice commands: listen, measure, train.")
    top.add_argument("--version", action="version", version=f"kouling {__version__}")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    own = (teach, enrol, import_)  # one's own commands
    for module in (listen, evaluate, *own, measure, compare, tune, calibrate, mine, train, compress, export, models):
        module.add(verbs)
    return top
