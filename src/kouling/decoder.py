"""Streaming search for commands in CTC log-probabilities.

CTC's frames are independent given the audio, so its output is a probability distribution over strings of units. For
every prefix of every phrase (a node of a tree) the decoder keeps, frame by frame, the probability that the string so
far ends with it: one number for "its last unit is being said", one for "blank since". The flow into the last unit of a
phrase, summed over the frames that it takes, is the probability that the phrase was said. Nothing is pruned and no beam
is kept: the cost of a frame is a few vector operations on the nodes of the tree, for ever.

Commands with slots, repetition or order are searched in graphs by `graph_search.py`, which counts alike; whatever finds
a candidate, it is decided here. Nodes of graphs are numbered behind those of the tree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kouling.commands import UNKNOWN, Command, CommandSet, joined
from kouling.graph_search import GraphSearch, Reading, SetGraph, values

BLANK_INDEX = 0
MOST_COUNTED = 2  # words behind the first that make a sentence surer: many faint ones are no evidence
DEFAULT_ONSET_S = 0.3  # of units whose onset was not calibrated

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the search; the model brings those that `kouling train` calibrated on validation data."""

    threshold: float = 0.5  # of commands that have none of their own
    refractory_s: float = 0.5  # a command is not heard again sooner after itself
    max_gap_s: float = 1.0  # silence allowed between the words of a phrase
    max_command_duration_s: float = 5.0
    settle_s: float = 0.16  # a command is decided when its probability has not grown for this long
    # A command is meant as one only if no unknown word is heard this long before it, nor while it is decided. 0: off.
    isolation_s: float = 0.0
    # A command of at least this confidence is decided at once. One that is less sure waits whether someone talks on, as
    # who is talking to other people does: an unknown word this long after it, and it was not meant. 0: off.
    sure: float = 0.98
    hesitation_s: float = 0.0
    # A stream begins as if this much had gone before: models trained on streams hear best in the midst of one.
    priming_s: float = 4.0
    # What had gone before, as features: 0 digital silence, 1 a faint hiss, 3 that of a loud room.
    priming_level: float = 0.0
    # P(right) = sigmoid(slope * logit(probability of the phrase) + bias), fitted on validation data (Platt 1999).
    confidence_slope: float = 1.0
    confidence_bias: float = 0.0
    # Commands of several words are searched in graphs, as those with slots are: each as sure as the least sure of its
    # words, past a weak word that was swallowed. For models that learned their words in sentences.
    sentences: bool = False
    # Other speech holds a word of a grammar now and then, and two that make a sentence far less often: log odds that
    # each word behind the first adds to the confidence of a command with slots, repetition or order.
    confidence_per_word: float = 0.0
    # How far CTC's spike lies behind the first and the last sound of a word, by unit; seconds.
    onset_s: dict[str, float] = field(default_factory=dict)
    offset_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, most in (("threshold", 1), ("sure", 1), ("confidence_slope", 100)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"decoder.{name} is {getattr(self, name)}; allowed: above 0, at most {most}")
        if not 0 <= self.confidence_per_word <= 10:
            raise ValueError(f"decoder.confidence_per_word is {self.confidence_per_word}; allowed: 0 to 10")
        if not -100 <= self.confidence_bias <= 100:
            raise ValueError(f"decoder.confidence_bias is {self.confidence_bias}; allowed: -100 to 100")
        for name in ("refractory_s", "max_gap_s", "settle_s", "isolation_s", "hesitation_s", "priming_s"):
            if not 0 <= getattr(self, name) <= 60:
                raise ValueError(f"decoder.{name} is {getattr(self, name)}; allowed: 0 to 60")
        if not 0 < self.max_command_duration_s <= 60:
            raise ValueError(
                f"decoder.max_command_duration_s is {self.max_command_duration_s}; allowed: above 0, at most 60"
            )
        if not 0 <= self.priming_level <= 10:
            raise ValueError(f"decoder.priming_level is {self.priming_level}; allowed: 0 to 10")
        for name in ("onset_s", "offset_s"):
            for unit, lag_s in getattr(self, name).items():
                if type(lag_s) not in (int, float) or not -60 <= lag_s <= 60:
                    raise ValueError(f"decoder.{name} of {unit!r} is {lag_s!r}; allowed: -60 to 60")

    def confidence(self, probability: float, words: int = 1) -> float:
        """The calibrated confidence of a phrase of this probability. words: that make a sentence of a graph."""
        bounded = min(max(probability, 1e-6), 1 - 1e-6)
        logit = self.confidence_slope * np.log(bounded / (1 - bounded)) + self.confidence_bias
        logit += self.confidence_per_word * min(words - 1, MOST_COUNTED)
        return float(1 / (1 + np.exp(-logit)))


