"""A start for the fine-tuning of a pruned or sparse model: a checkpoint, and a recipe to train it with.

    python recipes/prune.py recipes/en-base/recipe.toml src/kouling/models/en-base/model.safetensors OUT
        [--heads F] [--units F] [--channels F] | [--macs F]   shares to remove; see compress/prune.py
        [--zeros F]                                           share of the blocks of weights to make zero
        [--epochs 12] [--learning-rate 3e-4] [--share 0.06]   of an epoch, to measure on
        [--data DIR ...]
    kouling train OUT/recipe.toml --data DIR

Writes OUT/start.safetensors and OUT/recipe.toml, and prints the percent of validation clips that are right before any
training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kouling import checkpoint
from kouling.cli.options import default_cache
from kouling.commands import BLANK, UNKNOWN
from kouling.compress.finetune import recipe_for
from kouling.compress.losses import scene_features, scene_losses
from kouling.compress.prune import Plan, importance, prune
from kouling.compress.sparse import input_powers, sparsify
from kouling.config import PRESETS
from kouling.deploy.step import build
from kouling.train import recipe as recipes
from kouling.train.objective import accuracy
from kouling.train.scenes import SceneMaker

DRAW = 10**6  # of scenes that no epoch of training ever draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    for kind in ("heads", "units", "channels", "macs", "zeros"):
        parser.add_argument(f"--{kind}", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--share", type=float, default=0.06)
    parser.add_argument("--data", type=Path, action="append", default=[])
    options = parser.parse_args()
    plan = Plan(options.heads, options.units, options.channels, options.macs)
    recipe = recipes.load(options.recipe)
    scenes = SceneMaker(recipe, (BLANK, UNKNOWN, *recipe.units), options.data or [Path("data")], default_cache())
    groups, valid = scenes.draw_epoch(DRAW, options.share), scenes.validation(recipe.training.validation_s)

    def tell(what: str) -> None:
        percent = accuracy(build(info, weights), *valid)
        size = sum(value.size for key, value in weights.items() if ".running_" not in key)
        print(what, f"{size} parameters", *(f"{key} {value:.2f} %" for key, value in percent.items()), flush=True)

    info, weights = checkpoint.load(options.model)
    tell("as it was:")
    if plan != Plan():
        measured = importance(build(info, weights), scene_losses(recipe, groups))
        info, weights = prune(info, weights, measured, plan)
        tell("pruned:")
    if options.zeros:
        powers = input_powers(build(info, weights), scene_features(recipe, groups))
        info, weights = sparsify(info, weights, powers, options.zeros)
        tell("sparse:")
    options.out.mkdir(parents=True, exist_ok=True)
    start = options.out / "start.safetensors"
    checkpoint.save(start, info, weights)
    tuned = recipe_for(recipe, info, start, options.model, options.epochs, options.learning_rate)
    written = changes(options.recipe, tuned)
    checkpoint.write_whole(options.out / "recipe.toml", written.encode())
    assert recipes.load(options.out / "recipe.toml") == tuned


def changes(path: Path, tuned: recipes.Recipe) -> str:
    """What `tuned` changes in the recipe of the file `path`, as TOML that extends it."""
    lines = [f'extends = "{path.resolve()}"', f'name = "{tuned.name}"', f'initial = ["{tuned.initial[0]}"]']
    preset = PRESETS[tuned.preset]  # `extends` takes a table `config` whole, so all that the preset has not is told
    for section in ("features", "encoder"):
        given, usual = vars(getattr(tuned.config, section)), vars(getattr(preset, section))
        other = [f"{key} = {given[key]!r}" for key in given if given[key] != usual[key]]
        lines += ["", f"[config.{section}]", *other] if other else []
    settings = tuned.training
    lines += ["", "[distill]", f'teacher = "{tuned.distill.teacher}"', "", "[training]"]
    lines += [f"{key} = {getattr(settings, key)}" for key in ("epochs", "learning_rate", "warmup_epochs")]
    lines += [f"keep_zeros = {str(settings.keep_zeros).lower()}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
