"""The validation part of a recipe as plain folders, so that every figure can be had again with `kouling evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from kouling import audio
from kouling.measure.accuracy import SILENCE, UNKNOWN
from kouling.train.data import Clip, Corpus, load
from kouling.train.recipe import Recipe


def write_validation(recipe: Recipe, folders: Sequence[Path], cache: Path, out: Path) -> None:
    """Write what training never hears as 16-bit WAV: `clips/<unit, _unknown_ or _silence_>/`, `noise/`, `speech/`.

    Raises: ValueError where data is missing, or the recipe holds nothing back; OSError where a file cannot be written.
    """
    held_back: list[tuple[Path, Corpus, Clip]] = []
    for source in recipe.source:
        corpus = load(source, folders, cache)
        for clip in corpus.part(source, "valid"):
            known = source.use == "words" and clip.label in recipe.units
            label = {"noise": SILENCE, "speech": ""}.get(source.use, clip.label if known else UNKNOWN)
            name = clip.name.replace("/", "-").replace("@", "-") + ".wav"
            if source.use == "speech":
                held_back.append((out / "speech" / "running" / name, corpus, clip))
            else:
                held_back.append((out / "clips" / label / name, corpus, clip))
            if source.use == "noise":
                held_back.append((out / "noise" / SILENCE / name, corpus, clip))
    if not held_back:
        raise ValueError(
            "the recipe holds nothing back for validation: it needs a source with part = 'valid' or 'both'"
        )
    for path, corpus, clip in track(held_back, f"writing {out}", transient=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, corpus.of(clip))
