"""What was measured, and what follows from it: who counts, who is best, and by how much. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ENGINE = "kouling"
LEAST_SNR_DB = 20.0  # below it an answer is another answer, however fast it came
CANDID = ("static int8", "int4", "dynamic int4")  # schemes that may fall below it: then shown, but no failure
OWN = ("int8", "int4")  # the engine's schemes: each against the best peer, whatever that one's scheme is
# How many times faster than the best peer the engine is meant to be: model, kind.
AIMS = {
    ("en-base", "step"): 4.0,
    ("en-small", "step"): 5.0,
    ("en-base", "500"): 2.0,
    ("en-small", "500"): 2.0,
}


@dataclass(frozen=True)
class Row:
    """One variant on one graph."""

    model: str
    kind: str  # "step", "300", "500"
    runtime: str
    scheme: str
    setting: str
    host: str  # the language that calls it and reads the clock
    snr_db: float  # of the log-probabilities, against PyTorch's
    calls: int
    median_us: float
    p5_us: float
    p95_us: float
    memory_kb: dict[str, int]  # of the whole process: resident, anonymous, private_dirty, peak
    before_kb: dict[str, int]  # the same before it had a model; empty where that is nothing

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (f"{self.runtime} {self.scheme}", self.setting)))

    @property
    def counts(self) -> bool:
        return self.snr_db >= LEAST_SNR_DB

    def model_kb(self, kind: str) -> int:
        """What the model adds to the process. A peak is counted from what was resident before."""
        before = self.before_kb.get("resident" if kind == "peak" else kind, 0)
        return self.memory_kb[kind] - before


@dataclass(frozen=True)
class Floor:
    """What a call costs at least, in microseconds: the larger of arithmetic and reading the weights once."""

    arithmetic_us: float
    reading_us: float
    amx_us: float | None  # the arithmetic in tiles, which one frame alone cannot fill; None where there are none

    @property
    def least_us(self) -> float:
        return max(self.arithmetic_us, self.reading_us)


@dataclass(frozen=True)
class Comparison:
    """The engine against its best peer, on one graph."""

    model: str
    kind: str
    engine: Row
    peer: Row | None  # None where no peer gave a right answer
    from_python: float | None  # the same with Python as the host of both
    floor: Floor | None

    @property
    def ratio(self) -> float | None:
        return self.peer.median_us / self.engine.median_us if self.peer else None

    @property
    def above_floor(self) -> float | None:
        return self.engine.median_us / self.floor.least_us if self.floor else None

    @property
    def aim(self) -> float | None:
        return AIMS.get((self.model, self.kind))


@dataclass(frozen=True)
class Result:
    machine: dict[str, Any]
    versions: dict[str, str]
    rounds: int
    frames: dict[str, int]  # of a call: "en-small 500" -> 501
    rows: list[Row]
    work: dict[str, Any]  # of a model: multiply-accumulates of an encoder frame, bytes of its weights
    peaks: dict[str, Any]  # what floor.c found
    floors: dict[str, Floor]  # "en-small 500"
    failures: dict[str, str]  # what could not be measured, and why

    def comparisons(self) -> list[Comparison]:
        """Each graph in int8, beside the floor of int8 weights, and then in int4."""
        asked = [(*graph.split(), scheme, self.floors.get(graph)) for scheme in OWN for graph in self.frames]
        found = [compare(self.rows, *each[:3], each[3] if each[2] == OWN[0] else None) for each in asked]
        return [each for each in found if each]


def best_peer(rows: Iterable[Row], model: str, kind: str, host: str | None = None) -> Row | None:
    """The fastest one that is not the engine and whose answer is right."""
    peers = [
        row
        for row in rows
        if (row.model, row.kind) == (model, kind) and row.runtime != ENGINE and row.counts and host in (None, row.host)
    ]
    return min(peers, key=lambda row: row.median_us, default=None)


def compare(rows: Iterable[Row], model: str, kind: str, scheme: str, floor: Floor | None = None) -> Comparison | None:
    """None where the engine itself was not measured in that scheme, or was wrong."""
    rows, wanted = list(rows), (model, kind, ENGINE, scheme)
    engines = {row.host: row for row in rows if (row.model, row.kind, row.runtime, row.scheme) == wanted and row.counts}
    if "C" not in engines:
        return None
    python, engine = best_peer(rows, model, kind, "Python"), engines.get("Python")
    from_python = python.median_us / engine.median_us if python and engine else None
    return Comparison(model, kind, engines["C"], best_peer(rows, model, kind), from_python, floor)


def wrong(rows: Iterable[Row]) -> list[Row]:
    """Those whose answer should be right and is not."""
    return [row for row in rows if not row.counts and row.scheme not in CANDID]
