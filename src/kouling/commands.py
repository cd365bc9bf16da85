"""What can be said: a command set maps phrases to the word units of a model; `Command` is the event of hearing one.

A phrase is words with spaces between them, `(a|b c)` for alternatives and `[a]` for what may be left out; both nest:

    alternatives = sequence { "|" sequence }
    sequence     = { text | "(" alternatives ")" | "[" alternatives "]" }

Text joins as written, so `light[s]` is "light" or "lights". Case and full-width forms make no difference.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from kouling.config import read_toml

BLANK = "<blank>"  # of CTC: nothing new in this frame
UNKNOWN = "<unk>"  # a word outside the vocabulary

RESERVED_NAMES = ("", "_unknown_", "_silence_")  # the latter two are labels of `kouling evaluate`
# Far above what people write, far below what would hurt: the decoder's memory grows with the set's sequences.
MAX_SEQUENCES_PER_COMMAND = 2_000
MAX_SEQUENCES_PER_SET = 20_000
MAX_WORDS_PER_PHRASE = 32
MAX_NESTING = 64  # the parser recurses; Python's stack must never be what refuses a phrase
MAX_WORDS_LISTED = 40

CLOSING = {"(": ")", "[": "]"}
# Unicode names of letters whose scripts put no spaces between words begin so.
SPACELESS_SCRIPTS = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


@dataclass(frozen=True)
class Command:
    """A command that was heard: the event that the recogniser emits."""

    name: str
    start_s: float
    end_s: float
    confidence: float  # in [0, 1]
    slots: Mapping[str, str] = field(default_factory=dict)  # empty until grammars with slots arrive


@dataclass(frozen=True)
class CommandSpec:
    """One command of a set."""

    name: str
    phrases: tuple[str, ...]  # as written
    sequences: tuple[tuple[int, ...], ...]  # every way to say it, as indices into the units; distinct, in written order
    threshold: float | None = None  # None: the set's, else the model's


@dataclass(frozen=True)
class CommandSet:
    """All that can be said to a recogniser."""

    commands: tuple[CommandSpec, ...]
    threshold: float | None = None  # of commands without their own; None: the model's
    refractory_s: float | None = None  # None: the decoder's default
    hesitation_s: float | None = None  # None: the model's


def load(path: str | Path, units: Sequence[str]) -> CommandSet:
    """The command set of a TOML file, for a model with these units.

    Raises: ValueError, one line, for broken TOML and for all that `parse` refuses; FileNotFoundError.
    """
    return parse(read_toml(Path(path)), units, str(path))


def parse(table: dict[str, Any], units: Sequence[str], name: str) -> CommandSet:
    """The command set of a table as TOML gives it; `name` says in errors where it came from.

    Raises: ValueError, one line, for an unknown key, a wrong type or value, a name that is missing, reserved or taken,
    a phrase that is empty, malformed, too long or too rich, a word that no unit spells, and words of two commands.
    """
    try:
        _check_keys(table, ("command", "threshold", "refractory_s", "hesitation_s"))
        threshold = _number(table, "threshold", 1.0)
        refractory_s = _number(table, "refractory_s", 10.0)
        hesitation_s = _number(table, "hesitation_s", 10.0)
        entries = table.get("command", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"command is {entries!r} ({type(entries).__name__}); allowed: [[command]] tables")
        if not entries:
            raise ValueError("no commands; needed: one [[command]] table or more")
        vocabulary = _Vocabulary(units)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

    commands: dict[str, CommandSpec] = {}
    owners: dict[tuple[int, ...], str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"command {entry['name']!r}" if isinstance(entry.get("name"), str) else f"command number {number}"
        try:
            command = _command(entry, vocabulary)
            if command.name in commands:
                raise ValueError("the name is taken by an earlier command; allowed: each name once")
            for sequence in command.sequences:
                if sequence in owners:
                    said = " ".join(units[index] for index in sequence)
                    raise ValueError(f"{said!r} is a phrase of command {owners[sequence]!r} too; allowed: of one only")
                owners[sequence] = command.name
            if len(owners) > MAX_SEQUENCES_PER_SET:
                raise ValueError(f"the set has more than {MAX_SEQUENCES_PER_SET:,} word sequences here; allowed: fewer")
        except ValueError as error:
            raise ValueError(f"{name}: {where}: {error}") from None
        commands[command.name] = command
    return CommandSet(tuple(commands.values()), threshold, refractory_s, hesitation_s)


def every_unit(units: Sequence[str]) -> CommandSet:
    """One command per word unit, named after it: the set used when none is given.

    Raises: ValueError where the units hold no word.
    """
    commands = tuple(CommandSpec(unit, (unit,), ((index,),)) for index, unit in _words(units))
    if not commands:
        raise ValueError(f"no word among the model's units, which are {list(units)!r}")
    return CommandSet(commands)


def _command(entry: dict[str, Any], vocabulary: _Vocabulary) -> CommandSpec:
    _check_keys(entry, ("name", "phrases", "threshold"))
    if "name" not in entry:
        raise ValueError("name is missing; needed: a string")
    name = entry["name"]
    if not isinstance(name, str) or name.strip() in RESERVED_NAMES:
        raise ValueError(f"name is {name!r}; allowed: a string that is none of {', '.join(map(repr, RESERVED_NAMES))}")
    phrases = entry.get("phrases", [name.replace("_", " ")])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise ValueError(f"phrases is {phrases!r} ({type(phrases).__name__}); allowed: a list of strings")
    if not phrases:
        raise ValueError("phrases is empty; allowed: one phrase or more, or no key `phrases` at all")
    threshold = _number(entry, "threshold", 1.0)

    sequences: dict[tuple[int, ...], None] = {}  # a set in order
    for phrase in phrases:
        try:
            for text in _expand(_normalize(phrase)):
                sequences[vocabulary.spell(text)] = None
            _check_count(len(sequences))
        except ValueError as error:
            raise ValueError(f"phrase {phrase!r}: {error}") from None
    return CommandSpec(name, tuple(phrases), tuple(sequences), threshold)


def _check_keys(table: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for key in table:
        if key not in allowed:
            raise ValueError(f"unknown key {key!r}; allowed: {', '.join(allowed)}")


def _number(table: dict[str, Any], key: str, highest: float) -> float | None:
    if key not in table:
        return None
    value = table[key]
    if type(value) not in (int, float) or not 0 <= value <= highest:  # True is no number; nan is in no range
        raise ValueError(f"{key} is {value!r}; allowed: a number from 0 to {highest:g}")
    return float(value)


def _normalize(text: str) -> str:
    """`text` as it is compared. NFKC makes full-width brackets and bars plain, so they serve in phrases too."""
    return unicodedata.normalize("NFKC", text).casefold()


def _expand(phrase: str) -> list[str]:
    """Every text that a phrase stands for, in written order, single-spaced.

    Raises: ValueError for brackets that do not pair, an empty phrase or part, and more texts than a command may have.
    """
    if not phrase.strip():
        raise ValueError("it is empty; needed: a word")
    texts = [" ".join(text.split()) for text in _alternatives(_tokens(phrase))]
    if "" in texts:
        raise ValueError("it can be empty, as all of it may be left out; needed: a word outside [ ]")
    return texts


def _tokens(phrase: str) -> deque[tuple[int, str]]:
    """The brackets, bars and texts of a phrase with their columns, and the end as an empty one; brackets pair up."""
    tokens = deque((match.start() + 1, match.group()) for match in re.finditer(r"[()\[\]|]|[^()\[\]|]+", phrase))
    opened: list[tuple[int, str]] = []
    for column, token in tokens:
        if token in CLOSING:
            opened.append((column, token))
            if len(opened) > MAX_NESTING:
                raise ValueError(f"{token!r} at column {column} is nested too deep; allowed: {MAX_NESTING} levels")
        elif token in CLOSING.values():
            if not opened or CLOSING[opened.pop()[1]] != token:
                raise ValueError(f"{token!r} at column {column} closes no bracket of its kind")
    if opened:
        column, token = opened[-1]
        raise ValueError(f"{token!r} at column {column} is never closed; needed: {CLOSING[token]!r}")
    tokens.append((len(phrase) + 1, ""))
    return tokens


def _alternatives(tokens: deque[tuple[int, str]]) -> list[str]:
    """Read alternatives off the front of `tokens`, and the bracket or end that follows."""
    texts: list[str] = []
    while True:
        column, _ = tokens[0]
        sequence = _sequence(tokens)
        if not any(text.strip() for text in sequence):
            raise ValueError(f"nothing to say at column {column}; needed: a word (write [a] for what may be left out)")
        texts = list(dict.fromkeys(texts + sequence))
        _check_count(len(texts))
        _, token = tokens.popleft()
        if token != "|":
            return texts


def _sequence(tokens: deque[tuple[int, str]]) -> list[str]:
    """Read a sequence off the front of `tokens`, up to the bar, bracket or end that follows."""
    texts = [""]
    while tokens[0][1] not in ("|", ")", "]", ""):
        _, token = tokens.popleft()
        options = _alternatives(tokens) if token in CLOSING else [token]
        if token == "[":
            options.append("")
        _check_count(len(texts) * len(options))  # before they are made: n optionals in a row would make 2**n
        texts = list(dict.fromkeys(text + option for text in texts for option in options))
    return texts


def _check_count(num_sequences: int) -> None:
    if num_sequences > MAX_SEQUENCES_PER_COMMAND:
        raise ValueError(f"the command has more than {MAX_SEQUENCES_PER_COMMAND:,} word sequences here; allowed: fewer")


def _words(units: Sequence[str]) -> list[tuple[int, str]]:
    """The units that are words, with their indices: all but those in angle brackets."""
    return [(index, unit) for index, unit in enumerate(units) if not (unit.startswith("<") and unit.endswith(">"))]


@cache
def _parts_words(letter: str) -> bool:
    """Whether a word may end or begin beside `letter`: a space, or a letter of a script that uses none."""
    return letter == " " or unicodedata.name(letter, "").startswith(SPACELESS_SCRIPTS)


class _Vocabulary:
    """The word units of a model, looked up by how they compare."""

    def __init__(self, units: Sequence[str]) -> None:
        """Raises: ValueError for two word units that compare equal."""
        self.units = units
        self.index_of: dict[str, int] = {}
        for index, unit in _words(units):
            first = self.index_of.setdefault(" ".join(_normalize(unit).split()), index)
            if first != index:
                raise ValueError(f"the model's units {units[first]!r} and {unit!r} differ in case or form only")
        self.longest = max(map(len, self.index_of), default=0)

    def spell(self, text: str) -> tuple[int, ...]:
        """The fewest units that spell `text`; of equally few, those with the longest first.

        Units meet at spaces and beside letters of scripts that use none; so "noon" is never "no" and "on".
        Raises: ValueError for a word that no unit spells, and for too many words.
        """
        inner = (i for i in range(1, len(text)) if _parts_words(text[i - 1]) or _parts_words(text[i]))
        cuts = [0, *inner, len(text)]
        paths: dict[int, tuple[int, ...]] = {0: (0,)}  # to every place where a unit may start: the starts on the way
        for position, start in enumerate(cuts):
            if start not in paths or len(paths[start]) > MAX_WORDS_PER_PHRASE:
                continue
            for end in cuts[position + 1 : position + 1 + self.longest]:
                if text[start:end] in self.index_of:
                    after = end + 1 if text.startswith(" ", end) else end
                    path = (*paths[start], after)
                    paths[after] = max(path, paths.get(after, path), key=lambda starts: (-len(starts), starts))
        furthest = max(paths)
        if furthest == len(text):
            return tuple(self.index_of[text[start:after].rstrip()] for start, after in pairwise(paths[furthest]))
        if len(paths[furthest]) > MAX_WORDS_PER_PHRASE:
            raise ValueError(f"it has more than {MAX_WORDS_PER_PHRASE} words; allowed: fewer")
        raise ValueError(self._unknown(text[furthest:].split()[0]))

    def _unknown(self, word: str) -> str:
        nearest = difflib.get_close_matches(word, self.index_of, n=1, cutoff=0.5)  # 0.5: one of two letters, as in 北京
        hint = f", nearest {self.units[self.index_of[nearest[0]]]!r}" if nearest else ""
        known = [repr(self.units[index]) for index in self.index_of.values()]
        more = f" ... and {len(known) - MAX_WORDS_LISTED} more" if len(known) > MAX_WORDS_LISTED else ""
        return f"the model does not know the word {word!r}{hint}; allowed: {', '.join(known[:MAX_WORDS_LISTED])}{more}"
