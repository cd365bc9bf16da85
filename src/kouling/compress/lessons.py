"""What a recipe gives to compression: recordings to look at, losses to rank by, training, and clips to verify on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN
from kouling.compress import calibration, losses
from kouling.compress.finetune import recipe_for
from kouling.compress.losses import Loss
from kouling.recognizer import Recognizer
from kouling.train.loop import Trainer
from kouling.train.recipe import Recipe
from kouling.train.run import evaluate_validation, finish
from kouling.train.scenes import Batches, SceneMaker

CALIBRATION_CLIPS = 256  # whose scenes quantisation looks at
RANKED_SCENES = 768  # of each shape, whose losses pruning ranks by
STUDENT_EPOCHS = 5  # times those of fine-tuning
STUDENT_RATE, FINE_RATE = 1.5e-3, 3e-4  # learning rates at their peak


@dataclass(frozen=True)
class Data:
    """A recipe, where its recordings lie, and who teaches."""

    recipe: Recipe
    folders: Sequence[Path]
    cache: Path
    teacher: Path  # checkpoint
    kept: Path | None = None  # folder of drawn scenes, if they are shared with other runs
    workers: int = 0  # processes that draw scenes ahead


class Lessons:
    """The recordings of a recipe, loaded once; drawn scenes are kept for all training of a compression."""

    def __init__(self, data: Data, work: Path, epochs: int, seed: int) -> None:
        """work: folder for drawn scenes that are not shared. epochs: of fine-tuning. Raises: ValueError where data is
        missing, or the recipe has no validation clips of words."""
        self.data, self.epochs, self.seed = data, epochs, seed
        self.kept = data.kept or work / "scenes"
        self.taught = f"taught by {data.teacher.parent.name}"
        self.recipe = replace(data.recipe, seed=data.recipe.seed + seed)
        units = (BLANK, UNKNOWN, *data.recipe.units)
        self.scenes = SceneMaker(self.recipe, units, data.folders, data.cache)
        if not any(target > 1 for *_, target in self.scenes.valid):
            raise ValueError(f"the recipe {data.recipe.name} has no validation clips of words to verify with")

    def verify(self, recognizer: Recognizer) -> tuple[int, int]:
        """Validation clips decided rightly, and how many there are."""
        result = evaluate_validation(recognizer, self.scenes)
        return round(result.accuracy * result.clips), result.clips

    def features(self) -> NDArray[np.float32]:
        """(R, T, M) of scenes for calibration."""
        return calibration.from_scenes(self.scenes, CALIBRATION_CLIPS, self.seed)

    def losses(self) -> Iterator[Loss]:
        """Those of some scenes of the first draw, batch by batch."""
        drawn = self.scenes.epoch(0, self.kept)
        some = [_first(each, RANKED_SCENES) for each in drawn]
        return losses.scene_losses(self.recipe, some)

    def fine_tune(self, initial: Path, folder: Path, weights: str = "float") -> tuple[Path, str]:
        """Go on from a checkpoint, its weights float or on int4 grids -> the checkpoint, and what was done."""
        info = checkpoint.load_info(initial)
        recipe = recipe_for(self.recipe, info, initial, self.data.teacher, self.epochs, FINE_RATE)
        recipe = replace(recipe, training=replace(recipe.training, weights=weights, compile=False))
        taught = f"{self.epochs} epochs, {self.taught}"
        return self._train(recipe, folder), taught if weights == "float" else f"{taught}, weights on int4 grids"

    def teach(self, info: ModelInfo, folder: Path) -> tuple[Path, str]:
        """A student of that shape from nothing -> the checkpoint, and what was done."""
        epochs = STUDENT_EPOCHS * self.epochs
        recipe = recipe_for(self.recipe, info, self.data.teacher, self.data.teacher, epochs, STUDENT_RATE)
        training = replace(recipe.training, warmup_epochs=1.5, weight_decay=0.02, dropout=0.0, stem_norm=True)
        augment = replace(recipe.augment, time_masks_per_s=0.5, mel_mask_bands=8)  # it has no room to spare
        recipe = replace(recipe, initial=[], training=training, augment=augment)
        return self._train(recipe, folder), f"{epochs} epochs, {self.taught}"

    def _train(self, recipe: Recipe, folder: Path) -> Path:
        path = folder / "model.safetensors"
        trainer = Trainer(
            recipe, self.data.folders, folder, self.data.cache, self.kept, self.scenes, workers=self.data.workers
        )
        trainer.run()
        if not checkpoint.load_info(path).decoder:
            finish(folder, self.scenes, lambda line: None)  # what it is worth and how late it is, measured anew
        return path


def _first(batches: Batches, count: int) -> Batches:
    names = Batches.__dataclass_fields__
    return Batches(*(getattr(batches, name)[-count:] for name in names))
