"""A whole training run: train, export, calibrate with the runtime that ships, and write the resulting model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.deploy import engine, onnx
from kouling.measure.accuracy import SILENCE, UNKNOWN, Evaluation, decide
from kouling.recognizer import ENGINE_FILE, STEP_FILE, Recognizer
from kouling.train.calibrate import calibrate
from kouling.train.loop import Trainer
from kouling.train.recipe import Recipe
from kouling.train.scenes import SceneMaker


def run(
    recipe: Recipe,
    folders: Sequence[Path],
    out: Path,
    cache: Path,
    kept: Path | None = None,
    device: str = "auto",
    workers: int = 0,
) -> None:
    """Make, or finish, the model of a recipe in the folder `out`: model.safetensors, step.onnx, model.kouling, log.csv
    and curves.png. kept: folder in which drawn scenes are left for other runs on the same data. device: one of
    `precision.DEVICES`. workers: processes that draw scenes ahead.

    Raises: ValueError where data is missing or `out` holds another run; OSError on a full disk.
    """
    import matplotlib  # noqa: F401  # what the last minute needs is missed in the first
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    console = Console(stderr=True, highlight=False)
    trainer = Trainer(recipe, folders, out, cache, kept, device=device, workers=workers)
    trainer.run()
    console.log("calibrating")
    finish(out, trainer.scenes, console.log)
    console.log(f"{recipe.name}: {out / STEP_FILE}; try it with: kouling listen --model {out} FILE")


def finish(out: Path, scenes: SceneMaker, report: Callable[[str], None]) -> None:
    """Calibrate the trained checkpoint in `out` and measure it, in ONNX Runtime, and write both into what it says of
    itself. Raises: ValueError where the recipe has no validation clips of words; OSError on a full disk."""
    path, ready = out / "model.safetensors", out / STEP_FILE
    info, weights = checkpoint.load(path)

    def write(described: ModelInfo) -> onnx.OnnxRunner:
        checkpoint.save(path, described, weights)
        onnx.export(path, ready)
        return onnx.OnnxRunner(ready)

    info = replace(info, decoder={})
    info = replace(info, decoder=calibrate(write(info), scenes, report))
    result = evaluate_validation(Recognizer(write(info)), scenes)
    report(f"{result.accuracy:.2%} of {result.clips} validation clips")
    write(replace(info, provenance={**info.provenance, "accuracy": result.accuracy, "clips": result.clips}))
    try:
        engine.export(path, out / ENGINE_FILE)
    except ValueError as error:  # a shape that the engine does not run; the model runs in ONNX Runtime
        report(f"not for the engine: {error}")


def evaluate_validation(recognizer: Recognizer, scenes: SceneMaker) -> Evaluation:
    """Every validation clip, decided by the recogniser as it ships."""
    result = Evaluation()
    for corpus, clip, target in scenes.valid:
        label = scenes.units[target] if target > 1 else (UNKNOWN if target else SILENCE)
        command = decide(recognizer, corpus.of(clip))
        result.add(label, command.name if command else None)
    return result
