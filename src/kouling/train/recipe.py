"""A recipe: everything that decides what a training run makes, as data. Read from TOML, strictly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kouling import config as configuration
from kouling.config import Config, overlay

WEIGHTS = ("float", "int4")
USES = ("words", "unknown", "speech", "noise")
KINDS = ("train", "valid", "both")


@dataclass(frozen=True)
class Source:
    """One body of recordings: `DIR/<label>/*.wav`, a tar of such a folder, or a word list to be spoken."""

    # Relative to a data directory: a folder, a .tar, a .txt word list for speech synthesis, or a .json of `Texts`.
    path: str = ""
    use: str = "words"  # words: labels that are units are words, the rest unknown; unknown, speech (running), noise
    part: str = "train"  # train, valid, or both: split by a hash of the file names
    valid_percent: int = 10  # of a source with part = "both"
    download: str = ""  # archive of download.py to fetch where `path` is not there; its official split is kept
    weight: float = 1.0  # how often a clip is drawn, next to a weight of 1
    rename: dict[str, str] = field(default_factory=dict)  # label of the source -> unit
    exclude: list[str] = field(default_factory=list)  # labels left out
    speakers_per_word: int = 8  # word lists: voices that speak each word
    cuts: str = ""  # file of what is said where in its recordings: only that is taken; see data.py

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("source without a path")
        if self.use not in USES:
            raise ValueError(f"source {self.path}: use is {self.use!r}; allowed: {', '.join(USES)}")
        if self.part not in KINDS:
            raise ValueError(f"source {self.path}: part is {self.part!r}; allowed: {', '.join(KINDS)}")
        if self.weight <= 0:
            raise ValueError(f"source {self.path}: weight is {self.weight}; allowed: above 0")


@dataclass(frozen=True)
class Scenes:
    """One kind of training example: `slots` clips of `slot_s` seconds in a row, heard as one stretch of audio."""

    slots: int = 1
    slot_s: float = 1.2
    share: float = 1.0  # of all clips drawn

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"scenes.slots is {self.slots}; allowed: 1 or more")
        if not (self.slot_s > 0 and self.share > 0):
            raise ValueError(f"scenes.slot_s and share are {self.slot_s} and {self.share}; allowed: above 0")


@dataclass(frozen=True)
class Augment:
    """Ranges that are drawn from. All are uniform unless said otherwise."""

    gain_db: float = 25.0  # +-
    overdrive_db: float = 14.0  # at most this far above full scale (clipped)
    clip_gain_db: float = 6.0  # +- of the clips of a scene among themselves
    speed_percent: float = 12.0  # +-; resampling, so pitch changes with it
    snr_low_db: float = 0.0
    snr_high_db: float = 40.0
    noise_percent: float = 70.0  # of scenes with added noise
    calls_percent: float = 25.0  # of recorded noise that is replaced by made-up sounds
    more_noise_percent: float = 0.0  # of scenes that get further noise, another one every epoch
    more_noise_low_db: float = 0.0  # the worst SNR of it
    room_percent: float = 30.0  # of clips heard in a simulated room
    time_masks_per_s: float = 0.2
    time_mask_s: float = 0.12
    mel_masks: int = 2
    mel_mask_bands: int = 10
    warp_percent: float = 0.0  # +- of every frequency: another vocal tract
    filter_db: float = 0.0  # +- at each of a few frequencies, a smooth line between them: another microphone


@dataclass(frozen=True)
class Mix:
    """What an epoch consists of besides its words, as a percentage of the number of word clips."""

    unknown_percent: float = 15.0  # recorded or spoken words that are no units
    pieces_percent: float = 15.0  # word-long pieces cut out of running speech
    spliced_percent: float = 0.0  # the beginning of one word with the end of another: no word, in the words' own voices
    backwards_percent: float = 0.0  # words played backwards: no words, in the words' own voices and rooms
    noise_percent: float = 12.0  # noise alone, at any volume, in scenes of its own: no unit at all
    pause_percent: float = 6.0  # slots among words in which nothing is said
    speech_percent: float = 8.0  # slots of running speech: anything but a unit
    most_per_word: int = 0  # clips of one word in an epoch, at most; 0: all
    balance: float = 0.5  # 0: words as often as they are recorded, 1: all words equally often
    alike: list[str] = field(
        default_factory=list
    )  # groups of words, "go no", not to be spliced: it would be one of them


@dataclass(frozen=True)
class Training:
    epochs: int = 50  # 0: what `initial` says is the model, to be calibrated and measured
    batch_s: float = 230.0  # seconds of audio in a batch
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.03
    dropout: float = 0.0
    ema_epochs: float = 2.0  # time constant of the averaged weights, which are what is evaluated and saved
    reuse: int = 4  # epochs that a set of augmented features serves before it is drawn anew
    speech_weight: float = 0.2  # of the loss of running speech
    presence_weight: float = 1.0  # therein, of hearing an unknown word every 0.6 s
    carry_percent: float = 75.0  # of batches that go on from the state of the one before, as in a stream
    validation_s: float = 1.6  # of validation clips, around what is said in them
    padding_frames: int = 50  # at most this much silence around a scene
    delay_frames: int = 30  # a word is said at most this long after its end
    longest_word_s: float = 0.9  # what is longer is a word whose background was taken for speech
    threads: int = 0  # 0: all cores
    # int4: learns on the grids of the initial checkpoint, or the best for it, what the engine will run; see int4.py
    weights: str = "float"
    stem_norm: bool = False  # batch normalisation of the stem's convolutions, no part of the saved model; stem_norm.py
    compile: bool = False  # torch.compile: a quarter faster, after a minute or two; needs a C++ compiler
    # [lowest, highest] in feature frames, drawn for every batch, so that one model serves all: the left context, and
    # the step with its lookahead. Empty: the model's own, always.
    varying_cached: list[int] = field(default_factory=list)
    varying_chunk: list[int] = field(default_factory=list)
    frozen_blocks: int = -1  # so many first blocks of `initial`, and the stem, stay as they are; -1: all is trained
    keep_zeros: bool = False  # blocks of zeros in the weights of `initial` stay zero; see zeros.py
    recompute: bool = False  # of each block only its input is kept for the gradient: less memory, half more time

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"training.weights is {self.weights!r}; allowed: {', '.join(WEIGHTS)}")
        if self.stem_norm and (self.weights == "int4" or self.frozen_blocks >= 0):
            raise ValueError(
                "training.stem_norm is true where the stem is frozen or on int4 grids; allowed: false, or train it all"
            )
        for name in ("varying_cached", "varying_chunk"):
            bounds = getattr(self, name)
            if bounds and not (len(bounds) == 2 and bounds[0] <= bounds[1]):
                raise ValueError(f"training.{name} is {bounds}; allowed: [lowest, highest], or []")
        for name, least in (("epochs", 0), ("reuse", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"training.{name} is {getattr(self, name)}; allowed: {least} or more")
        for name in ("batch_s", "learning_rate", "ema_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} is {getattr(self, name)}; allowed: above 0")


@dataclass(frozen=True)
class Distill:
    """A teacher to learn from beside the labels; see distill.py."""

    teacher: str = ""  # checkpoint; empty: no teacher
    weight: float = 0.7  # of the teacher's posteriors; the rest is that of the labels
    temperature: float = 1.0
    hidden_weight: float = 0.0  # of the distance of the last blocks' outputs

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"distill.weight is {self.weight}; allowed: 0 to 1")
        if not self.temperature > 0:
            raise ValueError(f"distill.temperature is {self.temperature}; allowed: above 0")
        if not self.hidden_weight >= 0:
            raise ValueError(f"distill.hidden_weight is {self.hidden_weight}; allowed: 0 or more")


@dataclass(frozen=True)
class Recipe:
    name: str = ""
    language: str = "en"
    description: str = ""
    units: list[str] = field(default_factory=list)  # words; blank and unknown are added
    seed: int = 0
    preset: str = "base"
    initial: list[str] = field(default_factory=list)  # checkpoints whose encoders' mean is the start; units may differ
    lexicon: str = ""  # file that spells labels in several units; see lexicon.py
    aligner: str = ""  # checkpoint that tells which recordings hold their word, and where it ends; see align.py
    config: Config = field(default_factory=Config)
    source: tuple[Source, ...] = ()
    scenes: tuple[Scenes, ...] = (Scenes(),)
    augment: Augment = field(default_factory=Augment)
    mix: Mix = field(default_factory=Mix)
    training: Training = field(default_factory=Training)
    distill: Distill = field(default_factory=Distill)
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("the recipe has no name")
        if not self.units:
            raise ValueError("the recipe has no units: give the words to be recognised")
        if not self.training.epochs and not self.initial:
            raise ValueError("training.epochs is 0 and there is no initial checkpoint; allowed: 1 or more, or give one")
        if self.training.weights == "int4" and not self.initial:
            raise ValueError(
                "training.weights is 'int4' and there is no initial checkpoint; allowed: float, or give one"
            )
        if self.training.keep_zeros and not self.initial:
            raise ValueError(
                "training.keep_zeros is true and there is no initial checkpoint; allowed: false, or give one"
            )
        if not -1 <= self.training.frozen_blocks < self.config.encoder.layers:
            raise ValueError(
                f"training.frozen_blocks is {self.training.frozen_blocks}; allowed: -1 to "
                f"{self.config.encoder.layers - 1}"
            )
        if self.training.frozen_blocks >= 0 and not self.initial:
            raise ValueError(
                "training.frozen_blocks is set and there is no initial checkpoint; allowed: -1, or give one"
            )
        if len(set(self.units)) != len(self.units):
            raise ValueError("a unit stands twice in the recipe")
        if not any(s.use == "words" and s.part in ("train", "both") for s in self.source):
            raise ValueError("the recipe has no source of words to train on")
        encoder = self.config.encoder
        for name, least, most in (
            ("varying_cached", encoder.subsampling, encoder.max_cached_frames),
            ("varying_chunk", encoder.streaming_step_size, encoder.streaming_chunk_size),
        ):
            bounds = getattr(self.training, name)
            if bounds and not least <= bounds[0] <= bounds[1] <= most:
                raise ValueError(f"training.{name} is {bounds}; this model allows: from {least} to {most}")


def load(path: Path) -> Recipe:
    """Raises: ValueError naming the file and what is wrong; FileNotFoundError."""
    try:
        return from_dict(_read(path, depth=0))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def _read(path: Path, depth: int) -> dict[str, Any]:
    """The recipe's table, on top of the one that it extends. Files beside a recipe are found from there."""
    table = configuration.read_toml(path)
    for entry in table.get("source", []) if isinstance(table.get("source"), list) else []:
        for key in ("path", "cuts"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str) and (path.parent / entry[key]).is_file():
                entry[key] = str((path.parent / entry[key]).resolve())
    if isinstance(table.get("lexicon"), str) and (path.parent / table["lexicon"]).is_file():
        table["lexicon"] = str((path.parent / table["lexicon"]).resolve())
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str) or depth > 8:
        raise ValueError(f"extends is {parent!r}; allowed: the path of another recipe, not in a circle")
    return _merged(_read(path.parent / parent, depth + 1), table)


