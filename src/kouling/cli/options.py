"""What the verbs share: how they are added, common options, exit status, and how errors are told."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from kouling.recognizer import DEFAULT_MODEL

DONE, FAILED, WRONG_INPUT = 0, 1, 2


def complain(error: Exception | str, status: int) -> int:
    print("kouling: " + " ".join(str(error).split()), file=sys.stderr)
    return status


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
