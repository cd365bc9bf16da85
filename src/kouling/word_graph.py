"""A command with slots, repetition or order as a graph of units, in which every way to say it is a path.

A node is a unit at a place in the phrase. There are as many nodes as words written, not as many as sentences: a slot is
the automaton of its values, and what may come in any order has a copy for each set of members said before it.

Weak words, as "a" and "with", are often swallowed: the graph leads past each, at a price that is the decoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kouling.phrases import AnyOrder, Choice, Node, Repeat, Row, Slot, Text
from kouling.slot_types import SlotType
from kouling.spoken_numbers import Said

MAX_NODES = 30_000  # of a set; memory of a stream is about 300 bytes for each
MAX_ARCS = 500_000


@dataclass(frozen=True)
class WordGraph:
    """Nodes in an order in which arcs lead on, but for those that repeat something."""

    unit: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]  # of each node the nodes behind which it may be said, ascending
    past: tuple[tuple[int, ...], ...]  # and those from which it is reached past one weak word
    starts: tuple[int, ...]  # nodes that a sentence may begin with, ascending
    ends: tuple[int, ...]  # and end with
    slot: tuple[int, ...]  # of each node the index of its slot, or -1
    opens: tuple[bool, ...]  # a value of the slot begins here
    piece: tuple[str, ...]  # of the value, and
    adds: tuple[int, ...]  # what this adds to it, if it is a number
    slots: tuple[tuple[str, bool], ...]  # name, and whether its values are numbers

    @property
    def num_arcs(self) -> int:
        return sum(map(len, self.before + self.past))


@dataclass
class _Piece:
    """A part of the graph: where one comes in, where one leaves, and whether one may pass it by."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: bool = False


