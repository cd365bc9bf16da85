"""Intervals agree with the tables of their authors, and hold what they promise."""

from __future__ import annotations

import pytest

from kouling.measure.intervals import NONE_SEEN, poisson, wilson


@pytest.mark.parametrize(
    ("count", "low", "high"),  # Garwood 1936, as tabulated: two-sided 95 %
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (2, 0.242, 7.225), (10, 4.795, 18.39), (100, 81.36, 121.63)],
)
def test_the_poisson_interval_is_exact(count: int, low: float, high: float) -> None:
    assert poisson(count) == (pytest.approx(low, rel=2e-3), pytest.approx(high, rel=2e-3))


def test_the_poisson_interval_of_many_is_near_the_normal_one() -> None:
    low, high = poisson(10_000)
    assert low == pytest.approx(10_000 - 196, abs=5) and high == pytest.approx(10_000 + 196, abs=5)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0, 1)],
)
def test_the_wilson_interval_is_that_of_newcombe_1998(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_three_are_expected_at_most_where_none_was_seen() -> None:
    assert NONE_SEEN == pytest.approx(3.0, abs=0.01)
