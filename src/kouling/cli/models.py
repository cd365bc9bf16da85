"""`kouling models`: what is installed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from kouling import checkpoint, recognizer, show
from kouling.cli.options import DONE, verb


def add(verbs: Any) -> None:
    listing = verb(verbs, "models", run, "the models that are installed")
    listing.add_argument("--json", action="store_true", help="one object a line")


def run(options: argparse.Namespace) -> int:
    rows = []
    for name in recognizer.model_names():
        path = recognizer.find_model(name)
        info = checkpoint.load_info(path.with_name("model.safetensors"))
        rows.append(
            {
                "name": name,
                "language": info.language,
                "commands": [spec.name for spec in recognizer.own_commands(info).commands],
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