class Builder:
    """Makes the graph of one command, phrase by phrase."""

    def __init__(
        self, spell: Callable[[str], Sequence[int]], types: Mapping[str, SlotType], weak: Collection[str] = ()
    ) -> None:
        """spell: a text -> the units that say it. weak: words that may be swallowed."""
        self.spell = spell
        self.types = types
        self.weak = frozenset(weak)
        self.is_weak: list[bool] = []
        self.shortened: list[int] = []  # first nodes of values whose first word is left out
        self.unit: list[int] = []
        self.before: list[set[int]] = []
        self.slot: list[int] = []
        self.opens: list[bool] = []
        self.piece: list[str] = []
        self.adds: list[int] = []
        self.slots: dict[str, bool] = {}
        self.num_arcs = 0
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, phrase: Node) -> None:
        """phrase: in whole words, see `phrases.in_words`. Raises: ValueError for a word that no unit spells, and where
        the graph grows too large."""
        made = self._build(phrase)
        self.starts += made.first
        self.ends += made.last

    def graph(self) -> WordGraph:
        before, past = self._past_weak_words()
        return WordGraph(
            unit=tuple(self.unit),
            before=tuple(tuple(sorted(nodes)) for nodes in before),
            past=tuple(tuple(sorted(nodes)) for nodes in past),
            starts=tuple(sorted(set(self.starts))),
            ends=tuple(sorted(set(self.ends))),
            slot=tuple(self.slot),
            opens=tuple(self.opens),
            piece=tuple(self.piece),
            adds=tuple(self.adds),
            slots=tuple(self.slots.items()),
        )

    def _past_weak_words(self) -> tuple[list[set[int]], list[set[int]]]:
        """`before` and `past` of the graph. Not past what a value begins with or holds, nor two words at once; a
        sentence neither begins nor ends past one, or it could be too short to be told from other speech."""
        before = [set() if node in self.shortened else set(nodes) for node, nodes in enumerate(self.before)]
        past = [set(self.before[node]) - before[node] for node in range(len(before))]
        for node, nodes in enumerate(self.before):
            for weak in nodes:
                if self.is_weak[weak] and not (self.opens[weak] or self.piece[weak] or self.adds[weak]):
                    past[node] |= self.before[weak] - before[node]
        self.num_arcs = sum(map(len, before + past))
        self._check_arcs()
        return before, past

    def _build(self, node: Node) -> _Piece:
        match node:
            case Text(text):
                first, last = self._chain(text)
                return _Piece([first], [last])
            case Slot(name, kind):
                return self._value(name, self.types[kind])
            case Row(parts):
                made = _Piece(empty=True)
                for part in parts:
                    made = self._behind(made, self._build(part))
                return made
            case Choice(options):
                pieces = [self._build(option) for option in options]
                first_nodes = [node for piece in pieces for node in piece.first]
                last_nodes = [node for piece in pieces for node in piece.last]
                return _Piece(first_nodes, last_nodes, any(piece.empty for piece in pieces))
            case Repeat(body):
                made = self._build(body)
                self._connect(made.last, made.first)
                return made
            case AnyOrder(members, needed):
                return self._any_order(members, needed)

    def _behind(self, one: _Piece, other: _Piece) -> _Piece:
        self._connect(one.last, other.first)
        first = one.first + other.first if one.empty else one.first
        last = one.last + other.last if other.empty else other.last
        return _Piece(first, last, one.empty and other.empty)

    def _any_order(self, members: Sequence[Node], needed: bool) -> _Piece:
        """States are the sets of members said so far, as bits; a member is built anew for each that it completes."""
        full = (1 << len(members)) - 1
        made = _Piece(empty=not needed)
        reached = {0: _Piece(empty=True)}
        for said in sorted(range(1, full + 1), key=int.bit_count):
            here = _Piece()
            for number, member in enumerate(members):
                if said >> number & 1:
                    before, added = reached[said & ~(1 << number)], self._build(member)
                    self._connect(before.last, added.first)
                    made.first += added.first if before.empty else []
                    here.last += added.last + (before.last if added.empty else [])
                    here.empty |= before.empty and added.empty
            reached[said] = here
            if said == full or not needed:
                made.last += here.last
                made.empty |= here.empty
        return made

    def _value(self, name: str, kind: SlotType) -> _Piece:
        self.slots.setdefault(name, kind.is_number)
        slot = list(self.slots).index(name)
        automaton = kind.automaton()
        chains: dict[tuple[Said, int, bool], tuple[int, int]] = {}
        entering: dict[int, list[int]] = {}
        texts = {said.text for _, said, _ in automaton.arcs}
        shorter = [(0, self._without_first(said), target) for source, said, target in automaton.arcs if not source]
        arcs = [*automaton.arcs, *(arc for arc in shorter if arc[1].text and arc[1].text not in texts)]
        # By their targets: nodes then come in an order in which arcs lead on.
        for source, said, target in sorted(arcs, key=lambda arc: arc[2]):
            key = (said, target, source == 0)
            if key in chains:
                continue
            chains[key] = first, last = self._chain(said.text)
            self.shortened += [first] if said.text not in texts else []
            self.slot[first:] = [slot] * (last + 1 - first)
            self.opens[first] = source == 0
            self.piece[last], self.adds[last] = said.piece, said.adds
            entering.setdefault(target, []).append(last)
        for source, said, target in arcs:
            self._connect(entering.get(source, []), [chains[said, target, source == 0][0]])
        first_nodes = [first for (_, _, opens), (first, _) in chains.items() if opens]
        return _Piece(first_nodes, [node for state in sorted(automaton.last) for node in entering.get(state, [])])

    def _without_first(self, said: Said) -> Said:
        """Without its first word where that is weak; empty otherwise, and where another is weak too or none is left."""
        first, _, rest = said.text.partition(" ")
        return said._replace(text=rest if first in self.weak and rest not in self.weak else "")

    def _chain(self, text: str) -> tuple[int, int]:
        first = len(self.unit)
        units = self.spell(text)
        words = text.split() if len(text.split()) == len(units) else [""] * len(units)
        for unit, word in zip(units, words, strict=True):
            if len(self.unit) >= MAX_NODES:
                raise ValueError(f"the command has more than {MAX_NODES:,} words in its graph; allowed: fewer")
            self.before.append({len(self.unit) - 1} if len(self.unit) > first else set())
            self.unit.append(unit)
            self.is_weak.append(word in self.weak)
            self.slot.append(-1)
            self.opens.append(False)
            self.piece.append("")
            self.adds.append(0)
        return first, len(self.unit) - 1

    def _connect(self, earlier: Iterable[int], later: Iterable[int]) -> None:
        ahead = set(earlier)
        for node in later:
            self.num_arcs += len(ahead - self.before[node])
            self.before[node] |= ahead
            self._check_arcs()

    def _check_arcs(self) -> None:
        if self.num_arcs > MAX_ARCS:
            raise ValueError(f"the command has more than {MAX_ARCS:,} arcs in its graph; allowed: fewer")
