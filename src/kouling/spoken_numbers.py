"""How numbers and strings of digits are said, in English and Mandarin: word by word, with what each word adds.

A way to say a value is a row of `Said`. The value of a number is the sum of what its words add, that of a string of
digits is its pieces joined: so a search that has heard the words need not look the value up.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

LANGUAGES = ("en", "zh")
MOST_NUMBER = 999
MOST_DIGITS = 8

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
HANDS = "零一二三四五六七八九"


class Said(NamedTuple):
    """A word on the way to a value. text: what is said, one word or several."""

    text: str
    piece: str = ""  # of a string
    adds: int = 0  # to a number


Way = tuple[Said, ...]


@cache
def number(value: int, language: str) -> tuple[Way, ...]:
    """Every way to say a number from 0 to MOST_NUMBER."""
    return tuple(_english(value) if language == "en" else _mandarin(value))


@cache
def digit(value: int, language: str) -> tuple[str, ...]:
    """Every word for a digit in a string of them."""
    if language == "en":
        return ("zero", "oh") if value == 0 else (ONES[value],)
    return {1: ("一", "幺")}.get(value, (HANDS[value],))


@cache
def double(language: str) -> str:
    """The word that says the digit behind it twice, or nothing."""
    return "double" if language == "en" else ""


def _english(value: int) -> list[Way]:
    if value < 20:
        return [(Said(ONES[value], adds=value),)]
    if value < 100:
        tens = Said(TENS[value // 10 - 2], adds=value // 10 * 10)
        return [(tens, *rest) for rest in (_english(value % 10) if value % 10 else [()])]
    heads = [(Said(word, adds=value // 100 * 100), Said("hundred")) for word in _hundreds(value // 100)]
    rest = [()] if value % 100 == 0 else [way for tail in _english(value % 100) for way in (tail, (Said("and"), *tail))]
    return [head + tail for head, tail in product(heads, rest)]


def _hundreds(count: int) -> list[str]:
    return ["one", "a"] if count == 1 else [ONES[count]]


def _mandarin(value: int) -> list[Way]:
    if value < 10:
        return [(Said(word, adds=value),) for word in (("二", "两") if value == 2 else (HANDS[value],))]
    if value < 100:
        tens, ones = divmod(value, 10)
        head = () if tens == 1 else (Said(HANDS[tens], adds=tens * 10),)
        ten = Said("十", adds=10 if tens == 1 else 0)
        return [(*head, ten, *((Said(HANDS[ones], adds=ones),) if ones else ()))]
    hundreds, rest = divmod(value, 100)
    words = ("二", "两") if hundreds == 2 else (HANDS[hundreds],)
    heads = [(Said(word, adds=hundreds * 100), Said("百")) for word in words]
    tails: list[Way] = [()]
    if 0 < rest < 10:
        tails = [(Said("零"), Said(HANDS[rest], adds=rest))]
    elif rest:
        tens, ones = divmod(rest, 10)
        last = (Said(HANDS[ones], adds=ones),) if ones else ()
        tails = [(Said(HANDS[tens], adds=tens * 10), Said("十"), *last)]
        if not ones:  # 一百五 is 150
            tails.append((Said(HANDS[tens], adds=rest),))
    return [head + tail for head, tail in product(heads, tails)]
