"""`kouling export`: a trained model for another runtime."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kouling.cli.options import DONE, verb


def add(verbs: Any) -> None:
    send = verb(verbs, "export", run, "write a trained model for another runtime")
    send.add_argument("model", type=Path, metavar="MODEL", help="checkpoint, model.safetensors")
    send.add_argument("--target", required=True, choices=["engine", "onnx"])
    send.add_argument("--commands", type=Path, metavar="SET", help="engine: what to listen for; every word if left out")
    send.add_argument(
        "--weights",
        choices=["int8", "int4", "float"],
        help="engine: how weights are stored; if left out int4 where the checkpoint was made for it, else int8",
    )
    send.add_argument(
        "--state",
        choices=["float", "bfloat16", "int8"],
        help="engine: how a stream stores what it remembers; float if left out",
    )
    send.add_argument("-o", "--output", type=Path, required=True)


def run(options: argparse.Namespace) -> int:
    if options.target == "engine":
        from kouling.deploy import engine

        engine.export(options.model, options.output, options.weights, options.commands, options.state or "float")
        return DONE
    if options.commands or options.weights or options.state:
        raise ValueError(
            f"--commands, --weights and --state go with --target engine, not with --target {options.target}"
        )
    try:
        from kouling.deploy import onnx

        onnx.export(options.model, options.output)
    except ModuleNotFoundError as error:
        raise ValueError(f"export needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    return DONE
