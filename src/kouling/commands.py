"""What can be said: a command set maps phrases to the word units of a model; `Command` is the event of hearing one.

The language of phrases is that of `phrases.py`, the set that of `grammar.py`. Here they are spelled in a model's units:
a command whose phrases are a number of texts becomes sequences, one with slots, repetition or order a graph.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from kouling import grammar, phrases
from kouling.config import read_toml
from kouling.grammar import Grammar
from kouling.phrases import normalize, parts_words
from kouling.slot_types import Value
from kouling.templates import Templates
from kouling.word_graph import MAX_ARCS, MAX_NODES, Builder, WordGraph

BLANK = "<blank>"  # of CTC: nothing new in this frame
UNKNOWN = "<unk>"  # a word outside the vocabulary

# Far above what people write, far below what would hurt: the decoder's memory grows with the set's sequences.
MAX_SEQUENCES_PER_COMMAND = 2_000
MAX_SEQUENCES_PER_SET = 20_000
MAX_WORDS_PER_PHRASE = 32
MAX_WORDS_LISTED = 40
DEFAULT_FILLERS = 0.7  # one unknown word between two words is let through, two are not
MANDARIN_NUMBERS = "零一二三四五六七八九十百"


@dataclass(frozen=True)
class Command:
    """A command that was heard: the event that the recogniser emits."""

    name: str
    start_s: float
    end_s: float
    confidence: float  # in [0, 1]
    slots: Mapping[str, Value | list[Value]] = field(default_factory=dict)  # a list where it was said more than once
    slot_confidences: Mapping[str, float] = field(default_factory=dict)  # of several values the least


def joined(said: Sequence[tuple[str, Value, float]]) -> tuple[dict[str, Value | list[Value]], dict[str, float]]:
    """`slots` and `slot_confidences` of an event from (name, value, confidence) of each value, in spoken order."""
    slots: dict[str, Value | list[Value]] = {}
    confidences: dict[str, float] = {}
    for name, value, confidence in said:
        before = slots.get(name)
        slots[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
        confidences[name] = min(confidences.get(name, 1.0), round(confidence, 4))
    return slots, confidences


@dataclass(frozen=True)
class CommandSpec:
    """One command of a set."""

    name: str
    phrases: tuple[str, ...]  # as written
    sequences: tuple[tuple[int, ...], ...]  # every way to say it, as indices into the units; distinct, in written order
    threshold: float | None = None  # None: the set's, else the model's
    graph: WordGraph | None = None  # instead of sequences, where there are slots, repetition or order
    enrolled: Templates | None = None  # of recordings, beside phrases or instead of them


@dataclass(frozen=True)
class CommandSet:
    """All that can be said to a recogniser."""

    commands: tuple[CommandSpec, ...]
    threshold: float | None = None  # of commands without their own; None: the model's
    refractory_s: float | None = None  # None: the decoder's default
    hesitation_s: float | None = None  # None: the model's
    max_command_duration_s: float | None = None  # None: the model's
    fillers: float = DEFAULT_FILLERS  # share of an unknown word that is silence between the words of a graph


def load(path: str | Path, units: Sequence[str]) -> CommandSet:
    """The command set of a TOML file, for a model with these units.

    Raises: ValueError, one line, for broken TOML and for all that `parse` refuses; FileNotFoundError.
    """
    return parse(read_toml(Path(path)), units, str(path))


def parse(table: dict[str, Any], units: Sequence[str], name: str, sentences: bool = False) -> CommandSet:
    """The command set of a table as TOML gives it; `name` says in errors where it came from. The language of numbers is
    that of the set, else that of the units. sentences: as in `DecoderConfig`.

    Raises: ValueError, one line, for all that `grammar.read` refuses, phrases that are too long or too rich, a word
    that no unit spells, and words of two commands.
    """
    read = grammar.read(table, name, "zh" if set(MANDARIN_NUMBERS) & set(units) else "en")
    try:
        vocabulary = _Vocabulary(units)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    commands: list[CommandSpec] = []
    owners: dict[tuple[int, ...], str] = {}
    for each in read.commands:
        try:
            command, sequences = _spelled(each, vocabulary, read.weak_words, sentences)
            for sequence in sequences:
                if sequence in owners:
                    said = " ".join(units[index] for index in sequence)
                    raise ValueError(f"{said!r} is a phrase of command {owners[sequence]!r} too; allowed: of one only")
                owners[sequence] = command.name
            if len(owners) > MAX_SEQUENCES_PER_SET:
                raise ValueError(f"the set has more than {MAX_SEQUENCES_PER_SET:,} word sequences here; allowed: fewer")
            commands.append(command)
            graphs = [spec.graph for spec in commands if spec.graph]
            if command.graph and sum(len(graph.unit) for graph in graphs) > MAX_NODES:
                raise ValueError(f"the graphs of the set have more than {MAX_NODES:,} words here; allowed: fewer")
            if command.graph and sum(graph.num_arcs for graph in graphs) > MAX_ARCS:
                raise ValueError(f"the graphs of the set have more than {MAX_ARCS:,} arcs here; allowed: fewer")
        except ValueError as error:
            raise ValueError(f"{name}: command {each.name!r}: {error}") from None
    fillers = DEFAULT_FILLERS if read.fillers is None else read.fillers
    times = (read.threshold, read.refractory_s, read.hesitation_s, read.max_command_duration_s)
    return CommandSet(tuple(commands), *times, fillers)


def every_unit(units: Sequence[str]) -> CommandSet:
    """One command per word unit, named after it: the set used when none is given.

    Raises: ValueError where the units hold no word.
    """
    commands = tuple(CommandSpec(unit, (unit,), ((index,),)) for index, unit in _words(units))
    if not commands:
        raise ValueError(f"no word among the model's units, which are {list(units)!r}")
    return CommandSet(commands)


def _spelled(
    command: Grammar, vocabulary: _Vocabulary, weak: Sequence[str], sentences: bool
) -> tuple[CommandSpec, list[tuple[int, ...]]]:
    """What the decoder searches, and every way to say a plain command, whichever way that is searched."""
    sequences: dict[tuple[int, ...], None] = {}  # a set in order
    builder = Builder(vocabulary.spell, command.types, weak)
    for phrase, tree, words in zip(command.phrases, command.trees, command.words_of, strict=True):
        try:
            if sentences or not command.plain:
                builder.add(words)
            if command.plain:
                for text in phrases.expand(tree, MAX_SEQUENCES_PER_COMMAND):
                    sequences[vocabulary.spell(" ".join(text.split()))] = None
                phrases.check_count(len(sequences), MAX_SEQUENCES_PER_COMMAND)
        except ValueError as error:
            raise ValueError(f"phrase {phrase!r}: {error}") from None
    graph = builder.graph() if not command.plain or (sentences and any(len(each) > 1 for each in sequences)) else None
    searched = () if graph else tuple(sequences)
    spec = CommandSpec(command.name, command.phrases, searched, command.threshold, graph, command.enrolled)
    return spec, list(sequences)


def _words(units: Sequence[str]) -> list[tuple[int, str]]:
    """The units that are words, with their indices: all but those in angle brackets."""
    return [(index, unit) for index, unit in enumerate(units) if not (unit.startswith("<") and unit.endswith(">"))]


class _Vocabulary:
    """The word units of a model, looked up by how they compare."""

    def __init__(self, units: Sequence[str]) -> None:
        """Raises: ValueError for two word units that compare equal."""
        self.units = units
        self.index_of: dict[str, int] = {}
        for index, unit in _words(units):
            first = self.index_of.setdefault(" ".join(normalize(unit).split()), index)
            if first != index:
                raise ValueError(f"the model's units {units[first]!r} and {unit!r} differ in case or form only")
        self.longest = max(map(len, self.index_of), default=0)

    def spell(self, text: str) -> tuple[int, ...]:
        """The fewest units that spell `text`; of equally few, those with the longest first.

        Units meet at spaces and beside letters of scripts that use none; so "noon" is never "no" and "on".
        Raises: ValueError for a word that no unit spells, and for too many words.
        """
        inner = (i for i in range(1, len(text)) if parts_words(text[i - 1]) or parts_words(text[i]))
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
