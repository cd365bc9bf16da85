"""`kouling train`: a model from a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from kouling.cli.options import DONE, FAILED, complain, default_cache, verb


def add(verbs: Any) -> None:
    learn = verb(verbs, "train", run, "train a model from a recipe; go on where it was stopped")
    learn.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe.toml")
    learn.add_argument("--data", type=Path, action="append", help="folder of the data (KOULING_DATA, else ./data)")
    learn.add_argument("--out", type=Path, help="folder of the run (runs/<name>)")
    learn.add_argument(
        "--validation", type=Path, metavar="DIR", help="no training: write what it never hears, to evaluate on"
    )
    learn.add_argument(
        "--keep-scenes", type=Path, metavar="DIR", help="leave drawn scenes there, half a GB each, for further runs"
    )
    learn.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda", help="what computes (auto: a GPU, where there is one)"
    )
    learn.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that draw scenes ahead while it trains (%(default)s)",
    )
    learn.add_argument("--cache", type=Path, default=default_cache(), help="folder of decoded samples (%(default)s)")


def run(options: argparse.Namespace) -> int:
    try:
        from kouling.train import recipe
        from kouling.train.run import run as train
        from kouling.train.validation import write_validation
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    if options.workers < 0:
        raise ValueError(f"--workers is {options.workers}; allowed: 0 or more")
    given = os.environ.get("KOULING_DATA")
    folders = options.data or ([Path(p) for p in given.split(os.pathsep)] if given else [Path("data"), Path(".")])
    chosen = recipe.load(options.recipe)
    out = options.out or Path("runs") / chosen.name
    if options.validation:
        write_validation(chosen, folders, options.cache, options.validation)
        return DONE
    try:
        train(chosen, folders, out, options.cache, options.keep_scenes, options.device, options.workers)
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None
    except KeyboardInterrupt:
        return complain(f"stopped; the same command goes on from the last full epoch, in {out}", 130)
    except FileNotFoundError:  # of the user's input
        raise
    except OSError as error:
        return complain(f"training stopped: {error}; the last good checkpoint is in {out}", FAILED)
    return DONE
