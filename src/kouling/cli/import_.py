"""`kouling import`: commands that were written for another recogniser, as a command set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kouling import show
from kouling.checkpoint import write_whole
from kouling.cli.options import DONE, verb


def add(verbs: Any) -> None:
    take = verb(verbs, "import", run, "turn commands that were written for another recogniser into a command set")
    take.add_argument("kind", choices=["rhino"], help="rhino: a context of Picovoice Rhino, YAML")
    take.add_argument("context", type=Path, metavar="CONTEXT", help="what to import")
    take.add_argument("-o", "--output", type=Path, required=True, metavar="SET", help="command set, TOML")


def run(options: argparse.Namespace) -> int:
    from kouling import rhino

    if not options.context.is_file():
        raise FileNotFoundError(f"{options.context}: no such file")
    try:
        text = options.context.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{options.context}: it is not UTF-8 text") from None
    write_whole(options.output, rhino.to_toml(text, options.context.name).encode())
    show.written("make a model for it with: kouling teach -o MODEL", options.output)
    return DONE
