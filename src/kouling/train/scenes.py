"""Scenes: the training examples. A scene is a row of slots of equal length: a word, an unknown word, or nothing but
noise, with one level and one background; or a stretch of running speech in which nothing is meant as a command."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kouling.audio import SAMPLE_RATE_HZ
from kouling.config import FeatureConfig
from kouling.measure.noise import colored_noise, recorded_noise
from kouling.train import augment
from kouling.train.align import Aligner
from kouling.train.data import Clip, Corpus, cut_pieces, load
from kouling.train.lexicon import Lexicon
from kouling.train.logmel import BatchLogMel
from kouling.train.recipe import Recipe, Scenes
from kouling.train.sounds import calls

VARIED_EVERY_EPOCH = (
    "more_noise_percent",
    "more_noise_low_db",
    "time_masks_per_s",
    "time_mask_s",
    "mel_masks",
    "mel_mask_bands",
    "warp_percent",
    "filter_db",
)
UNKNOWN = 1  # index of the unknown unit; 0 is blank


@dataclass(frozen=True)
class Slot:
    corpus: Corpus | None  # None: nothing is said
    clip: Clip | None
    target: int  # what is said, of `Lexicon.sayings`: a unit, several of them, or 0 for nothing
    ending: tuple[Corpus, Clip] | None = None  # of a spliced word
    backwards: bool = False


NOTHING = Slot(None, None, 0)


@dataclass
class Batches:
    """Features of many scenes of one shape, and what is said in them."""

    features: NDArray[np.float16]  # (R, T, M)
    targets: NDArray[np.int64]  # (R, S) units, zeros at the end
    lengths: NDArray[np.int64]  # (R,)
    spans: NDArray[np.int64]  # (R, S, 2) feature frames between which each target is said, zeros at the end
    speech: NDArray[np.bool_]  # (R,) rows of running speech, which have no targets

    def heard(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(B, T) frames in which something is said, or all where nothing is or where speech runs on."""
        time = np.arange(self.features.shape[1])
        spans = self.spans[rows, :, :, None]
        said = np.logical_or.reduce((spans[:, :, 0] <= time) & (time < spans[:, :, 1]), axis=1)
        said[~np.logical_or.reduce(said, axis=1)] = True
        return np.asarray(said, dtype=np.bool_)

    def draw_noise(self, rng: np.random.Generator, count: int) -> NDArray[np.int64] | None:
        """(count,) scenes of noise alone; None where there are none."""
        alone = np.flatnonzero((self.lengths == 0) & ~self.speech)
        return alone[rng.integers(len(alone), size=count)] if len(alone) else None


