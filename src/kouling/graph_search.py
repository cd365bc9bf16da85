"""The search of `decoder.py` over graphs: commands with slots, repetition or order.

A node has several nodes before it, so the flow into it is a sum. What is kept of each node are the same five numbers,
and the path by which most of its probability came: the units of slots on the way, and how sure each of them was. So
memory is bounded whatever the graph stands for, and nothing is expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kouling.commands import CommandSet
from kouling.slot_types import Value

MOST_PATH = 24  # units of slots that a path remembers
SAME_FRAMES = 4  # in which a sentence that begins twice with the same unit is one
LEAST_FLOW = 1e-4  # of a path that is worth keeping
PAST_WEAK = 0.5  # share of a reading that a weak word, not heard, was swallowed
SURE_LINK = 0.5  # of a path that is preferred to a shorter one
MOST_SLOTS = 12  # values that an event has; KOULING_MAX_SLOTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SetGraph:
    """The graphs of a command set's commands, side by side in arrays."""

    def __init__(self, commands: CommandSet) -> None:
        unit: list[int] = []
        command: list[int] = []
        before: list[int] = []
        share: list[float] = []
        before_at = [0]
        starts: list[int] = []
        ends: list[int] = []
        slot: list[int] = []
        self.opens: list[bool] = []
        self.piece: list[str] = []
        self.adds: list[int] = []
        self.slots: list[tuple[str, bool]] = []  # name, and whether its values are numbers
        self.range: dict[int, slice] = {}  # of each command that has one, its nodes
        for index, spec in enumerate(commands.commands):
            graph = spec.graph
            if graph is None:
                continue
            first = len(unit)
            unit += graph.unit
            command += [index] * len(graph.unit)
            for nodes, past in zip(graph.before, graph.past, strict=True):
                arcs = sorted([(first + node, 1.0) for node in nodes] + [(first + node, PAST_WEAK) for node in past])
                before += [node for node, _ in arcs]
                share += [each for _, each in arcs]
                before_at.append(len(before))
            starts += [first + node for node in graph.starts]
            ends += [first + node for node in graph.ends]
            slot += [each + len(self.slots) if each >= 0 else -1 for each in graph.slot]
            self.opens += graph.opens
            self.piece += graph.piece
            self.adds += graph.adds
            self.slots += graph.slots
            self.range[index] = slice(first, len(unit))
        self.unit: Ints = np.array(unit, dtype=np.int64)
        self.command: Ints = np.array(command, dtype=np.int64)
        self.slot: Ints = np.array(slot, dtype=np.int64)
        self.starts = np.isin(np.arange(len(unit)), starts)
        self.ends = np.isin(np.arange(len(unit)), ends)
        # Arcs by the node that they lead to.
        self.before: Ints = np.array(before, dtype=np.int64)
        self.share: Floats = np.array(share, dtype=np.float64)  # of what is before them that flows on
        self.before_at: Ints = np.array(before_at, dtype=np.int64)
        self.after: Ints = np.repeat(np.arange(len(unit)), np.diff(self.before_at))
        self.reached: Ints = np.flatnonzero(np.diff(self.before_at))  # nodes with one before them
        self.same = self.unit[self.before] == self.unit[self.after]  # a unit that follows itself needs a blank between
        self.goes_on = np.isin(np.arange(len(unit)), before)

    def sums(self, of_arcs: Floats) -> Floats:
        """Of each node's arcs."""
        total = np.zeros(len(self.unit))
        if len(self.reached):
            total[self.reached] = np.add.reduceat(of_arcs, self.before_at[self.reached])
        return total

    def best(self, rank: Ints, of_arcs: Floats) -> tuple[Ints, Floats, Ints]:
        """Of each node's arcs those of the highest rank, of these the largest, of equals the first: its rank, its
        value, and the node it comes from, or -1."""
        highest, most = np.zeros(len(self.unit), dtype=np.int64), np.zeros(len(self.unit))
        source = np.full(len(self.unit), -1)
        if len(self.reached):
            at = self.before_at[self.reached]
            highest[self.reached] = np.maximum.reduceat(rank, at)
            ranked = np.where(rank == highest[self.after], of_arcs, -1.0)
            most[self.reached] = np.maximum.reduceat(ranked, at)
            places = np.where(ranked == most[self.after], np.arange(len(ranked)), len(ranked))
            source[self.reached] = self.before[np.minimum.reduceat(places, at)]
        return highest, most, source


@dataclass(frozen=True)
class Reading:
    """How the sentence at a node was read."""

    born: int  # frame
    depth: int  # units
    first_unit: int
    weakest: float  # how sure the least sure of them is
    path: tuple[tuple[int, float], ...]  # nodes of slots, and how sure the unit of each was


