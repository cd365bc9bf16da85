"""Budgets: every way to write one, and every mistake refused in one line that says what is allowed."""

from __future__ import annotations

import pytest

from kouling.measure import budget
from kouling.measure.budget import Verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6MB", 6_000_000), ("6 mb", 6_000_000), ("1.5KB", 1500), ("2MiB", 2 * 1024**2), ("512KiB", 524288), ("7B", 7)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert budget.parse_memory(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("100ms", 100), ("50us", 0.05), ("50 µs", 0.05), ("0.1 s", 100)])
def test_times_are_read(text: str, expected: float) -> None:
    assert budget.parse_latency(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["6 bananas", "-1MB", "0MB", "MB", "6", "", "nanMB", "6MB 7MB", "1e3MB", "100ms", "٣MB"]
)
def test_nonsense_for_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--memory is .*; allowed: a size above 0 such as 6MB.*$") as raised:
        budget.parse_memory(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["6 bananas", "-1ms", "0ms", "ms", "6", "6MB", "1 min"])
def test_nonsense_for_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--latency is .*; allowed: a time above 0 such as 100ms.*$"):
        budget.parse_latency(text)


def test_a_budget_is_kept_up_to_its_limit() -> None:
    assert Verdict("memory", 100, 100, "bytes").passed
    assert not Verdict("memory", 100, 101, "bytes").passed
