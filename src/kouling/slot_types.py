"""What may be said in a slot: the values of a list, numbers, strings of digits; each as an automaton over words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any, Protocol

from kouling import phrases, spoken_numbers
from kouling.spoken_numbers import LANGUAGES, MOST_DIGITS, MOST_NUMBER, Said, Way

BUILT_IN = ("number", "digit", "digits")
MAX_WAYS = 200  # to say one value
MAX_VALUES = 5_000
SHORT = 4  # digits that a string has where it may have fewer or more, when one is drawn

Value = int | str


@dataclass(frozen=True)
class Automaton:
    """States and the words between them; 0 is the first state, and nothing leads back. Arcs that leave an earlier
    state, in the order of the states, come first."""

    arcs: tuple[tuple[int, Said, int], ...]  # from, what is said, to
    last: frozenset[int]


class SlotType(Protocol):
    @property
    def is_number(self) -> bool:
        """Whether the value is the sum of what its words add; else their pieces joined."""
        ...

    def automaton(self) -> Automaton: ...

    def sample(self, rng: random.Random) -> tuple[str, Value]:
        """A value drawn fairly, and a way to say it."""
        ...

    def texts(self) -> Iterator[str]:
        """Every way to say every value."""
        ...

    def words(self) -> list[str]: ...


@dataclass(frozen=True)
class Listed:
    """Values with the ways to say each."""

    ways: Mapping[str, tuple[str, ...]]
    is_number = False

    def automaton(self) -> Automaton:
        said = [Said(text, value) for value, texts in self.ways.items() for text in texts]
        return Automaton(tuple((0, each, 1) for each in said), frozenset([1]))

    def sample(self, rng: random.Random) -> tuple[str, Value]:
        value = rng.choice(list(self.ways))
        return rng.choice(self.ways[value]), value

    def texts(self) -> Iterator[str]:
        return (text for texts in self.ways.values() for text in texts)

    def words(self) -> list[str]:
        return [word for text in self.texts() for word in text.split()]


@dataclass(frozen=True)
class Numbers:
    """Whole numbers from `low` to `high`."""

    low: int
    high: int
    language: str
    is_number = True

    @cached_property
    def ways(self) -> list[Way]:
        values = range(self.low, self.high + 1)
        return [way for value in values for way in spoken_numbers.number(value, self.language)]

    @cached_property
    def _smallest(self) -> Automaton:
        return smallest(self.ways)

    def automaton(self) -> Automaton:
        return self._smallest

    def sample(self, rng: random.Random) -> tuple[str, Value]:
        # Half of them small: people say these more often, and all of their words are in them.
        high = self.high if rng.random() < 0.5 else min(self.high, max(self.low, 99))
        value = rng.randint(self.low, high)
        return " ".join(said.text for said in rng.choice(spoken_numbers.number(value, self.language))), value

    def texts(self) -> Iterator[str]:
        return (" ".join(said.text for said in way) for way in self.ways)

    def words(self) -> list[str]:
        return list(dict.fromkeys(said.text for way in self.ways for said in way))


@dataclass(frozen=True)
class Digits:
    """Strings of `least` to `most` digits."""

    least: int
    most: int
    language: str
    is_number = False

    def automaton(self) -> Automaton:
        """State 2 n: n digits are said; 2 n + 1: and "double" behind them."""
        double = spoken_numbers.double(self.language)
        arcs = []
        for count in range(self.most):
            for value in range(10):
                for word in spoken_numbers.digit(value, self.language):
                    arcs.append((2 * count, Said(word, str(value)), 2 * count + 2))
            if double and count + 2 <= self.most:
                arcs.append((2 * count, Said(double), 2 * count + 1))
                for value in range(10):
                    for word in spoken_numbers.digit(value, self.language):
                        arcs.append((2 * count + 1, Said(word, str(value) * 2), 2 * count + 4))
        return Automaton(tuple(arcs), frozenset(2 * count for count in range(self.least, self.most + 1)))

    def sample(self, rng: random.Random) -> tuple[str, Value]:
        count = rng.randint(self.least, max(self.least, min(self.most, SHORT) if rng.random() < 0.5 else self.most))
        value = "".join(str(rng.randrange(10)) for _ in range(count))
        double = spoken_numbers.double(self.language)
        words: list[str] = []
        at = 0
        while at < count:
            twice = bool(double) and value[at : at + 1] == value[at + 1 : at + 2] and rng.random() < 0.5
            word = rng.choice(spoken_numbers.digit(int(value[at]), self.language))
            words += [double, word] if twice else [word]
            at += 1 + twice
        return " ".join(words), value

    def texts(self) -> Iterator[str]:
        words = [word for value in range(10) for word in spoken_numbers.digit(value, self.language)]
        return (" ".join(each) for count in range(self.least, self.most + 1) for each in product(words, repeat=count))

    def words(self) -> list[str]:
        words = [word for value in range(10) for word in spoken_numbers.digit(value, self.language)]
        double = spoken_numbers.double(self.language)
        return [*words, double] if double and self.most > 1 else words


def smallest(ways: list[Way]) -> Automaton:
    """The smallest automaton of these ways: states from which the same can follow are one (Revuz 1992)."""
    tree: dict[Any, Any] = {}
    for way in ways:
        at = tree
        for said in way:
            at = at.setdefault(said, {})
        at[None] = {}
    states: dict[Any, int] = {}

    def number_of(at: dict[Any, Any]) -> int:
        key = frozenset((said, number_of(next_at)) if said is not None else (None, -1) for said, next_at in at.items())
        return states.setdefault(key, len(states))

    first = number_of(tree)
    # They were numbered from the last to the first.
    arcs = [
        (first - state, said, first - target)
        for key, state in states.items()
        for said, target in key
        if said is not None
    ]
    arcs.sort(key=lambda arc: (arc[0], arc[1], arc[2]))
    return Automaton(tuple(arcs), frozenset(first - state for key, state in states.items() if (None, -1) in key))


@cache
def built_in(written: str, language: str) -> SlotType | None:
    """The type of a slot that needs no values, as number, number(0..100), digits(4); None where it is none.

    Raises: ValueError for a range that it does not have.
    """
    match = re.fullmatch(r"(number|digits?)\s*(?:\(\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?\))?", written)
    if match is None:
        kind = written.partition("(")[0].strip()
        if kind in BUILT_IN:
            raise ValueError(f"{written!r} is no {kind}; allowed: {kind}, number(0..100), digits(4), digits(4..6)")
        return None
    spoken = {"cmn": "zh"}.get(language.partition("-")[0], language.partition("-")[0])
    if spoken not in LANGUAGES:
        raise ValueError(f"{written!r} is not known in the language {language!r}; allowed: {', '.join(LANGUAGES)}")
    language = spoken
    kind, low, high = match.groups()
    if kind == "number":
        if low and not high:
            raise ValueError(f"{written!r} has no end; allowed: number(LOW..HIGH)")
        lowest, highest = int(low or 0), int(high or MOST_NUMBER)
        if not lowest <= highest <= MOST_NUMBER:
            raise ValueError(f"{written!r} has no such range; allowed: 0 to {MOST_NUMBER}, the lower number first")
        return Numbers(lowest, highest, language)
    if kind == "digit":
        if low:
            raise ValueError(f"{written!r} has a length; allowed: digit, or digits({low})")
        return Digits(1, 1, language)
    least, most = int(low or 1), int(high or low or MOST_DIGITS)
    if not 1 <= least <= most <= MOST_DIGITS:
        raise ValueError(f"{written!r} has no such length; allowed: 1 to {MOST_DIGITS}, the lower number first")
    return Digits(least, most, language)


def listed(name: str, values: Any, parts: Mapping[str, str]) -> Listed:
    """The type of a slot from its entry in [slots]: a list of values, or a table of values with the ways to say each.

    Raises: ValueError, one line, for an entry without values or of another form, for a way that is no plain phrase, and
    for two values that are said alike.
    """
    if name in BUILT_IN or not name.strip() or set(name) & set("{}()[]<>:|&"):
        raise ValueError(f"slot {name!r} cannot be called so; allowed: none of {', '.join(BUILT_IN)}, and no brackets")
    if not isinstance(values, list | dict):
        raise ValueError(
            f"slot {name!r} is {values!r}; allowed: a list of values, or a table of values and ways to say"
        )
    if not values:
        raise ValueError(f"slot {name!r} has no values; needed: one or more, as {name} = ['latte', 'flat white']")
    if len(values) > MAX_VALUES:
        raise ValueError(f"slot {name!r} has {len(values):,} values; allowed: {MAX_VALUES:,} or fewer")
    entries = values.items() if isinstance(values, dict) else [(value, value) for value in values]
    ways: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for value, said in entries:
        written = said if isinstance(said, list) else [said]
        if not isinstance(value, str) or not written or not all(isinstance(each, str) for each in written):
            raise ValueError(
                f"slot {name!r}: value {value!r} is said {said!r}; allowed: a string, or a list of strings"
            )
        if value in ways:
            raise ValueError(f"slot {name!r} has the value {value!r} twice; allowed: once")
        texts: dict[str, None] = {}
        for each in written:
            try:
                node = phrases.read(each, parts)
                if not phrases.is_plain(node):
                    raise ValueError("it has slots, repetition or order in it; allowed: words, (a|b) and [a]")
                texts |= dict.fromkeys(" ".join(text.split()) for text in phrases.expand(node, MAX_WAYS))
            except ValueError as error:
                raise ValueError(f"slot {name!r}: value {value!r}: {error}") from None
        for text in texts:
            if owner.setdefault(text, value) != value:
                raise ValueError(
                    f"slot {name!r}: {text!r} says both {owner[text]!r} and {value!r}; allowed: one of them"
                )
        ways[value] = tuple(texts)
    return Listed(ways)
