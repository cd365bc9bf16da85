"""What an export is told of itself beside PyTorch."""

from __future__ import annotations

import pytest

from kouling.commands import Command
from kouling.deploy.graph import FLOAT, STATIC
from kouling.deploy.parity import Parity, differences

GO, STOP = Command("go", 1.0, 1.4, 0.9), Command("stop", 3.0, 3.5, 0.9)


@pytest.mark.parametrize(
    ("scheme", "snr_db", "commands", "differing", "passed"),
    [
        (STATIC, 25.0, 136, 6, True),  # 5 % of 136 and a bit
        (STATIC, 25.0, 136, 8, False),
        (STATIC, 17.9, 136, 0, False),
        (STATIC, 25.0, 0, 1, False),  # heard something where PyTorch heard nothing
        (FLOAT, 80.0, 136, 1, False),
        (FLOAT, 80.0, 136, 0, True),
    ],
)
def test_an_export_passes_where_it_hears_what_pytorch_hears(
    scheme: str, snr_db: float, commands: int, differing: int, passed: bool
) -> None:
    assert Parity(scheme, 60.0, snr_db, commands, ("a line",) * differing).passed is passed


def test_where_no_command_was_heard_the_line_says_that_no_decision_was_compared() -> None:
    line = Parity(STATIC, 60.0, 25.0, 0, ()).line
    assert "no decision was compared" in line and "--recordings" in line and "0 commands" not in line
    for other in (Parity(STATIC, 60.0, 25.0, 136, ()), Parity(STATIC, 60.0, 25.0, 0, ("a line",))):
        assert "decisions differ next to" in other.line


def test_decisions_differ_by_name_or_by_time() -> None:
    late = Command("stop", 3.4, 3.9, 0.9)
    assert differences([GO, STOP], [GO, STOP]) == []
    assert differences([GO, late], [GO, STOP]) == ["stop at 3.00 s: PyTorch alone", "stop at 3.40 s: not PyTorch"]
    assert differences([], [GO]) == ["go at 1.00 s: PyTorch alone"]
    assert differences([GO, GO], [GO]) == ["go at 1.00 s: not PyTorch"]