class PhraseTree:
    """All phrases of a command set as a tree of units; node 0 is the root, the empty phrase."""

    def __init__(self, commands: CommandSet) -> None:
        unit, parent, command = [BLANK_INDEX], [0], [-1]
        children: dict[tuple[int, int], int] = {}
        for index, spec in enumerate(commands.commands):
            for sequence in spec.sequences:
                node = 0
                for symbol in sequence:
                    if (node, symbol) not in children:
                        children[node, symbol] = len(unit)
                        unit.append(symbol)
                        parent.append(node)
                        command.append(-1)
                    node = children[node, symbol]
                command[node] = index
        self.unit = np.array(unit, dtype=np.int64)
        self.parent = np.array(parent, dtype=np.int64)
        self.command = np.array(command, dtype=np.int64)  # index of the command that ends here, or -1
        self.starts = self.parent == 0  # first unit of a phrase
        self.first_unit = self.unit.copy()
        self.depth = np.zeros(len(unit), dtype=np.int64)
        for node in range(1, len(unit)):  # parents come before their children
            self.depth[node] = self.depth[self.parent[node]] + 1
            if parent[node]:
                self.first_unit[node] = self.first_unit[parent[node]]
        # Of each end of a phrase from which a longer one goes on: the nodes beyond it.
        beyond: dict[int, list[int]] = {}
        for node in range(1, len(unit)):
            above = parent[node]
            while above:
                if command[above] >= 0:
                    beyond.setdefault(above, []).append(node)
                above = parent[above]
        self.beyond = {node: np.array(nodes, dtype=np.int64) for node, nodes in beyond.items()}
        # A unit that follows itself needs a blank in between.
        self.repeats = self.unit == self.unit[self.parent]


@dataclass
class Candidate:
    """A phrase whose last unit is coming, or has come and waits to be decided."""

    node: int
    command: int
    depth: int = 0  # units
    probability: float = 0.0
    alone: float = 1.0  # P(no unknown word since it was opened)
    spike: float = 0.0  # frame of the last unit's spike: the mean over the flow
    length: float = 0.0  # frames from the first unit's spike to the last one's, likewise
    grown: int = 0  # frame of the last growth worth mentioning
    opened: int = 0
    reading: Reading | None = None  # of a graph: the path that is the likeliest so far

    def add(self, flow: float, frame: int, length: float) -> None:
        if flow > 0.02:
            self.grown = frame
        total = self.probability + flow
        self.spike += (frame - self.spike) * flow / total
        self.length += (length - self.length) * flow / total
        self.probability = total

    def read(self, flow: float, reading: Reading) -> None:
        """Before `add`: the same path, of which more is known now, or one that is likelier than all before."""
        if self.reading is None or reading.born == self.reading.born or flow > self.probability:
            self.reading, self.depth = reading, reading.depth

    def overlaps(self, other: Candidate, slack: float) -> bool:
        return self.spike >= other.spike - other.length - slack and other.spike >= self.spike - self.length - slack