class SceneMaker:
    """All the recordings of a recipe, and scenes drawn from them."""

    def __init__(self, recipe: Recipe, units: Sequence[str], folders: Sequence[Path], cache: Path) -> None:
        """Raises: ValueError where data is missing (saying where it looked) or a unit has no recording."""
        self.recipe = recipe
        self.units = list(units)
        self.lexicon = Lexicon(units, Path(recipe.lexicon) if recipe.lexicon else None)
        self.words: dict[int, list[tuple[Corpus, Clip, float]]] = {
            i: [] for i in sorted({*self.lexicon.labels.values()})
        }
        self.unknown: list[tuple[Corpus, Clip, float]] = []
        self.speech: list[tuple[Corpus, Clip]] = []
        self.pieces: list[tuple[Corpus, Clip]] = []
        self.noise: list[tuple[Corpus, Clip]] = []
        self.valid: list[tuple[Corpus, Clip, int]] = []  # target as in Slot
        self.valid_speech: list[tuple[Corpus, Clip]] = []
        for source in recipe.source:
            corpus = load(source, folders, cache)
            for clip in corpus.part(source, "train"):
                said = self.lexicon.find(clip.label) if source.use == "words" else None
                if said is not None:
                    self.words.setdefault(said, []).append((corpus, clip, source.weight))
                elif source.use in ("words", "unknown"):
                    self.unknown.append((corpus, clip, source.weight))
                else:
                    (self.speech if source.use == "speech" else self.noise).append((corpus, clip))
            for clip in corpus.part(source, "valid"):
                if source.use in ("words", "unknown"):
                    said = self.lexicon.find(clip.label) if source.use == "words" else None
                    self.valid.append((corpus, clip, UNKNOWN if said is None else said))
                elif source.use == "noise":
                    self.valid.append((corpus, clip, 0))
                else:
                    self.valid_speech.append((corpus, clip))
            if source.use == "speech":
                self.pieces += [(corpus, piece) for piece in cut_pieces(corpus, corpus.part(source, "train"))]
        if recipe.aligner:
            aligner = Aligner(Path(recipe.aligner), cache)
            names = self.lexicon.names()
            heard = aligner.align({names[i]: clips for i, clips in self.words.items()})
            self.pieces = aligner.without_words(self.pieces)
            self.words = {i: heard[names[i]] for i in self.words}
        if recipe.lexicon:  # of all that it spells, what the sources hold; each unit must be said somewhere
            self.words = {i: clips for i, clips in self.words.items() if clips}
        heard_units = {unit for i, clips in self.words.items() if clips for unit in self.lexicon.sayings[i]}
        silent = [unit for i, unit in enumerate(self.units) if i > 1 and i not in heard_units]
        if silent:
            raise ValueError(f"no recording of {', '.join(silent)} in the recipe's sources")
        self.rooms = augment.load_rooms(cache)
        self.log_mel = BatchLogMel(recipe.config.features)

    def draw_slots(self, rng: np.random.Generator) -> tuple[list[Slot], int, int]:
        """The slots of one epoch in random order, and how many slots of noise alone and of running speech go with
        them."""
        mix = self.recipe.mix
        most = max(len(clips) for clips in self.words.values())
        slots: list[Slot] = []
        for unit, clips in self.words.items():
            wanted = len(clips) * (most / len(clips)) ** mix.balance
            wanted = min(wanted, mix.most_per_word or wanted)
            weights = np.array([weight for *_, weight in clips])
            chosen = draw_evenly(rng, weights * (wanted / len(clips)))
            slots += [Slot(clips[i][0], clips[i][1], unit) for i in chosen]
        words = len(slots)
        if self.unknown:
            weights = np.array([weight for *_, weight in self.unknown])
            wanted = words * mix.unknown_percent / 100
            chosen = draw_evenly(rng, weights * (wanted / weights.sum()))
            slots += [Slot(self.unknown[i][0], self.unknown[i][1], UNKNOWN) for i in chosen]
        if self.pieces:
            chosen = rng.integers(len(self.pieces), size=int(words * mix.pieces_percent / 100))
            slots += [Slot(self.pieces[i][0], self.pieces[i][1], UNKNOWN) for i in chosen]
        slots += self.draw_spliced(rng, int(words * mix.spliced_percent / 100))
        slots += self.draw_backwards(rng, int(words * mix.backwards_percent / 100))
        slots += [NOTHING] * int(words * mix.pause_percent / 100)
        order = rng.permutation(len(slots))
        speech_slots = int(words * mix.speech_percent / 100) if self.speech else 0
        return [slots[i] for i in order], int(words * mix.noise_percent / 100), speech_slots

    def draw_spliced(self, rng: np.random.Generator, count: int) -> list[Slot]:
        """Pseudo-words: the model must learn that half of a word is no word."""
        if not count:
            return []
        alike = [frozenset(group.split()) for group in self.recipe.mix.alike]
        names = self.lexicon.names()
        pairs = [
            (first, last)
            for first, last in permutations(self.words, 2)
            if not any({names[first], names[last]} <= group for group in alike)
        ]
        if not pairs:
            raise ValueError("no two words to splice, or all are alike; set mix.spliced_percent to 0")
        slots: list[Slot] = []
        for _ in range(count):
            first, last = pairs[rng.integers(len(pairs))]
            corpus, clip, _ = self.words[first][rng.integers(len(self.words[first]))]
            ending = self.words[last][rng.integers(len(self.words[last]))]
            slots.append(Slot(corpus, clip, UNKNOWN, ending[:2]))
        return slots

    def draw_backwards(self, rng: np.random.Generator, count: int) -> list[Slot]:
        """Words backwards: other unknown words come from other collections, and a model must not tell them by that."""
        clips = [(corpus, clip) for entries in self.words.values() for corpus, clip, _ in entries]
        chosen = rng.integers(len(clips), size=count)
        return [Slot(clips[i][0], clips[i][1], UNKNOWN, backwards=True) for i in chosen]

    def path(self, seed: int, kept: Path) -> Path:
        """Where a draw is kept."""
        return kept / f"scenes-{self.fingerprint()}-{seed}.npz"

    def epoch(self, seed: int, kept: Path | None) -> list[Batches]:
        """`draw_epoch`, or what an earlier run of the same data left in the folder `kept`. Raises: OSError."""
        if kept is None:
            return self.draw_epoch(seed)
        path = self.path(seed, kept)
        names = list(Batches.__dataclass_fields__)
        if path.exists():
            with np.load(path) as file:
                shapes = range(len(self.recipe.scenes))
                return [Batches(*(file[f"{number}-{name}"] for name in names)) for number in shapes]
        drawn = self.draw_epoch(seed)
        kept.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        try:
            arrays = {f"{i}-{name}": getattr(each, name) for i, each in enumerate(drawn) for name in names}
            np.savez(temporary, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return drawn

    def fingerprint(self) -> str:
        """Of all that decides what scenes are drawn; what is varied anew in every epoch is not in them."""
        recipe = asdict(self.recipe)
        for name in VARIED_EVERY_EPOCH:
            del recipe["augment"][name]
        deciding = ["units", "seed", "aligner", "source", "scenes", "augment", "mix"]
        encoder = self.recipe.config.encoder
        text = repr([recipe[name] for name in deciding] + [recipe["config"]["features"], encoder.subsampling])
        if self.recipe.lexicon:
            text += repr(self.lexicon.labels) + repr(self.lexicon.sayings)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def draw_epoch(self, seed: int, share: float = 1.0) -> list[Batches]:
        """Scenes of each shape with every word clip about once, or so large a share of them, rendered and turned into
        features. Pure in `seed`."""
        rng = np.random.default_rng([self.recipe.seed, seed])
        slots, noise_slots, speech_slots = self.draw_slots(rng)
        slots = slots[: round(share * len(slots))]
        noise_slots, speech_slots = round(share * noise_slots), round(share * speech_slots)
        total = sum(shape.share for shape in self.recipe.scenes)
        batches, start = [], 0.0
        long: list[Slot] = []  # what does not fit into the slots of one shape goes into the next one's
        for shape in self.recipe.scenes:
            stop = start + len(slots) * shape.share / total
            mine = long + slots[round(start) : round(stop)]
            start = stop
            if self.recipe.lexicon:  # a unit that was cut off would be asked for all the same
                long = [slot for slot in mine if not fits(slot, shape)]
                mine = [slot for slot in mine if fits(slot, shape)]
            rows = [mine[i : i + shape.slots] for i in range(0, len(mine) - shape.slots + 1, shape.slots)]
            # Beside words, noise is never louder than they are; in scenes of its own it is as loud as it likes.
            rows += [[NOTHING] * shape.slots] * round(noise_slots * shape.share / total / shape.slots)
            speech_rows = round(speech_slots * shape.share / total / shape.slots)
            batches.append(self.render(rng, rows, speech_rows, shape))
        return batches

    def some(self, words: float) -> list[Batches]:
        """About so many words of the first epoch, in scenes of each shape."""
        return self.draw_epoch(0, min(words / sum(map(len, self.words.values())), 1.0))

    def render(self, rng: np.random.Generator, rows: list[list[Slot]], speech_rows: int, shape: Scenes) -> Batches:
        count = len(rows) + speech_rows
        slot_length = round(shape.slot_s * SAMPLE_RATE_HZ)
        length = slot_length * shape.slots
        frames = length // self.recipe.config.features.hop_samples
        subsampling = self.recipe.config.encoder.subsampling
        frames -= frames % subsampling
        sayings = self.lexicon.sayings
        most = max([sum(max(len(sayings[slot.target]), 1) for slot in row) for row in rows], default=shape.slots)
        result = Batches(
            np.zeros((count, frames, self.recipe.config.features.num_mels), dtype=np.float16),
            np.zeros((count, most), dtype=np.int64),
            np.zeros(count, dtype=np.int64),
            np.zeros((count, most, 2), dtype=np.int64),
            np.arange(count) >= len(rows),
        )
        chunk = 128
        for first in range(0, count, chunk):
            scenes = np.zeros((min(chunk, count - first), length), dtype=np.float32)
            for i in range(len(scenes)):
                if first + i < len(rows):
                    row = rows[first + i]
                    scenes[i], spans = self.render_words(rng, row, slot_length)
                    result.spans[first + i, : len(spans)] = np.reshape(spans, (-1, 2))
                    said = [unit for slot in row for unit in sayings[slot.target]]
                    result.targets[first + i, : len(said)] = said
                    result.lengths[first + i] = len(said)
                else:
                    scenes[i] = self.render_speech(rng, length)
            features = self.log_mel(torch.from_numpy(scenes)).numpy().astype(np.float16)
            # The last frames have no 25 ms of samples left; they stay silent, like the flush at the end of a file.
            result.features[first : first + len(scenes), : features.shape[1]] = features[:, :frames]
        return result

    def render_words(
        self, rng: np.random.Generator, row: list[Slot], slot_length: int
    ) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
        """The samples of a scene, and the feature frames between which each of its words is said."""
        settings = self.recipe.augment
        hop = self.recipe.config.features.hop_samples
        parts, powers, spans = [], [], []
        for slot in row:
            if slot.corpus is None or slot.clip is None:
                parts.append(np.zeros(slot_length, dtype=np.float32))
                continue
            samples, clip = slot.corpus.of(slot.clip), slot.clip
            if slot.backwards:
                samples = samples[::-1]
                bounds = clip.length - clip.speech_end, clip.length - clip.speech_start
                clip = replace(clip, speech_start=bounds[0], speech_end=bounds[1])
            if slot.ending is not None:
                other, ending = slot.ending
                samples, clip = augment.splice(samples, clip, other.of(ending), ending, rng.uniform(0.35, 0.65))
            draw = augment.draw_clip(rng, clip, slot_length, settings)
            start, end = np.clip(draw.heard_at(clip.speech_start, clip.speech_end), 0, slot_length)
            before = len(parts) * slot_length
            bounds = int(before + start) // hop, int(before + end) // hop + 1
            spans += spread(*bounds, len(self.lexicon.sayings[slot.target]))
            parts.append(augment.apply_clip(samples, slot_length, draw, self.rooms))
            powers.append((clip.speech_rms * 10 ** (draw.gain_db / 20)) ** 2)
        speech_rms = float(np.sqrt(np.mean(powers))) if powers else 0.0
        return self.finish(rng, np.concatenate(parts), speech_rms, always_noise=not powers), spans

    def render_speech(self, rng: np.random.Generator, length: int) -> NDArray[np.float32]:
        corpus, clip = self.speech[rng.integers(len(self.speech))]
        draw = augment.draw_clip(rng, clip, length, self.recipe.augment)
        latest = max(clip.length - int(length * draw.speed), 1)
        draw = augment.ClipDraw(int(rng.integers(latest)), draw.speed, draw.gain_db, draw.room)
        heard = augment.apply_clip(corpus.of(clip), length, draw, self.rooms)
        return self.finish(rng, heard, clip.speech_rms)

    def finish(
        self, rng: np.random.Generator, clean: NDArray[np.float32], speech_rms: float, always_noise: bool = False
    ) -> NDArray[np.float32]:
        draw = augment.draw_scene(rng, self.recipe.augment, always_noise)
        noise = None
        if draw.noise is not None:
            if draw.noise.calls:
                noise = calls(len(clean), draw.noise.seed)
            elif draw.noise.color is None and self.noise:
                corpus, clip = self.noise[rng.integers(len(self.noise))]
                varied = augment.vary_noise(corpus.of(clip), clip, len(clean), draw.noise)
                noise = recorded_noise(varied, len(clean), draw.noise.seed)
            else:
                noise = colored_noise(len(clean), draw.noise.color or 0.0, draw.noise.seed)
        return augment.apply_scene(clean, noise, speech_rms, draw, self.recipe.augment)

    def validation(self, length_s: float) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """Features (R, T, M) of the validation clips as they are, `length_s` around their speech, and targets (R,)."""
        config: FeatureConfig = self.recipe.config.features
        length = round(length_s * SAMPLE_RATE_HZ)
        subsampling = self.recipe.config.encoder.subsampling
        frames = length // config.hop_samples // subsampling * subsampling
        features = np.zeros((len(self.valid), frames, config.num_mels), dtype=np.float16)
        for first in range(0, len(self.valid), 256):
            chunk = np.zeros((len(self.valid[first : first + 256]), length), dtype=np.float32)
            for i, (corpus, clip, _) in enumerate(self.valid[first : first + 256]):
                middle = (clip.speech_start + clip.speech_end) // 2
                start = min(max(middle - length // 2, 0), max(clip.length - length, 0))
                taken = corpus.of(clip)[start : start + length]
                chunk[i, : len(taken)] = taken
            made = self.log_mel(torch.from_numpy(chunk)).numpy()[:, :frames]
            features[first : first + len(chunk), : made.shape[1]] = made
        return features, np.array([target for *_, target in self.valid], dtype=np.int64)


def fits(slot: Slot, shape: Scenes) -> bool:
    """Whether what is said in a slot is no longer than it, however fast it is said."""
    if slot.clip is None:
        return True
    return slot.clip.speech_end - slot.clip.speech_start <= 0.9 * shape.slot_s * SAMPLE_RATE_HZ


def spread(start: int, end: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` units is said between two feature frames: one after the other, all about as long; the
    bounds are generous, as nothing tells them. Of one unit: those of the whole."""
    if count == 1:
        return [(start, end)]
    each = (end - start) / count
    return [(round(start + max(i - 0.5, 0) * each), round(start + min(i + 1.5, count) * each)) for i in range(count)]


def draw_evenly(rng: np.random.Generator, expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices, each about `expected[i]` times: the whole part for sure, the rest by chance."""
    whole = np.floor(expected)
    counts = whole + (rng.random(len(expected)) < expected - whole)
    return np.repeat(np.arange(len(expected)), counts.astype(np.int64))
