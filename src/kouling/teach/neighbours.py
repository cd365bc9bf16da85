"""What must not be taken for a phrase: words that sound like it, its parts, itself with a word or a sound changed."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from kouling.teach.phones import apart, distance, pronounce

FOLDER = Path(__file__).parent
ACCENTS = {"en": "en-us", "zh": "cmn-latn-pinyin"}
SAME = 0.1  # of phones changed: nobody can hear a difference
ACCENT = 0.3  # no more than what accents differ in: not to be told apart in training
NEAR = 1.5  # phones changed: two phrases no further apart than that are worth a warning
# Of several words with more phones, this much of each further one must differ in what must not be taken for them. "Open
# though window" is nobody's other command: to learn it as wrong is to doubt who says "open the window" in another
# accent. What sounds like a single word, people do say.
FEW, OF_EACH = 6, 0.35
# espeak-ng's own names of consonants, to be put in the place of one another.
_CONSONANTS = {"p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "ɡ", "f": "f", "v": "v", "s": "s", "z": "z"}
_CONSONANTS |= {"S": "ʃ", "m": "m", "n": "n", "l": "l", "r": "ɹ", "w": "w", "h": "h", "tS": "tʃ", "dZ": "dʒ"}
_VOWELS = {"i:": "iː", "I": "ɪ", "E": "ɛ", "a": "æ", "A:": "ɑː", "O:": "ɔː", "u:": "uː", "eI": "eɪ", "aI": "aɪ"}
_VOWELS |= {"oU": "oʊ", "aU": "aʊ", "3:": "ɜ", "V": "ʌ", "U": "ʊ", "@": "ə", "0": "ɑː", "O": "ɔː"}


@dataclass(frozen=True)
class Pair:
    """Two phrases that sound alike, by how many phones they differ."""

    one: str
    other: str
    apart: float


@cache
def common_words(language: str) -> dict[str, tuple[str, ...]]:
    """Common words of a language and their phones; none of a language without a list. Raises: ValueError as
    `pronounce`."""
    path = FOLDER / f"words-{language}.txt"
    if not path.exists():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    words = [line.partition("\t") for line in lines]
    missing = [word for word, _, phones in words if not phones]
    said = dict(zip(missing, pronounce(missing, ACCENTS[language]), strict=True)) if missing else {}
    return {word: tuple(phones.split()) or said[word] for word, _, phones in words}


def near_words(word: str, language: str, count: int, beyond: float = ACCENT) -> list[str]:
    """The common words that sound most like `word`, of those that differ in more than so many phones."""
    own = pronounce([word], accent_of(language))[0]
    found = [
        (far, other)
        for other, phones in common_words(language).items()
        if other != word and abs(len(phones) - len(own)) <= 3 and (far := apart(own, phones)) > beyond
    ]
    return [other for _, other in sorted(found)[:count]]


def must_not_fire(phrase: str, taught: Sequence[str], language: str, rng: random.Random, count: int) -> list[str]:
    """About `count` texts that sound like `phrase` and are none of those taught; some as phonemes, `[[...]]`."""
    words = phrase.split()
    own = {" ".join(text.split()) for text in (phrase, *taught)}
    phones = dict(zip(own, phones_of(list(own), language), strict=True))
    texts: list[str] = []
    if len(words) == 1:
        texts += near_words(phrase, language, count // 2)
    else:
        texts += words
        texts += [" ".join(words[:end]) for end in range(1, len(words))]
        texts += [" ".join(words[start:]) for start in range(1, len(words))]
        beyond = least(phrase, phones[" ".join(words)])
        for place, word in enumerate(words):
            for other in near_words(word, language, max(count // (2 * len(words)), 2), beyond):
                texts.append(" ".join([*words[:place], other, *words[place + 1 :]]))
    if language == "en":
        sounds = sounds_of(phrase)
        texts += mutated(sounds, rng, count // 5, max(2, len(sounds) // 6) if len(words) > 1 else 2)
        texts += cut_short(sounds)
    kept = list(dict.fromkeys(text for text in texts if text not in own))
    plain = [text for text in kept if "[[" not in text]
    heard = dict(zip(plain, phones_of(plain, language), strict=True)) if plain else {}
    said = {each: least(text, each) for text, each in phones.items()}
    return [
        text for text in kept if text not in heard or all(apart(heard[text], each) > far for each, far in said.items())
    ]


def least(phrase: str, phones: Sequence[str]) -> float:
    """How many phones of a phrase must differ, so that another text is none of what people mean by it."""
    return max(ACCENT, OF_EACH * (len(phones) - FEW)) if " " in phrase else ACCENT


def sounds_of(phrase: str) -> list[str]:
    """An English phrase as espeak-ng's own phonemes, with "_" or a space between each two."""
    command = ["espeak-ng", "-q", "-x", "--sep=_", "-v", "en-us", "--", phrase]
    return re.split(r"([_ ])", subprocess.run(command, capture_output=True, text=True).stdout.strip())


