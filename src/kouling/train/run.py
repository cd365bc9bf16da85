"""A whole training run: train, export, calibrate with the runtime that ships, and write the resulting model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kouling import checkpoint
from kouling.deploy import onnx
from kouling.recognizer import STEP_FILE
from kouling.train.calibrate import calibrate
from kouling.train.loop import Trainer
from kouling.train.recipe import Recipe


def run(recipe: Recipe, folders: Sequence[Path], out: Path, cache: Path) -> None:
    """Make, or finish, the model of a recipe in the folder `out`: model.safetensors, step.onnx, log.csv, curves.png.

    Raises: ValueError where data is missing or `out` holds another run; OSError on a full disk.
    """
    import matplotlib  # noqa: F401  # what the last minute needs is missed in the first
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    console = Console(stderr=True, highlight=False)
    trainer = Trainer(recipe, folders, out, cache)
    trainer.run()
    trained, ready = out / "model.safetensors", out / STEP_FILE
    console.log("calibrating")
    onnx.export(trained, ready)
    settings = calibrate(onnx.OnnxRunner(ready), trainer.scenes, console.log)
    info, weights = checkpoint.load(trained)
    checkpoint.save(trained, replace(info, decoder=settings), weights)
    onnx.export(trained, ready)
    console.log(f"{recipe.name}: {ready}; try it with: kouling listen --model {out} FILE")
