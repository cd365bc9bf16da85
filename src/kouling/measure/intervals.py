"""How sure a count is: exact intervals for rates of rare events, Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964  # of 97.5 %
NONE_SEEN = -math.log(1 - CONFIDENCE)  # 3.0: events expected, at most, where none was seen, at 95 % confidence


def poisson(count: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval (Garwood 1936) of the expected number of events of which `count` were seen."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else _solve(lambda mean: 1 - _at_most(count - 1, mean) - tail, count)
    return low, _solve(lambda mean: tail - _at_most(count, mean), count)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The two-sided 95 % interval (Wilson 1927) of a share of which `right` of `total` were seen; (0, 1) of none."""
    if not total:
        return 0.0, 1.0
    share, z2 = right / total, NORMAL_QUANTILE**2
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_QUANTILE / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(center - half, 0.0), min(center + half, 1.0)


def _at_most(count: int, mean: float) -> float:
    """P(X <= count) of a Poisson variable."""
    if mean <= 0:
        return 1.0
    numbers = np.arange(count + 1)
    logs = numbers * math.log(mean) - mean - np.cumsum(np.log(np.maximum(numbers, 1)))
    return float(np.exp(logs).sum())


def _solve(rising: Callable[[float], float], count: int) -> float:
    low, high = 0.0, count + 10 * math.sqrt(count + 1) + 10
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
