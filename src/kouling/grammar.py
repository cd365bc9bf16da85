"""A command set as it is written, before any model: what may be said, in which words, and examples of it.

`read` checks a set for all that can be wrong without knowing a model's words. `commands.parse` spells the result in the
units of a model; teaching draws sentences from it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import Any

from kouling import phrases, slot_types
from kouling.phrases import AnyOrder, Choice, Node, Repeat, Row, Slot, Text
from kouling.slot_types import BUILT_IN, SlotType, Value
from kouling.templates import Templates

RESERVED_NAMES = ("", "_unknown_", "_silence_")  # the latter two are labels of `kouling evaluate`
MAX_COMMANDS = 2_000
MAX_EXPANDED = 2_000
MOST_TIMES = 4  # that something repeated is said, when a sentence is drawn
KEYS = (
    "command",
    "threshold",
    "refractory_s",
    "hesitation_s",
    "max_command_duration_s",
    "fillers",
    "language",
    "weak_words",
)
TABLES = ("slots", "parts", "say")
# Words whose weak forms are next to nothing in fluent speech (Cruttenden, "Gimson's Pronunciation of English", 8th ed.,
# 11.3), and which say little themselves.
WEAK_WORDS = {"en": tuple("a an the and or of to at for i me my with is are it".split())}

Slots = dict[str, Value | list[Value]]


@dataclass(frozen=True)
class Grammar:
    """One command: its phrases as trees of words."""

    name: str
    phrases: tuple[str, ...]  # as written
    threshold: float | None = None
    say: tuple[str, ...] = ()  # how a synthesiser is asked to say it, where its spelling misleads
    trees: tuple[Node, ...] = ()  # of the phrases, joined as written
    types: Mapping[str, SlotType] = field(default_factory=dict)  # of the slots, as a phrase names them
    enrolled: Templates | None = None  # of recordings; a command may have these instead of phrases

    @property
    def plain(self) -> bool:
        """Whether it is a number of texts: no slots, repetition or order in it."""
        return all(map(phrases.is_plain, self.trees))

    @cached_property
    def words_of(self) -> tuple[Node, ...]:
        """The trees with no text joined to another: what each text holds are whole words."""
        return tuple(map(phrases.in_words, self.trees))

    def sample(self, rng: random.Random) -> tuple[str, Slots]:
        """A sentence with its words apart, and what its slots hold. Optional parts come in half of them, alternatives
        and values are equally likely, what is repeated is said MOST_TIMES at most."""
        drawn: list[str] = []
        slots: Slots = {}
        _draw(rng.choice(self.words_of), rng, self.types, drawn, slots)
        return " ".join(drawn), slots

    def texts(self, most: int) -> list[str] | None:
        """Every sentence, or None where there are more than `most`. Those of a plain command are joined as written."""
        found: dict[str, None] = {}
        if self.plain:
            try:
                for tree in self.trees:
                    expanded = phrases.expand(tree, max(most, MAX_EXPANDED))
                    found |= dict.fromkeys(" ".join(text.split()) for text in expanded)
            except ValueError:  # too many
                return None
            return list(found) if len(found) <= most else None
        if any(isinstance(node, Repeat) for tree in self.trees for node in phrases.inside(tree)):
            return None
        for tree in self.words_of:
            for words in _sentences(tree, self.types):
                found[" ".join(words.split())] = None
                if len(found) > most:
                    return None
        return list(found)

    def words(self) -> list[str]:
        """The distinct words that it can say, those of numbers too."""
        found: dict[str, None] = {}
        for tree in self.words_of:
            for node in phrases.inside(tree):
                if isinstance(node, Text):
                    found |= dict.fromkeys(node.text.split())
                elif isinstance(node, Slot):
                    found |= dict.fromkeys(self.types[node.type].words())
        return list(found)


@dataclass(frozen=True)
class GrammarSet:
    """A command set as written."""

    commands: tuple[Grammar, ...]
    language: str = "en"
    threshold: float | None = None
    refractory_s: float | None = None
    hesitation_s: float | None = None
    max_command_duration_s: float | None = None
    fillers: float | None = None
    weak_words: tuple[str, ...] = ()  # that people may swallow in commands with slots, repetition or order
    say: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # word -> how a synthesiser is asked to say it

    def words(self) -> list[str]:
        return list(dict.fromkeys(word for command in self.commands for word in command.words()))


def words(table: dict[str, Any], language: str = "en") -> list[str]:
    """The distinct words that a set can say. Raises: ValueError as `read`."""
    return read(table, "the set", language).words()


def read(table: dict[str, Any], name: str, language: str = "en") -> GrammarSet:
    """The set of a table as TOML gives it; `name` says in errors where it came from, `language` is that of the numbers
    where the set has no key for it.

    Raises: ValueError, one line, for an unknown key, a wrong type or value, too many commands, a name that is missing,
    reserved or taken, a slot without values, parts that go round, and a phrase that is empty or malformed.
    """
    try:
        _check_keys(table, (*KEYS, *TABLES))
        most = {"threshold": 1.0, "refractory_s": 10.0, "hesitation_s": 10.0, "max_command_duration_s": 60.0}
        numbers = {key: _number(table, key, highest) for key, highest in {**most, "fillers": 1.0}.items()}
        if numbers["max_command_duration_s"] == 0:
            raise ValueError("max_command_duration_s is 0; allowed: above 0")
        language = table.get("language", language)
        if not isinstance(language, str) or not language.strip():
            raise ValueError(f"language is {language!r}; allowed: a string, as 'en' or 'zh'")
        weak = table.get("weak_words", list(WEAK_WORDS.get(language.partition("-")[0], ())))
        if not isinstance(weak, list) or not all(isinstance(word, str) and word.strip() for word in weak):
            raise ValueError(f"weak_words is {weak!r}; allowed: a list of words, [] for none")
        entries = table.get("command", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"command is {entries!r} ({type(entries).__name__}); allowed: [[command]] tables")
        if not entries:
            raise ValueError("no commands; needed: one [[command]] table or more")
        if len(entries) > MAX_COMMANDS:
            raise ValueError(f"{len(entries):,} commands; allowed: {MAX_COMMANDS:,} or fewer (put lists into slots)")
        parts = _parts(_table(table, "parts"))
        slots = {each: slot_types.listed(each, values, parts) for each, values in _table(table, "slots").items()}
        say = {
            " ".join(phrases.normalize(word).split()): _say(word, ways) for word, ways in _table(table, "say").items()
        }
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

    commands: dict[str, Grammar] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"command {entry['name']!r}" if isinstance(entry.get("name"), str) else f"command number {number}"
        try:
            command = _command(entry, parts, slots, language)
            if command.name in commands:
                raise ValueError("the name is taken by an earlier command; allowed: each name once")
        except ValueError as error:
            raise ValueError(f"{name}: {where}: {error}") from None
        commands[command.name] = command
    weak = [" ".join(phrases.normalize(word).split()) for word in weak]
    return GrammarSet(tuple(commands.values()), language, **numbers, weak_words=tuple(weak), say=say)


def _command(entry: dict[str, Any], parts: Mapping[str, str], slots: Mapping[str, SlotType], language: str) -> Grammar:
    _check_keys(entry, ("name", "phrases", "threshold", "say", "enrolled"))
    if "name" not in entry:
        raise ValueError("name is missing; needed: a string")
    name = entry["name"]
    if not isinstance(name, str) or name.strip() in RESERVED_NAMES:
        raise ValueError(f"name is {name!r}; allowed: a string that is none of {', '.join(map(repr, RESERVED_NAMES))}")
    enrolled = Templates.of_table(entry["enrolled"]) if "enrolled" in entry else None
    written = entry.get("phrases", [] if enrolled else [name.replace("_", " ")])
    if not isinstance(written, list) or not all(isinstance(phrase, str) for phrase in written):
        raise ValueError(f"phrases is {written!r} ({type(written).__name__}); allowed: a list of strings")
    if not written and not enrolled:
        raise ValueError("phrases is empty; allowed: one phrase or more, or no key `phrases` at all")
    threshold = _number(entry, "threshold", 1.0)
    say = _say(name, entry["say"]) if "say" in entry else ()
    trees: list[Node] = []
    types: dict[str, SlotType] = {}
    kinds: dict[str, str] = {}
    for phrase in written:
        try:
            tree = phrases.read(phrase, parts)
            phrases.in_words(tree)
            for node in phrases.inside(tree):
                if isinstance(node, Slot):
                    types[node.type] = _type(node.type, slots, language)
                    if kinds.setdefault(node.name, node.type) != node.type:
                        raise ValueError(f"slot {node.name!r} is {kinds[node.name]} and {node.type}; allowed: one")
        except ValueError as error:
            raise ValueError(f"phrase {phrase!r}: {error}") from None
        trees.append(tree)
    return Grammar(name, tuple(written), threshold, say, tuple(trees), types, enrolled)


def _type(kind: str, slots: Mapping[str, SlotType], language: str) -> SlotType:
    found = slots.get(kind) or slot_types.built_in(kind, language)
    if found is None:
        raise ValueError(f"there are no values of the slot {kind!r}; allowed: {', '.join((*slots, *BUILT_IN))}")
    return found


def _parts(table: dict[str, Any]) -> dict[str, str]:
    for name, text in table.items():
        if not isinstance(text, str) or not name.strip() or set(name) & set("<>{}()[]|&"):
            raise ValueError(f"part {name!r} is {text!r}; allowed: a name without brackets, and a phrase as a string")
    for name, text in table.items():
        try:
            phrases.read(text, table)
            phrases.inlined(f"<{name}>", table)
        except ValueError as error:
            raise ValueError(f"part {name!r}: {error}") from None
    return table


def _say(word: str, ways: Any) -> tuple[str, ...]:
    listed = [ways] if isinstance(ways, str) else ways
    if not isinstance(listed, list) or not listed or not all(isinstance(way, str) and way.strip() for way in listed):
        raise ValueError(f"say of {word!r} is {ways!r}; allowed: a list of strings")
    return tuple(listed)


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is {found!r} ({type(found).__name__}); allowed: a [{key}] table")
    return found


def _check_keys(table: dict[str, Any], allowed: Sequence[str]) -> None:
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


def _draw(node: Node, rng: random.Random, types: Mapping[str, SlotType], drawn: list[str], slots: Slots) -> None:
    match node:
        case Text(text):
            drawn.append(text)
        case Slot(name, kind):
            text, value = types[kind].sample(rng)
            drawn.append(text)
            before = slots.get(name)
            slots[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
        case Row(parts):
            for part in parts:
                _draw(part, rng, types, drawn, slots)
        case Choice(options):
            optional = options[-1] == phrases.NOTHING
            if not optional or rng.random() < 0.5:
                _draw(rng.choice(options[:-1] if optional else options), rng, types, drawn, slots)
        case Repeat(body):
            _draw(body, rng, types, drawn, slots)
            times = 1
            while times < MOST_TIMES and rng.random() < 0.4:
                _draw(body, rng, types, drawn, slots)
                times += 1
        case AnyOrder(members, needed):
            chosen = [member for member in members if needed or rng.random() < 0.5]
            for member in rng.sample(chosen, len(chosen)):
                _draw(member, rng, types, drawn, slots)


def _sentences(node: Node, types: Mapping[str, SlotType]) -> Iterator[str]:
    """Every sentence of a tree without repetition, one by one."""
    match node:
        case Text(text):
            yield text
        case Slot(_, kind):
            yield from types[kind].texts()
        case Row(parts):
            if not parts:
                yield ""
                return
            for first in _sentences(parts[0], types):
                for rest in _sentences(Row(parts[1:]), types):
                    yield f"{first} {rest}"
        case Choice(options):
            for option in options:
                yield from _sentences(option, types)
        case AnyOrder(members, needed):
            for count in [len(members)] if needed else range(len(members), -1, -1):
                for chosen in permutations(members, count):
                    yield from _sentences(Row(chosen), types)