class Decoder:
    """Log-probabilities in, frame by frame; commands out, each once. One instance is one stream."""

    def __init__(
        self,
        units: Sequence[str],
        commands: CommandSet,
        config: DecoderConfig,
        frame_s: float,
        first_frame_s: float = 0.0,
    ) -> None:
        """frame_s: seconds from one frame to the next. first_frame_s: time of frame 0; -lookahead for an encoder."""
        self.units = tuple(units)
        self.commands = commands
        self.config = config
        self.frame_s = frame_s
        self.first_frame_s = first_frame_s
        self.tree = PhraseTree(commands)
        self.thresholds = [
            next(t for t in (spec.threshold, commands.threshold, config.threshold) if t is not None)
            for spec in commands.commands
        ]
        self.refractory_s = config.refractory_s if commands.refractory_s is None else commands.refractory_s
        self.settle = max(round(config.settle_s / frame_s), 1)
        self.max_gap = config.max_gap_s / frame_s
        longest_s = commands.max_command_duration_s
        self.max_frames = (config.max_command_duration_s if longest_s is None else longest_s) / frame_s
        self.isolation = self.hesitation = 0
        if UNKNOWN in self.units:
            self.unknown = self.units.index(UNKNOWN)
            self.isolation = round(config.isolation_s / frame_s)
            waits_s = config.hesitation_s if commands.hesitation_s is None else commands.hesitation_s
            self.hesitation = round(waits_s / frame_s)
        self.graph: SetGraph | None = None
        if any(spec.graph for spec in commands.commands):
            self.graph = SetGraph(commands)
            unknown = self.unknown if UNKNOWN in self.units else BLANK_INDEX
            fillers = commands.fillers if UNKNOWN in self.units else 0.0
            self.search = GraphSearch(self.graph, unknown, fillers, self.max_gap, self.max_frames)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; the next frame is frame 0."""
        nodes = len(self.tree.unit)
        if self.graph:
            self.search.reset()
        self.frame = 0
        self.said: Floats = np.zeros(nodes)  # P(the string ends with this prefix, its last unit in this frame)
        self.rest: Floats = np.zeros(nodes)  # the same, with blanks since
        self.said_age: Floats = np.zeros(nodes)  # expected frames since the first unit's spike
        self.rest_age: Floats = np.zeros(nodes)
        self.rest_gap: Floats = np.zeros(nodes)  # expected frames since the last unit
        self.before: Floats = np.zeros(len(self.units))  # probabilities of the previous frame
        self.known: deque[float] = deque(maxlen=self.isolation)  # P(no unknown word) of each of the last frames
        self.open: dict[int, Candidate] = {}
        self.waiting: list[Candidate] = []
        self.last_heard: dict[int, float] = {}  # command -> frame

    def accept(self, log_probs: NDArray[np.float32]) -> list[Command]:
        """log_probs: (N, V) of the next N frames -> the commands that they decide."""
        heard = []
        for probabilities in np.exp(log_probs.astype(np.float64)):
            self._advance(probabilities)
            self._close()
            heard += self._decide()
            self.frame += 1
        return heard

    def flush(self) -> list[Command]:
        """The stream has ended: decide what is still open."""
        self.waiting += self.open.values()
        self.open = {}
        return self._decide(final=True)

    def _advance(self, probabilities: Floats) -> None:
        """One frame of the recursion over the tree, and its flow into the ends of phrases."""
        tree = self.tree
        unit = probabilities[tree.unit]
        said_parent = np.where(tree.repeats, 0.0, self.said[tree.parent])
        rest_parent = self.rest[tree.parent]
        # A phrase may begin anywhere: unless its first unit was being said already.
        alone = math.prod(self.known)
        source = np.where(tree.starts, (1.0 - self.before[tree.unit]) * alone, said_parent + rest_parent)
        enter, stay = unit * source, unit * self.said
        age = said_parent * self.said_age[tree.parent] + rest_parent * self.rest_age[tree.parent]
        enter_age = np.where(tree.starts, 0.0, age / np.maximum(source, 1e-30) + 1.0)
        said = enter + stay
        total = self.said + self.rest
        safe = np.maximum(total, 1e-30)
        rest_age = (self.said * self.said_age + self.rest * self.rest_age) / safe + 1.0
        rest_gap = self.rest * self.rest_gap / safe + 1.0
        alive = (rest_gap <= self.max_gap) & (rest_age <= self.max_frames)
        self.said_age = (enter * enter_age + stay * (self.said_age + 1.0)) / np.maximum(said, 1e-30)
        self.rest = np.where(alive, probabilities[BLANK_INDEX] * total, 0.0)
        self.said, self.rest_age, self.rest_gap = said, rest_age, rest_gap
        self.said[0] = self.rest[0] = 0.0
        ends = self.search.advance(probabilities, self.before, alone, self.frame) if self.graph else []
        self.before = probabilities
        if self.isolation or self.hesitation:
            absent = 1.0 - float(probabilities[self.unknown])
            self.known.append(absent)
            hesitating = (c for c in self.waiting if self._hesitating(c, self._confidence(c)))
            for undecided in (*self.open.values(), *hesitating):
                undecided.alone *= absent
        for node in map(int, np.flatnonzero((enter > 1e-3) & (tree.command >= 0))):
            if candidate := self._candidate(node, float(enter[node])):
                candidate.add(float(enter[node]), self.frame, float(enter_age[node]))
        for node, flow, length in ends:
            if candidate := self._candidate(len(tree.unit) + node, flow):
                candidate.read(flow, self.search.reading(node))
                candidate.add(flow, self.frame, length)

    def _candidate(self, node: int, flow: float) -> Candidate | None:
        """The open candidate of a node, a new one where enough flows into it."""
        if node not in self.open and flow > 0.02:
            if node < len(self.tree.unit):
                command, depth = int(self.tree.command[node]), int(self.tree.depth[node])
            else:
                assert self.graph is not None
                command, depth = int(self.graph.command[node - len(self.tree.unit)]), 0
            self.open[node] = Candidate(node, command, depth, opened=self.frame)
        return self.open.get(node)

    def _close(self) -> None:
        """Candidates that have stopped growing wait for their decision."""
        settled, latest = self.frame - self.settle, self.frame - 4 * self.settle
        done = [c for c in self.open.values() if c.grown <= settled or c.opened < latest]
        for candidate in done:
            del self.open[candidate.node]
            if self._confidence(candidate) >= self.thresholds[candidate.command]:
                self.waiting.append(candidate)

    def _decide(self, final: bool = False) -> list[Command]:
        """Of overlapping candidates the longest phrase wins, then the likeliest; none is decided before its rivals."""
        heard = []
        waiting = sorted(self.waiting, key=lambda c: (-c.depth, -c.probability))
        self.waiting = []
        for candidate in waiting:
            command = candidate.command
            confidence = self._confidence(candidate)
            recent = self.last_heard.get(command, -np.inf)
            if (
                confidence < self.thresholds[command]
                or abs(candidate.spike - recent) < self.refractory_s / self.frame_s
            ):
                continue
            if any(candidate.overlaps(better, self.settle) for better in self.waiting):
                continue
            rivals = any(candidate.overlaps(rival, self.settle) for rival in self.open.values())
            if not final and (rivals or self._unsettled(candidate) or self._hesitating(candidate, confidence)):
                self.waiting.append(candidate)
                continue
            self.waiting.append(candidate)  # stands in the way of the worse ones of this round
            candidate.opened = -1
            self.last_heard[command] = max(candidate.spike, recent)
            heard.append(self._event(candidate, confidence))
        self.waiting = [c for c in self.waiting if c.opened >= 0]
        return sorted(heard, key=lambda event: event.end_s)

    def _unsettled(self, candidate: Candidate) -> bool:
        """Whether a longer phrase may still grow out of this one."""
        node = candidate.node
        again = self.open.get(node)
        if again and again.probability > 0.5 * candidate.probability:  # what may follow now follows that
            return False
        if self.graph and node >= len(self.tree.unit):
            inner = node - len(self.tree.unit)
            likely = min(candidate.probability, 1.0)
            return self.search.going_on(inner, candidate.spike, self.frame) > 0.1 * likely
        if node not in self.tree.beyond:
            return False
        alive = self.said + self.rest
        resting = alive[node] if self.frame - candidate.spike <= self.max_gap else 0.0
        return bool(resting + alive[self.tree.beyond[node]].max() > 0.1)

    def _hesitating(self, candidate: Candidate, confidence: float) -> bool:
        """Whether someone may still talk on, which a sure command behind this one is not."""
        if confidence >= self.config.sure or self.frame - candidate.spike >= self.hesitation:
            return False
        later = (other for other in self.waiting if other.spike > candidate.spike)
        return not any(self._confidence(other) >= self.config.sure for other in later)

    def _confidence(self, candidate: Candidate) -> float:
        probability, words = min(candidate.probability, 1.0), 1
        if candidate.reading:  # a sentence of many words is no less sure than the least sure of them
            probability, words = max(probability, candidate.reading.weakest), candidate.depth
        return self.config.confidence(probability * candidate.alone, words)

    def _event(self, candidate: Candidate, confidence: float) -> Command:
        node, slots = candidate.node, []
        if self.graph and candidate.reading:
            first_unit, last_unit = candidate.reading.first_unit, self.graph.unit[node - len(self.tree.unit)]
            slots = list(values(self.graph, candidate.reading.path))
        else:
            first_unit, last_unit = self.tree.first_unit[node], self.tree.unit[node]
        first, last = self.units[first_unit], self.units[last_unit]
        spike_s = self.first_frame_s + (candidate.spike + 0.5) * self.frame_s
        start_s = spike_s - candidate.length * self.frame_s - self.config.onset_s.get(first, DEFAULT_ONSET_S)
        end_s = spike_s - self.config.offset_s.get(last, 0.0)
        start_s = max(start_s, 0.0)
        sure = [(name, value, self.config.confidence(probability)) for name, value, probability in slots]
        name = self.commands.commands[candidate.command].name
        return Command(name, round(start_s, 3), round(max(end_s, start_s), 3), round(confidence, 4), *joined(sure))
