"""From a command set to a recipe: what is spoken, what must not fire, and how it is learned."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kouling import checkpoint, recognizer
from kouling.commands import UNKNOWN
from kouling.grammar import GrammarSet
from kouling.phrases import parts_words
from kouling.teach import background, neighbours
from kouling.train.recipe import Augment, Mix, Recipe, Scenes, Source, Training
from kouling.train.speak import BACKENDS, Texts, installed

# Few short phrases are learned whole, each as one unit. Of more, or longer ones, the words are learned, in the phrases
# and alone, and a graph makes phrases of them. Fifty phrases, most of three words, were heard in 76 % of voices that
# training never heard when they were learned whole, "start the washing machine" in none; by words in 97 %.
MOST_WHOLE = 10  # phrases
LONGEST_WHOLE = 12  # phones
MOST_SINGLE = 60  # words: where each is a phrase, nothing is gained by taking phrases apart
MOST_LISTED = 500  # phrases of a set that are looked at one by one
SENTENCES = 2500  # drawn from a grammar
CLIPS = 5000  # of phrases, shared out among them
# Of a small model they take seconds. Of three wake words from text, at the thresholds chosen for half a false alarm an
# hour, people's recordings were heard in 82 % after 9 epochs and in 92 % after 18.
EPOCHS = {"small": 18, "base": 9}
EPOCHS_BY_WORDS = 15  # of a set of phrases
LONG = 4  # phones of a word that may be mistaken for another one
MOST_ALONE, MOST_EACH = 25, 50  # voices that say one sentence of a grammar, and one of phrases learned by words
FEWEST, MOST = 60, 500  # voices that say one phrase
VALID_PERCENT = 12
FOLDER = Path(__file__).parent
# The checkpoint that learns on, by language and size; other languages start from the sounds of English.
STARTS = {
    "en": {"base": FOLDER / "en-speech.safetensors", "small": FOLDER / "en-speech-small.safetensors"},
    "zh": {"base": recognizer.MODELS / "zh-commands-large" / "model.safetensors"},
}


@dataclass(frozen=True)
class Lesson:
    """What is taught: the units, the sentences spoken for each, and what else is spoken, which is none of them."""

    units: tuple[str, ...]
    spoken: Texts
    unknown: Texts
    spellings: dict[str, str]  # label of a spoken text or a recording -> its units, as in a lexicon
    command_of: dict[str, str]  # label -> the command that it is a phrase of; a lone word is of none
    phrases: tuple[str, ...]  # all of a set that has no slots, repetition or order; of a grammar none are listed
    by_phrase: bool  # the units are the phrases, not their words

    def phrases_of(self) -> dict[str, list[str]]:
        """The phrases of each command of a set that lists them all."""
        found: dict[str, list[str]] = {}
        for text in self.phrases:
            found.setdefault(self.command_of[text], []).append(text)
        return found


def plan(commands: GrammarSet, language: str, engines: Sequence[str] = tuple(BACKENDS), seed: int = 0) -> Lesson:
    """What to speak so that the commands are learned.

    Raises: ValueError where espeak-ng is missing, and as `speak.installed`."""
    spoken_by = installed(language, engines)
    rng = random.Random(seed)
    phrases = all_phrases(commands)
    by_phrase = phrases is not None and to_be_learned_whole(list(phrases), language)
    command_of = sampled(commands, rng) if phrases is None else phrases
    sentences = list(command_of)
    units = sentences if by_phrase else list(dict.fromkeys(characters(commands.words())))
    # Accents differ in what tells these apart.
    alike = (
        {text for pair in neighbours.confusable(sentences, language) for text in (pair.one, pair.other)}
        if by_phrase
        else set()
    )
    spoken: list[tuple[str, str, int]] = []
    alone = Counter(command_of.values())
    for sentence in sentences:
        if by_phrase:
            voices = min(max(CLIPS // len(sentences), FEWEST), MOST)
        else:  # a command of few sentences is heard as often as one of many
            most = MOST_ALONE if phrases is None else MOST_EACH
            voices = min(max(SENTENCES // len(alone) // alone[command_of[sentence]], 1), most)
        ways = ways_to_say(sentence, commands)
        spoken += [(sentence, way, -(-voices // len(ways))) for way in ways]
        if language == "en" and by_phrase and sentence not in alike and len(ways) == 1 and "[[" not in ways[0]:
            sounds = neighbours.sounds_of(ways[0])
            spoken += [(sentence, way, 6) for way in neighbours.accented(sounds, rng, voices // 24)]
    if not by_phrase:  # each word alone too, however rarely the grammar draws it
        each = min(max(CLIPS // len(units), 16), 60)
        spoken += [(word, way, each) for word in units for way in ways_to_say(word, commands)]
    many = max(400 // len(units), 3) if by_phrase else 4
    wrong: list[tuple[str, str, int]] = []
    for unit, phones in zip(units, neighbours.phones_of(units, language), strict=True):
        if by_phrase:
            near = neighbours.must_not_fire(unit, units, language, rng, 30)
            wrong += [("unknown", text, min(many, 4) if "[[" in text else min(many, 8)) for text in near]
        elif len(phones) >= LONG and (phrases is None or unit in phrases):  # what stands with others is told by them
            wrong += [("unknown", text, 3) for text in neighbours.near_words(unit, language, 4) if text not in units]
    others = [word for word in neighbours.common_words(language) if word not in set(units)]
    rng.shuffle(others)
    wrong += [("unknown", word, 1) for word in others[:1200]]
    wrong += [("unknown", " ".join(rng.sample(others, 2)), 1) for _ in range(400)] if others else []
    spellings = {unit: unit.replace(" ", "_") for unit in units}
    if not by_phrase:
        spellings |= {text: " ".join(characters([text])) for text in sentences}
    # A recording may be called by its command, where that says what is said.
    spellings = {name: spellings[text] for text, name in command_of.items() if alone[name] == 1} | spellings
    return Lesson(
        tuple(units),
        Texts(tuple(spoken), spoken_by, seed),
        Texts(tuple(wrong), spoken_by, seed + 1),
        spellings,
        {name: name for name in alone if name not in units} | command_of,
        () if phrases is None else tuple(phrases),
        by_phrase,
    )


def all_phrases(commands: GrammarSet) -> dict[str, str] | None:
    """Every phrase and its command; None of a set with slots, repetition or order, and of one that can say too many."""
    found: dict[str, str] = {}
    for command in commands.commands:
        texts = command.texts(MOST_LISTED) if command.plain else None
        if texts is None:
            return None
        found |= dict.fromkeys(texts, command.name)
    return found if len(found) <= MOST_LISTED else None


def to_be_learned_whole(phrases: Sequence[str], language: str) -> bool:
    """Whether phrases are units. Of scripts without spaces only so many are not: characters were never tried there."""
    if not any(" " in phrase for phrase in phrases):
        return len(phrases) <= MOST_SINGLE
    return len(phrases) <= MOST_WHOLE and max(map(len, neighbours.phones_of(phrases, language))) <= LONGEST_WHOLE


def characters(texts: Sequence[str]) -> list[str]:
    """The words of texts; of scripts without spaces, their characters, which any text can be spelled in."""
    found: list[str] = []
    for text in texts:
        for word in text.split():
            spaceless = all(map(parts_words, word))
            found += list(word) if spaceless else [word]
    return found


def sampled(commands: GrammarSet, rng: random.Random) -> dict[str, str]:
    """Sentences drawn from each command in turn, and the command; some have few."""
    found: dict[str, str] = {}
    for _ in range(2 * SENTENCES):
        for command in commands.commands:
            if len(found) < SENTENCES:
                found.setdefault(command.sample(rng)[0], command.name)
    return found


def ways_to_say(text: str, commands: GrammarSet) -> list[str]:
    """How a synthesiser is asked to say it: as it is written, or as `say` has it instead."""
    for command in commands.commands:
        if command.say and text in (command.texts(1) or ()):
            return list(command.say)
    ways = [""]
    for word in text.split():
        ways = [f"{way} {said}".strip() for way in ways for said in commands.say.get(word, (word,))][:8]
    return ways


def recipe_of(
    lesson: Lesson, name: str, language: str, start: Path, folder: Path, recordings: Path | None, seed: int
) -> Recipe:
    """The recipe that learns a lesson, whose texts and lexicon are written into `folder`.

    start: the checkpoint of `start_of`. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    spoken, unknown = lesson.spoken.save(folder, "spoken"), lesson.unknown.save(folder, "unknown")
    lines = [f"{label}\t{spelling}" for label, spelling in lesson.spellings.items()]
    base = Source(path="-")
    pack = str(background.PACK)
    sources = [
        replace(base, path=str(spoken.resolve()), part="both", valid_percent=VALID_PERCENT),
        replace(base, path=str(unknown.resolve()), use="unknown", part="both", valid_percent=VALID_PERCENT),
        replace(base, path=pack, exclude=["speech", "noise"], part="both", valid_percent=VALID_PERCENT),
        replace(base, path=pack, use="speech", exclude=background.all_but("speech"), part="both", valid_percent=35),
        replace(base, path=pack, use="noise", exclude=background.all_but("noise"), part="both", valid_percent=20),
    ]
    if language == "en" and not lesson.by_phrase:
        others = speech_in_words(lesson, folder / "cuts.tsv")
        lines += [f"{word}\t{UNKNOWN}" for word in sorted(others)]
        sources.append(replace(sources[-2], use="words", cuts=str((folder / "cuts.tsv").resolve()), weight=2.0))
    if recordings is not None:
        sources.append(replace(base, path=str(recordings.resolve()), weight=8.0, part="both", valid_percent=20))
    checkpoint.write_whole(folder / "lexicon.txt", ("\n".join(lines) + "\n").encode())
    config = checkpoint.load_info(start).config
    return Recipe(
        name=name,
        language=language,
        description="taught from text",
        units=list(lesson.units),
        seed=seed,
        initial=[str(start)],
        lexicon=str((folder / "lexicon.txt").resolve()),
        config=config,
        source=tuple(sources),
        scenes=scenes_for(lesson),
        augment=AUGMENT,
        mix=mix_for(lesson, language),
        training=TRAINING if lesson.by_phrase else for_sentences(TRAINING),
    )