def to_be_said(sounds: Sequence[str]) -> str:
    return "[[" + "".join(sound for sound in sounds if sound != "_") + "]]"


def cut_short(sounds: Sequence[str]) -> list[str]:
    """The first and the last two thirds and three quarters of the phonemes: who begins a word has not said it."""
    count = (len(sounds) + 1) // 2
    if count < 4:
        return []
    cuts = sorted({count * 2 // 3, count * 3 // 4} - {count})
    ends = [sounds[: 2 * cut - 1] for cut in cuts] + [sounds[2 * (count - cut) :] for cut in cuts]
    return [to_be_said(part) for part in ends]


def mutated(sounds: Sequence[str], rng: random.Random, count: int, changes: int = 2) -> list[str]:
    """The phonemes with so many changed for unlike ones: with one, it would be what many people say."""
    parts = list(sounds)
    places = [i for i, part in enumerate(parts) if part.strip("',") in _CONSONANTS or part.strip("',") in _VOWELS]
    if len(places) < changes:
        return []
    made = []
    for _ in range(count):
        changed = list(parts)
        for place in rng.sample(places, changes):
            bare = parts[place].strip("',")
            kind = _CONSONANTS if bare in _CONSONANTS else _VOWELS
            unlike = [name for name, phone in kind.items() if distance(phone, kind[bare]) >= 0.45]
            changed[place] = parts[place].replace(bare, rng.choice(unlike))
        made.append(to_be_said(changed))
    return made


def accented(sounds: Sequence[str], rng: random.Random, count: int) -> list[str]:
    """The phonemes with a vowel or two changed for a near one, as other people say it: there are more accents than
    synthetic voices."""
    places = [i for i, sound in enumerate(sounds) if sound.strip("',") in _VOWELS]
    made = []
    for _ in range(count if places else 0):
        changed = list(sounds)
        for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
            bare = changed[place].strip("',")
            near = [n for n, phone in _VOWELS.items() if 0 < distance(phone, _VOWELS[bare]) <= 0.35]
            changed[place] = changed[place].replace(bare, rng.choice(near or [bare]))
        made.append(to_be_said(changed))
    return made


def accent_of(language: str) -> str:
    """The voice of espeak-ng that says how a language's words sound."""
    return ACCENTS.get(language, language)


def phones_of(texts: Sequence[str], language: str) -> list[tuple[str, ...]]:
    """How texts sound in a language, by espeak-ng. Raises: ValueError as `pronounce`."""
    return pronounce(texts, accent_of(language))


def confusable(phrases: Sequence[str], language: str) -> list[Pair]:
    """The pairs of phrases that differ in few phones, the nearest first."""
    said = dict(zip(phrases, phones_of(phrases, language), strict=True))
    pairs = [Pair(a, b, round(apart(said[a], said[b]), 2)) for a, b in combinations(phrases, 2)]
    return sorted((pair for pair in pairs if pair.apart <= NEAR), key=lambda pair: pair.apart)