class GraphSearch:
    """The state of one stream in the graphs of its command set."""

    def __init__(self, graph: SetGraph, unknown: int, fillers: float, max_gap: float, max_frames: float) -> None:
        """unknown: the unit of unknown words; fillers: the share of it that is silence between words."""
        self.graph = graph
        self.unknown = unknown
        self.fillers = fillers
        self.max_gap = max_gap
        self.max_frames = max_frames
        self.reset()

    def reset(self) -> None:
        nodes = len(self.graph.unit)
        self.said: Floats = np.zeros(nodes)  # as the decoder has them of the tree
        self.rest: Floats = np.zeros(nodes)
        self.said_age: Floats = np.zeros(nodes)
        self.rest_age: Floats = np.zeros(nodes)
        self.rest_gap: Floats = np.zeros(nodes)
        # Of each node's path: what has flowed into the node since the path came there, what there was to flow, the
        # frame in which it came, from which node and whether that had the same path, units, the first of them, and
        # those of slots before this node.
        self.flow: Floats = np.zeros(nodes)
        self.base: Floats = np.ones(nodes)
        self.born: Ints = np.full(nodes, -1 - SAME_FRAMES)
        self.via: Ints = np.full(nodes, -1)
        self.via_born: Ints = np.zeros(nodes, dtype=np.int64)
        # How much of it was kept through the silence behind this node's unit, and how sure the least sure link of the
        # path is, up to this node.
        self.kept: Floats = np.ones(nodes)
        self.weakest: Floats = np.ones(nodes)
        self.depth: Ints = np.zeros(nodes, dtype=np.int64)
        self.first: Ints = np.zeros(nodes, dtype=np.int64)
        self.count: Ints = np.zeros(nodes, dtype=np.int64)
        self.path: NDArray[np.int32] = np.zeros((nodes, MOST_PATH), dtype=np.int32)
        self.sure: NDArray[np.float32] = np.zeros((nodes, MOST_PATH), dtype=np.float32)

    def advance(
        self, probabilities: Floats, before: Floats, alone: float, frame: int
    ) -> list[tuple[int, float, float]]:
        """One frame -> (node, flow, frames since the first unit) of each end of a command that something flows into.

        probabilities, before: (V,) of this frame and the one before. alone: P(no unknown word just before).
        """
        graph = self.graph
        unit = probabilities[graph.unit]
        said_flow = np.where(graph.same, 0.0, self.said[graph.before] * graph.share)
        rest_flow = self.rest[graph.before] * graph.share
        arcs = said_flow + rest_flow
        total = graph.sums(arcs)
        ages = graph.sums(said_flow * self.said_age[graph.before] + rest_flow * self.rest_age[graph.before])
        # Two readings of the same words would count twice: a node is reached at most once.
        reached = np.minimum(total, 1.0)
        # A sentence may begin anywhere: unless its first unit was being said already, or is read as a later one.
        fresh = np.where(graph.starts, np.maximum((1.0 - before[graph.unit]) - reached, 0.0) * alone, 0.0)
        source = reached + fresh
        enter, stay = unit * source, unit * self.said
        share = reached / np.maximum(total, 1e-30)
        enter_age = (ages * share + reached) / np.maximum(source, 1e-30)
        said = np.minimum(enter + stay, unit)
        mass = self.said + self.rest
        safe = np.maximum(mass, 1e-30)
        rest_age = (self.said * self.said_age + self.rest * self.rest_age) / safe + 1.0
        rest_gap = self.rest * self.rest_gap / safe + 1.0
        alive = (rest_gap <= self.max_gap) & (rest_age <= self.max_frames)
        self.said_age = (enter * enter_age + stay * (self.said_age + 1.0)) / np.maximum(enter + stay, 1e-30)
        # An unknown word has its price once, however many frames it takes.
        going_on = float(before[self.unknown])
        filler = going_on + (1.0 - going_on) * self.fillers if self.fillers else 0.0
        quiet = min(float(probabilities[0] + filler * probabilities[self.unknown]), 1.0)
        self.rest = np.where(alive, quiet * mass, 0.0)
        self.said, self.rest_age, self.rest_gap = said, rest_age, rest_gap
        taken = self._follow(arcs, fresh, source, enter, enter > np.maximum(stay + self.rest, LEAST_FLOW), frame)
        self.kept = np.where(taken, 1.0, self.kept * np.minimum(quiet + unit, 1.0))
        ends = np.flatnonzero((enter > 1e-3) & graph.ends)
        return [(int(node), float(enter[node]), float(enter_age[node])) for node in ends]

    def _follow(
        self, arcs: Floats, fresh: Floats, source: Floats, enter: Floats, taken: NDArray[np.bool_], frame: int
    ) -> NDArray[np.bool_]:
        """Where more flows in than was there, the path is another: of those whose every link is sure the longest, else
        the one by which most of it came. A product of probabilities would favour what says least."""
        graph = self.graph
        link = np.minimum(self.weakest, self.how_sure(np.arange(len(fresh))) * self.kept)
        sure_ones = (link[graph.before] >= SURE_LINK) & (arcs > LEAST_FLOW)
        rank, most, via = graph.best(np.where(sure_ones, self.depth[graph.before], 0), arcs)
        via = np.where((rank > 0) | (most >= fresh), via, -1)
        via_born = np.where(via >= 0, self.born[via], frame)
        # A unit that is said in several frames comes by the same path in all of them.
        taken &= (via != self.via) | np.where(via >= 0, via_born != self.via_born, frame - self.born > SAME_FRAMES)
        # Behind a node that something is repeated from, whose own path is another from this frame on.
        taken &= ~((via > np.arange(len(via))) & taken[via])
        nodes = np.flatnonzero(taken & (via >= 0))
        earlier = via[nodes]
        count = self.count[earlier]
        path, sure = self.path[earlier], self.sure[earlier]
        noted = (graph.slot[earlier] >= 0) & (count < MOST_PATH)
        path[noted, count[noted]] = earlier[noted]
        sure[noted, count[noted]] = self.how_sure(earlier[noted])
        depth, first = self.depth[earlier] + 1, self.first[earlier]
        self.path[nodes], self.sure[nodes], self.count[nodes] = path, sure, count + noted
        self.depth[nodes], self.first[nodes], self.weakest[nodes] = depth, first, link[earlier]
        anew = np.flatnonzero(taken & (via < 0))
        self.depth[anew], self.first[anew], self.weakest[anew], self.count[anew] = 1, graph.unit[anew], 1.0, 0
        self.flow = np.where(taken, 0.0, self.flow) + enter
        self.base = np.where(taken, source, self.base)
        self.born, self.via = np.where(taken, frame, self.born), np.where(taken, via, self.via)
        self.via_born = np.where(taken, via_born, self.via_born)
        return taken

    def how_sure(self, nodes: Ints) -> Floats:
        """Of the probability that there was before each node, how much has flowed into it."""
        return np.minimum(self.flow[nodes] / np.maximum(self.base[nodes], 1e-30), 1.0)

    def reading(self, node: int) -> Reading:
        count = int(self.count[node])
        path = [*zip(self.path[node, :count].tolist(), self.sure[node, :count].tolist(), strict=True)]
        sure = float(self.how_sure(np.array([node]))[0])
        if self.graph.slot[node] >= 0 and count < MOST_PATH:
            path.append((node, float(np.float32(sure))))
        weakest = min(float(self.weakest[node]), sure)
        return Reading(int(self.born[node]), int(self.depth[node]), int(self.first[node]), weakest, tuple(path))

    def going_on(self, node: int, spike: float, frame: int) -> float:
        """The largest probability of a node from which the sentence at this one may go on: of the same command, begun
        no later than the spike that this one had, with its last unit no earlier. The same words may be elsewhere in the
        graph too, as "two" where "two hundred" begins."""
        nodes = self.graph.range[int(self.graph.command[node])]
        said = np.where(frame - self.said_age[nodes] <= spike + 1.0, self.said[nodes], 0.0)
        resting = (frame - self.rest_age[nodes] <= spike + 1.0) & (frame - self.rest_gap[nodes] >= spike - 1.0)
        alive = said + np.where(resting, self.rest[nodes], 0.0)
        return float(np.where(self.graph.goes_on[nodes], alive, 0.0).max())


def values(graph: SetGraph, path: Sequence[tuple[int, float]]) -> Iterator[tuple[str, Value, float]]:
    """(name, value, probability) of each slot on a path, in the order in which they were said."""
    made: list[tuple[int, list[int], float]] = []
    for node, sure in path:
        slot = int(graph.slot[node])
        if graph.opens[node] or not made or made[-1][0] != slot:
            made.append((slot, [], 1.0))
        _, nodes, probability = made[-1]
        made[-1] = (slot, [*nodes, node], probability * sure)
    for slot, nodes, probability in made[:MOST_SLOTS]:
        name, is_number = graph.slots[slot]
        value = sum(graph.adds[n] for n in nodes) if is_number else "".join(graph.piece[n] for n in nodes)
        yield name, value, probability
