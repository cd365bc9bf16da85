"""`kouling teach`: from the text of a command set to a model that hears it, and what to expect of that model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio, checkpoint, grammar, recognizer
from kouling.checkpoint import ModelInfo
from kouling.compress import quantize
from kouling.config import read_toml
from kouling.deploy import engine
from kouling.measure import stream, thresholds
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.detection import recognizer_with
from kouling.measure.thresholds import Calibration
from kouling.recognizer import ENGINE_FILE
from kouling.teach import background, lesson, neighbours, recordings
from kouling.teach.neighbours import Pair
from kouling.train.data import load
from kouling.train.loop import Trainer
from kouling.train.recipe import Recipe
from kouling.train.scenes import SceneMaker
from kouling.train.speak import BACKENDS

CHECKPOINT = "model.safetensors"
COMMANDS_FILE = "commands.toml"
# Of the model file of a size; with what a stream remembers, 500 KB in all.
MOST_BYTES = {"small": 448_000}
STATE = {"small": "bfloat16", "base": "float"}
CALIBRATION_SCENES = 28  # of the first shape, by which errors of rounding are weighed
# An hour. Orders are listened to behind a wake word or a button; a wake word all day.
FALSE_ALARMS = {"phrases": 0.5, "grammar": 10.0}
RUNS = 2  # whose weights are averaged; by words one, as runs in which less is frozen go too far apart
FAINT = 0.02  # confidence at which a phrase is made out where it is known that one of a few is said
SHORT = 5  # phones: what has no more is in much that people say, or nearly
# What a taught command set's decoder does: it answers at once, since who says "computer" often talks on.
DECODER = {"threshold": 0.5, "isolation_s": 0.0, "hesitation_s": 0.0}
# And that of words: an order with all that belongs to it takes six seconds. In 1.2 h of speech a grammar of coffee
# heard 157 sentences of one word, and two of two.
BY_WORDS = {"sentences": True, "max_command_duration_s": 8.0, "confidence_per_word": 2.0}


@dataclass(frozen=True)
class Asked:
    """What `kouling teach` is asked for."""

    commands: Path
    out: Path
    language: str = ""  # the set's own, else English
    recordings: Path | None = None
    size: str = ""  # by the set
    more: Path | None = None  # clips kept by `kouling listen --keep`
    per_hour: float | None = None  # FALSE_ALARMS of the whole set
    engines: tuple[str, ...] = tuple(BACKENDS)
    epochs: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """What came of it."""

    name: str
    calibration: Calibration
    confusable: tuple[Pair, ...]
    short: Mapping[str, list[str]]  # phrases of few sounds, and the common words that are near them
    recorded: Mapping[str, int]  # recordings of each command that were learned from
    problems: tuple[str, ...]  # with recordings that were left out

    def advice(self) -> list[str]:
        """What to change in the set, if anything, in words."""
        lines = [
            f"{pair.one!r} and {pair.other!r} differ in {'one sound' if pair.apart <= 1 else 'few sounds'}: say more "
            "in one of them where they must not be confused"
            for pair in self.confusable
        ]
        for phrase, near in self.short.items():
            close = f" and close to {', '.join(map(repr, near))}" if near else ""
            lines.append(f"{phrase!r} is short{close}: consider a longer phrase, as 'hey {phrase}'")
        return lines

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.name,
            **self.calibration.to_dict(),
            "rests_on": self.rests_on(),
            "advice": self.advice(),
            "recordings": dict(self.recorded),
            "left_out": list(self.problems),
        }

    def rests_on(self) -> str:
        real = sum(self.recorded.values())
        more = f", a few of {real} real recordings among them" if real else ""
        return (
            f"synthetic voices that training never heard{more}; people are harder to hear: try it, and keep what goes "
            "wrong with kouling listen --mic --keep"
        )


def teach(asked: Asked, cache: Path, report: Callable[[str], None] = lambda line: None) -> Taught:
    """Make the model, or go on where an interrupted run stopped; `asked.out` gets model.safetensors, model.kouling and
    commands.toml when all is done, not before.

    Raises: ValueError, one line, for a set that cannot be taught, recordings that cannot be used, and where no
    synthesiser is installed; OSError on a full disk.
    """
    table = without_enrolled(read_toml(asked.commands), report)
    taught = grammar.read(table, str(asked.commands), asked.language or str(table.get("language", "en")))
    language = taught.language
    plan = lesson.plan(taught, language, asked.engines, asked.seed)
    before = asked.out / CHECKPOINT if asked.more is not None and (asked.out / CHECKPOINT).exists() else None
    if before is not None and bool(checkpoint.load_info(before).decoder.get("sentences")) == plan.by_phrase:
        was, now = ("by words", "by phrases") if plan.by_phrase else ("by phrases", "by words")
        raise ValueError(
            f"{before}: was taught {was}, and what the set is now is taught {now}; teach it anew, into another folder"
        )
    size = asked.size or (lesson.size_of(plan, language) if before is None else lesson.size_like(before, language))
    start = lesson.start_of(language, size)
    short, pairs = check(plan, language)
    work = asked.out / "work"
    tell = told_by(asked.out / ENGINE_FILE) if (asked.out / ENGINE_FILE).exists() else None
    usable = recordings.gather(
        asked.recordings, asked.more, plan.spellings, work / "recordings", plan.phrases_of(), tell
    )
    for problem in usable.problems:
        report(f"left out: {problem}")
    recipe = lesson.recipe_of(plan, asked.out.name, language, start, work, usable.folder, asked.seed)
    epochs = lesson.epochs_of(plan, size) if asked.epochs is None else asked.epochs
    recipe = replace(recipe, training=replace(recipe.training, epochs=epochs))
    if before is not None:  # goes on from what it was
        shutil.copyfile(before, work / "before.safetensors")
        training = replace(recipe.training, epochs=max(recipe.training.epochs // 2, 1), warmup_epochs=0.2)
        recipe = replace(recipe, initial=[str(work / "before.safetensors")], training=training)
    best, scenes = learned(recipe, work, cache, RUNS if plan.by_phrase else 1)
    info, weights = checkpoint.load(best)
    if size in MOST_BYTES:
        report("rounding to 8 and 4 bits")
        features = some_scenes(scenes)
        weights = quantize.quantize(quantize.Mixed(max_bytes=MOST_BYTES[size]), info, weights, features)
    report("choosing thresholds")
    decoder = DECODER if plan.by_phrase else {**DECODER, **BY_WORDS}
    info = replace(info, name=recipe.name, decoder=decoder, commands=table)
    per_hour = FALSE_ALARMS["phrases" if plan.phrases else "grammar"] if asked.per_hour is None else asked.per_hour
    result = finish(info, weights, recipe, plan, work, STATE[size], per_hour, cache, report)
    for file in (CHECKPOINT, ENGINE_FILE, COMMANDS_FILE):
        (work / file).replace(asked.out / file)
    return Taught(asked.out.name, result, tuple(pairs), short, usable.counts, tuple(usable.problems))


def without_enrolled(table: dict[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    """The set without what was enrolled: that is for another encoder than the one to be taught.

    Raises: ValueError where nothing is left."""
    entries = table.get("command", [])
    if not isinstance(entries, list) or not any(isinstance(entry, dict) and "enrolled" in entry for entry in entries):
        return table  # which `grammar.read` looks at
    kept = []
    for entry in entries:
        if "enrolled" in entry:
            report(f"without the recordings of {entry.get('name')!r}: enrol it again with the model that comes of this")
        if "enrolled" not in entry or "phrases" in entry:
            kept.append({key: value for key, value in entry.items() if key != "enrolled"})
    if not kept:
        raise ValueError("every command was enrolled, and none has phrases; needed: phrases, which can be taught")
    return {**table, "command": kept}


def learned(recipe: Recipe, work: Path, cache: Path, number_of_runs: int) -> tuple[Path, SceneMaker]:
    """The checkpoint of the mean of several runs, and their scenes. It hears more than any of them (Wortsman et al.
    2022, "Model soups", arXiv:2203.05482): each learns from other scenes, and they share their start, new units
    included. One of the runs where the mean is worse, as it is where they went far apart."""
    still = replace(recipe, training=replace(recipe.training, epochs=0))
    start = trained(still, work, cache)
    runs = []
    for number in range(number_of_runs):
        seed = number_of_runs * recipe.seed + number
        name = f"{recipe.name}, {number + 1} of {number_of_runs}" if number_of_runs > 1 else recipe.name
        runs.append(trained(replace(recipe, name=name, seed=seed, initial=[str(start.out / CHECKPOINT)]), work, cache))
    if number_of_runs == 1:
        return runs[0].out / CHECKPOINT, start.scenes
    checkpoints = [str(run.out / CHECKPOINT) for run in runs]
    mean = trained(replace(still, initial=checkpoints), work, cache, start.scenes)
    best = max([mean, *runs], key=lambda run: max(row["accuracy"] for row in run.history))
    return best.out / CHECKPOINT, start.scenes


def trained(recipe: Recipe, work: Path, cache: Path, scenes: SceneMaker | None = None) -> Trainer:
    """A run to its end, gone on with where it was interrupted."""
    trainer = Trainer(recipe, [Path(".")], work / f"run-{identity(recipe)}", cache, scenes=scenes)
    trainer.run()
    return trainer


def some_scenes(scenes: SceneMaker) -> NDArray[np.float32]:
    """(R, T, M) features of what was learned from, R about CALIBRATION_SCENES."""
    shape = scenes.recipe.scenes[0]
    of_all = shape.share / sum(each.share for each in scenes.recipe.scenes)
    return scenes.some(CALIBRATION_SCENES * shape.slots / of_all)[0].features.astype(np.float32)


def told_by(model: Path) -> Callable[[NDArray[np.int16], Sequence[str]], str | None]:
    """Which of some phrases is said in a recording, by a model that has been taught them, if it makes out any."""
    runner = engine.Engine(model)

    def tell(samples: NDArray[np.int16], phrases: Sequence[str]) -> str | None:
        table = {"command": [{"name": f"_{i}", "phrases": [phrase]} for i, phrase in enumerate(phrases)]}
        listener = recognizer_with(runner, recognizer.parsed(table, runner.info, str(model)), FAINT)
        heard = stream.hear(listener, samples)
        return phrases[int(max(heard, key=lambda event: event.confidence).name[1:])] if heard else None

    return tell


def check(plan: lesson.Lesson, language: str) -> tuple[dict[str, list[str]], list[Pair]]:
    """Phrases that are risky: of few sounds, with the words near them; and pairs that sound alike.

    Raises: ValueError for one of a single short sound, and for two of different commands that sound the same."""
    phrases = list(plan.phrases)
    said = dict(zip(phrases, neighbours.phones_of(phrases, language), strict=True))
    for phrase, phones in said.items():
        if len(phones) < 2:
            raise ValueError(
                f"{phrase!r} is one short sound ({' '.join(phones) or 'none'}), which is in every sentence; "
                "needed: two syllables or more"
            )
    pairs = neighbours.confusable(phrases, language)
    for pair in pairs:
        owners = plan.command_of[pair.one], plan.command_of[pair.other]
        if pair.apart <= neighbours.SAME and owners[0] != owners[1]:
            raise ValueError(
                f"{pair.one!r} of command {owners[0]!r} and {pair.other!r} of {owners[1]!r} sound the same; allowed: "
                "phrases that differ by a sound; or one command for both"
            )
    short = {p: neighbours.near_words(p, language, 3) for p, phones in said.items() if len(phones) <= SHORT}
    return short, [pair for pair in pairs if plan.command_of[pair.one] != plan.command_of[pair.other]]


def identity(recipe: Recipe) -> str:
    """Of a recipe and of what it begins with and hears: a run goes on only where all of these are the same."""
    digest = hashlib.sha256(repr(asdict(recipe)).encode())
    for path in map(Path, (*recipe.initial, recipe.lexicon, *(source.path for source in recipe.source))):
        for file in sorted(path.rglob("*.wav")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def finish(
    info: ModelInfo,
    weights: Mapping[str, Any],
    recipe: Recipe,
    plan: lesson.Lesson,
    work: Path,
    state: str,
    per_hour: float,
    cache: Path,
    report: Callable[[str], None],
) -> Calibration:
    """Thresholds from what training never heard, and the model's files, in the folder `work`. Where the rate cannot be
    had, those of the least that can: a model that was learned is not thrown away."""
    table = dict(info.commands)
    held_back(recipe, plan, cache, work / "valid")
    write(info, weights, work, state)
    runner = engine.Engine(work / ENGINE_FILE)
    chosen = recognizer.parsed(table, info, info.name)
    clips, speech = work / "valid" / "clips", work / "valid" / "speech"
    try:
        result = thresholds.calibrate(runner, chosen, clips, speech, per_hour, [], unproven=True)
    except thresholds.CannotReach as error:
        report(f"{error}; thresholds for {error.per_hour:g} are chosen")
        result = thresholds.calibrate(runner, chosen, clips, speech, error.per_hour, [], unproven=True)
    own = {command.name: command.threshold for command in result.commands}
    entries = [{"threshold": own[entry["name"]], **entry} for entry in table["command"]]
    described = {**info.provenance, "taught": result.to_dict()}
    write(replace(info, commands={**table, "command": entries}, provenance=described), weights, work, state)
    return result


def write(info: ModelInfo, weights: Mapping[str, Any], folder: Path, state: str) -> None:
    checkpoint.save(folder / CHECKPOINT, info, weights)
    engine.export(folder / CHECKPOINT, folder / ENGINE_FILE, state=state)
    import tomlkit

    checkpoint.write_whole(folder / COMMANDS_FILE, tomlkit.dumps(dict(info.commands)).encode())


def held_back(recipe: Recipe, plan: lesson.Lesson, cache: Path, out: Path) -> None:
    """What training never heard, as labelled recordings: `clips/<command or _unknown_>`, `speech/`; of running speech
    what says a phrase, as far as is known, is left out, for to hear that is no false alarm."""
    shutil.rmtree(out, ignore_errors=True)
    said = background.saying(plan.phrases)
    for source in recipe.source:
        corpus = load(source, [Path(".")], cache)
        for clip in corpus.part(source, "valid"):
            name = f"{clip.name.replace('/', '-')}.wav"
            if source.use in ("speech", "noise"):
                if clip.name in said:
                    continue
                path = out / "speech" / source.use / name
            else:
                label = plan.command_of.get(clip.label, UNKNOWN) if source.use == "words" else UNKNOWN
                if label == UNKNOWN and clip.label in plan.spellings:
                    continue  # a lone word of a grammar
                path = out / "clips" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, corpus.of(clip))
