"""Budgets that a user states: `6MB`, `100ms`; and whether figures keep them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Verdict:
    budget: str  # "memory" or "latency"
    limit: float
    found: float
    unit: str  # "bytes" or "ms"

    @property
    def passed(self) -> bool:
        return self.found <= self.limit

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def parse_memory(text: str) -> int:
    """`6MB`, `512 KiB` -> bytes; 1 MB is 1,000,000 bytes, 1 MiB 1,048,576. Raises: ValueError with what is allowed."""
    return math.floor(_parse(text, BYTES, f"--memory is {text!r}; allowed: a size above 0 such as 6MB, 512KB or 2MiB"))


def parse_latency(text: str) -> float:
    """`100ms`, `50 us`, `0.1s` -> milliseconds. Raises: ValueError saying what is allowed."""
    return _parse(text, MILLISECONDS, f"--latency is {text!r}; allowed: a time above 0 such as 100ms, 50us or 0.1s")


def _parse(text: str, units: dict[str, Any], complaint: str) -> float:
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([^\d\s.]+)\s*", text)
    by_name = {name.lower(): value for name, value in units.items()}
    if not found or found[2].lower() not in by_name or not 0 < float(found[1]) < math.inf:
        raise ValueError(f"{complaint} (units: {', '.join(units)})")
    return float(found[1]) * float(by_name[found[2].lower()])
