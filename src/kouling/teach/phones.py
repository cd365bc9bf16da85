"""How words sound: the phones that espeak-ng says them with, on an inventory of about forty, and how near two are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np

from kouling.train.speak import pinyin

# What espeak-ng's English voices say beside the inventory below, as it.
_SAME_AS = {
    "ɐ": "ə",
    "ᵻ": "ɪ",
    "ɚ": "ə ɹ",
    "ɜː": "ɜ ɹ",
    "ɜ": "ɜ ɹ",
    "i": "iː",
    "ɾ": "t",
    "ʔ": "t",
    "n̩": "ə n",
    "əl": "ə l",
    "ɔ": "ɔː",
    "ɑ": "ɑː",
    "o": "oʊ",
    "oː": "ɔː",
    "iə": "iː ə",
    "aɪə": "aɪ ə",
    "aɪɚ": "aɪ ə ɹ",
    "ɛɹ": "ɛ ɹ",
    "ɪɹ": "ɪ ɹ",
    "ʊɹ": "ʊ ɹ",
    "ɑːɹ": "ɑː ɹ",
    "ɔːɹ": "ɔː ɹ",
    "oːɹ": "ɔː ɹ",
    "əʊ": "oʊ",
    "a": "æ",
    "ɒ": "ɔː",
    "eə": "ɛ ɹ",
    "ɪə": "ɪ ɹ",
    "ʊə": "ʊ ɹ",
    "r": "ɹ",
    "x": "k",
    "e": "ɛ",
    "ɬ": "l",
    "y": "iː",
    "u": "uː",
}
# Phones by how they are made: place or openness, manner, voice. What differs in fewer of these is nearer.
_FEATURES = {
    "p": "lip stop -",
    "b": "lip stop +",
    "t": "ridge stop -",
    "d": "ridge stop +",
    "k": "back stop -",
    "ɡ": "back stop +",
    "m": "lip nasal +",
    "n": "ridge nasal +",
    "ŋ": "back nasal +",
    "f": "lip fricative -",
    "v": "lip fricative +",
    "θ": "teeth fricative -",
    "ð": "teeth fricative +",
    "s": "ridge fricative -",
    "z": "ridge fricative +",
    "ʃ": "palate fricative -",
    "ʒ": "palate fricative +",
    "h": "back fricative -",
    "tʃ": "palate stop -",
    "dʒ": "palate stop +",
    "l": "ridge glide +",
    "ɹ": "curled glide +",
    "w": "lip glide +",
    "j": "palate glide +",
}
_VOWELS = {  # openness, backness, where in it the diphthongs end
    "iː": (0, 0, 0, 0),
    "ɪ": (1, 1, 1, 1),
    "ɛ": (2, 0, 2, 0),
    "æ": (3, 0, 3, 0),
    "ɑː": (3, 2, 3, 2),
    "ɔː": (2, 3, 2, 3),
    "ʊ": (1, 3, 1, 3),
    "uː": (0, 3, 0, 3),
    "ʌ": (2, 2, 2, 2),
    "ə": (2, 1.5, 2, 1.5),
    "ɜ": (2, 1.5, 2, 1.5),
    "eɪ": (2, 0, 1, 0),
    "aɪ": (3, 1, 1, 0),
    "ɔɪ": (2, 3, 1, 0),
    "aʊ": (3, 1, 1, 3),
    "oʊ": (2, 3, 1, 3),
}
PHONES = (*_FEATURES, *_VOWELS)


def pronounce(texts: Sequence[str], accent: str = "en-us") -> list[tuple[str, ...]]:
    """The phones of each text as espeak-ng says it; of the English inventory, or as they are in other languages.

    Raises: ValueError where espeak-ng is missing or does not know the accent.
    """
    if shutil.which("espeak-ng") is None:
        raise ValueError("espeak-ng tells how words sound and is not installed; install it: apt-get install espeak-ng")
    if accent.startswith("cmn"):
        texts = [pinyin(text) for text in texts]
    one_line = [" ".join(text.split()) for text in texts]
    if not all(one_line):
        raise ValueError("there is a text with nothing to say; needed: words")
    said = subprocess.run(
        ["espeak-ng", "-q", "--ipa", "--sep=_", "-v", accent],
        input="\n".join(f"{text}\n" for text in one_line),  # a line of its own: a clause of its own
        capture_output=True,
        text=True,
    )
    if said.returncode:
        raise ValueError(f"espeak-ng does not speak {accent!r}: {said.stderr.strip()}")
    lines = [line for line in said.stdout.splitlines() if line.strip()]
    if len(lines) != len(texts):  # a text that espeak-ng takes for several clauses, or says nothing for
        return [pronounce([text], accent)[0] for text in texts] if len(texts) > 1 else [_phones(" ".join(lines))]
    return [_phones(line) for line in lines]


def _phones(line: str) -> tuple[str, ...]:
    bare = re.sub(r"\([a-z-]+\)", "", line)  # where espeak-ng changes the language on the way: "(en)"
    found = (
        phone.strip("ˈˌ̃ː") if phone.strip("ˈˌ") not in _KNOWN else phone.strip("ˈˌ")
        for phone in re.split(r"[_ ]", bare)
    )
    return tuple(part for phone in found if phone for part in _SAME_AS.get(phone, phone).split())


_KNOWN = {*PHONES, *_SAME_AS}


def distance(one: str, other: str) -> float:
    """How unlike two phones sound, in [0, 1]; 0: the same."""
    if one == other:
        return 0.0
    if one in _VOWELS and other in _VOWELS:
        return min(0.15 + float(np.abs(np.subtract(_VOWELS[one], _VOWELS[other])).sum()) / 16, 1.0)
    if one in _FEATURES and other in _FEATURES:
        differing = [a != b for a, b in zip(_FEATURES[one].split(), _FEATURES[other].split(), strict=True)]
        return float(np.dot(differing, (0.35, 0.45, 0.2)))
    return 1.0


def apart(one: Sequence[str], other: Sequence[str]) -> float:
    """How far apart two pronunciations are: the cheapest way from one to the other, in phones changed or put in.

    A phone put in or left out counts 0.8 (Levenshtein distance, weighted).
    """
    row = [0.8 * column for column in range(len(other) + 1)]
    for line, phone in enumerate(one, start=1):
        last, row = row, [0.8 * line]
        for column, facing in enumerate(other, start=1):
            changed = last[column - 1] + distance(phone, facing)
            row.append(min(changed, last[column] + 0.8, row[-1] + 0.8))
    return row[-1]