def speech_in_words(lesson: Lesson, path: Path) -> set[str]:
    """Write down what the background's speech says where, for its words are a grammar's too, in real voices; the words
    that are not."""
    rows = list(background.cuts())
    lines = [f"{name}\t{start:.2f}\t{end:.2f}\t{' '.join(words)}" for name, start, end, words in rows]
    checkpoint.write_whole(path, ("\n".join(lines) + "\n").encode())
    return {word for *_, words in rows for word in words} - set(lesson.spellings)


def size_of(lesson: Lesson, language: str) -> str:
    """What a set needs: a few phrases are heard as well by a small model."""
    few = 0 < len(lesson.phrases) <= MOST_WHOLE
    return "small" if few and "small" in STARTS.get(language, STARTS["en"]) else "base"


def size_like(model: Path, language: str) -> str:
    """The size that a taught checkpoint has. Raises: ValueError where it has that of none."""
    config = checkpoint.load_info(model).config
    for size, start in STARTS.get(language, STARTS["en"]).items():
        if checkpoint.load_info(start).config == config:
            return size
    raise ValueError(f"{model}: was not taught by this version of kouling; teach its set anew")


def start_of(language: str, size: str) -> Path:
    """The checkpoint whose encoder learns on. Raises: ValueError for a size that there is none of."""
    starts = STARTS.get(language, STARTS["en"])
    if size not in starts:
        raise ValueError(f"--size {size}; allowed for {language}: {', '.join(starts)}")
    return starts[size]