def _merged(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Tables key by key, at any depth; all else that the second gives replaces what the first does."""
    result = {**base, **table}
    for key in base.keys() & table.keys():
        if isinstance(base[key], dict) and isinstance(table[key], dict):
            result[key] = _merged(base[key], table[key])
    return result


def from_dict(table: dict[str, Any]) -> Recipe:
    """Raises: ValueError for an unknown key, a wrong type, or an impossible value."""
    table = dict(table)
    model_table = table.pop("config", {})
    if not isinstance(model_table, dict):
        raise ValueError(f"config is {model_table!r}; allowed: a table")
    model = configuration.from_dict({"preset": table.get("preset", "base"), **model_table})
    sources = tuple(overlay(Source(path="-"), {"path": "", **entry}, "source.") for entry in _tables(table, "source"))
    scenes = tuple(overlay(Scenes(), entry, "scenes.") for entry in _tables(table, "scenes")) or (Scenes(),)
    base = Recipe(name="-", units=["-"], config=model, source=(Source(path="-"),))
    recipe = overlay(base, {"name": "", "units": [], **table})
    return replace(recipe, source=sources, scenes=scenes)


def _tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Take the array of tables `key` out of `table`; none if it is absent."""
    entries = table.pop(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{key} is {entries!r}; allowed: tables, [[{key}]]")
    return entries