def epochs_of(lesson: Lesson, size: str) -> int:
    return EPOCHS_BY_WORDS if lesson.phrases and not lesson.by_phrase else EPOCHS[size]


def mix_for(lesson: Lesson, language: str) -> Mix:
    """Of a grammar whose words are known in running speech, it is no speech without commands."""
    if lesson.by_phrase:
        return MIX
    known = language == "en"
    return replace(
        MIX,
        unknown_percent=25.0,
        pieces_percent=0.0 if known else 15.0,
        speech_percent=0.0 if known else MIX.speech_percent,
        balance=0.0,  # each sentence has one voice
    )


def for_sentences(training: Training) -> Training:
    """Of grammars. Their words come from everywhere, so that less of the encoder is frozen: of spoken orders, in random
    sentences by synthesisers, 91 % were right with one block frozen and 72 % with two."""
    frozen = max(training.frozen_blocks - 1, 0)
    return replace(training, validation_s=5.0, longest_word_s=6.0, frozen_blocks=frozen)


def scenes_for(lesson: Lesson) -> tuple[Scenes, ...]:
    """What does not fit into the slots of one shape goes into the next one's."""
    if lesson.by_phrase:
        return Scenes(3, 1.5, 0.7), Scenes(1, 3.0, 0.3)
    return Scenes(4, 1.3, 0.3), Scenes(1, 3.2, 0.45), Scenes(1, 6.0, 0.25)


TRAINING = Training(
    epochs=EPOCHS["base"],
    learning_rate=6e-4,
    warmup_epochs=0.5,
    weight_decay=0.1,
    dropout=0.1,
    ema_epochs=1.5,
    batch_s=150.0,
    carry_percent=60.0,
    longest_word_s=2.5,
    validation_s=2.4,
    frozen_blocks=2,
    speech_weight=0.3,
    reuse=3,
    compile=False,
)
AUGMENT = Augment(
    speed_percent=12.0,
    room_percent=35.0,
    snr_low_db=2.0,
    noise_percent=50.0,
    calls_percent=35.0,
    more_noise_percent=40.0,
    warp_percent=14.0,
    filter_db=8.0,
    time_masks_per_s=0.7,
    mel_mask_bands=10,
)
MIX = Mix(
    unknown_percent=90.0,
    pieces_percent=60.0,
    spliced_percent=0.0,
    backwards_percent=10.0,
    noise_percent=25.0,
    pause_percent=10.0,
    speech_percent=60.0,
    balance=0.5,
)
