"""Thresholds keep the rate that was asked for, claim no more than the data shows, and leave the set's text alone."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, commands
from kouling.commands import Command, CommandSet
from kouling.measure import thresholds
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.detection import Heard
from kouling.measure.thresholds import CannotReach, calibrate, choose, tail_rates, write

Tune = Callable[..., NDArray[np.int16]]
NAMES = ["go", "stop"]


def heard(label: str, *events: tuple[str, float], seconds: float = 1.0) -> Heard:
    return Heard(label, f"{label}/x.wav", seconds, tuple(Command(n, 0.1, 0.5, c) for n, c in events))


def sure(confidences: Sequence[float]) -> list[Heard]:
    return [heard(name, (name, c)) for name in NAMES for c in confidences]


# Choosing


def test_a_command_with_false_alarms_gets_the_higher_threshold() -> None:
    running = [heard(UNKNOWN, ("go", 0.3 + 0.05 * i), seconds=3600) for i in range(10)]
    found = choose(sure([0.4, 0.8, 0.97, 0.98]), running, NAMES, 0.1, 10, allowed=1)
    assert found is not None and found["go"] > 0.7 and found["go"] > found["stop"]


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_no_more_alarms_than_allowed_are_left(allowed: int) -> None:
    rng = np.random.default_rng(allowed)
    running = [heard(UNKNOWN, (NAMES[i % 2], float(c)), seconds=1800) for i, c in enumerate(rng.uniform(0.2, 0.95, 30))]
    found = choose(sure([0.5, 0.9, 0.98, 0.985]), running, NAMES, allowed / 15 + 1e-6, 15, allowed)
    assert found is not None
    assert sum(e.confidence >= found[e.name] for h in running for e in h.events) <= allowed


def test_alarms_that_are_surer_than_any_threshold_cannot_be_kept_out() -> None:
    running = [heard(UNKNOWN, ("go", 0.999), seconds=3600)] * 3
    assert choose(sure([0.9]), running, NAMES, 0.5, 3, allowed=1) is None
    assert choose(sure([0.9]), running, NAMES, 1.0, 3, allowed=3) is not None


def test_others_words_taken_for_a_command_raise_its_threshold() -> None:
    clips = sure([0.9] * 20) + [heard(UNKNOWN, ("go", 0.6))] * 20
    found = choose(clips, [heard(UNKNOWN, seconds=36_000)], NAMES, 100, 10, allowed=1000)
    assert found is not None and 0.6 < found["go"] <= 0.9


def test_a_loose_rate_costs_no_clip() -> None:
    found = choose(sure([0.35, 0.9]), [heard(UNKNOWN, seconds=36_000)], NAMES, 50, 10, allowed=500)
    assert found is not None and max(found.values()) <= 0.35


def test_rates_fall_with_the_threshold_and_sum_to_those_heard() -> None:
    rng = np.random.default_rng(0)
    odds = np.exp(-np.log(4) + rng.exponential(1.0, 400))  # a tail of slope 1 from a confidence of 0.2 on
    rates = tail_rates([odds / (1 + odds), np.zeros(0), np.zeros(0)], hours=100)
    assert (np.diff(rates, axis=1) < 0).all()
    assert rates[:, 0].sum() == pytest.approx(4.0, rel=0.05)
    at = int(np.argmin(np.abs(thresholds.GRID - 0.8)))
    assert rates[:, at].sum() == pytest.approx((odds > 4).sum() / 100, rel=0.3)
    assert (rates[1] < rates[0] / 50).all()


# On recordings


@pytest.fixture
def chosen(fake_runner: Callable[..., Any]) -> tuple[Any, CommandSet]:
    runner = fake_runner()
    return runner, commands.parse({"command": [{"name": "low"}, {"name": "high"}]}, runner.info.units, "set")


@pytest.fixture
def clips(tmp_path: Path, tune: Tune) -> Path:
    for label in ("low", "high", "middle"):
        for take in range(3):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            audio.write(tmp_path / "clips" / label / f"{take}.wav", tune(label))
    return tmp_path / "clips"


@pytest.fixture
def talk(tmp_path: Path, tune: Tune) -> Path:
    """40 s in which the other word is said, and one of the commands once."""
    (tmp_path / "talk" / "any").mkdir(parents=True)
    audio.write(tmp_path / "talk" / "any" / "a.wav", tune(*["middle"] * 80))
    return tmp_path / "talk"


def test_what_is_promised_is_what_was_counted(chosen: tuple[Any, CommandSet], clips: Path, talk: Path) -> None:
    result = calibrate(*chosen, clips, talk, 300.0, [])
    assert result.proven and result.alarms == 0 and result.hours == pytest.approx(40 / 3600)
    assert [(each.name, each.clips, each.found) for each in result.commands] == [("low", 3, 3), ("high", 3, 3)]
    assert (result.clips, result.clips_wrong) == (3, 0)
    assert result.interval_per_hour == (0.0, pytest.approx(3.689 * 90, rel=1e-3))


def test_a_rate_that_the_speech_is_too_short_to_show_is_not_claimed(
    chosen: tuple[Any, CommandSet], clips: Path, talk: Path
) -> None:
    with pytest.raises(ValueError, match=r"cannot show 0.5 false alarms an hour: that takes 6.0 hours.*can show 270"):
        calibrate(*chosen, clips, talk, 0.5, [])
    assert not calibrate(*chosen, clips, talk, 0.5, [], unproven=True).proven


def test_a_rate_that_cannot_be_reached_says_what_can(
    chosen: tuple[Any, CommandSet], clips: Path, talk: Path, tune: Tune
) -> None:
    audio.write(talk / "any" / "b.wav", tune("low", "", "", "high", slot_s=2.0))
    with pytest.raises(CannotReach, match=r"every threshold at 0.99 there are 2 in 0.8 minutes, 150 an hour, and 100%"):
        calibrate(*chosen, clips, talk, 100, [], unproven=True)


def test_data_that_cannot_serve_is_refused(chosen: tuple[Any, CommandSet], clips: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    (clips / "low").rename(tmp_path / "low")
    (clips / "high").rename(tmp_path / "high")
    with pytest.raises(ValueError, match="no folder is named after a command; folders: middle; commands: low, high"):
        calibrate(*chosen, clips, None, 1e4, [])
    only.mkdir()
    (tmp_path / "low").rename(only / "low")
    with pytest.raises(ValueError, match="every recording says a command"):
        calibrate(*chosen, only, None, 1e4, [])
    (only / "low" / "bad.wav").write_text("not a recording")
    skipped: list[str] = []
    with pytest.raises(ValueError, match="every recording"):
        calibrate(*chosen, only, None, 1e4, skipped)
    assert len(skipped) == 1 and "bad.wav" in skipped[0]


# Writing

SET = """# Head
threshold = 0.6   # of all

[[command]]
name = "go"      # first
phrases = ["go",
  "go go", # inner
]

# about stop
[[command]]
name = "stop"
threshold = 0.4 # better one too many


[[command]]   # third
name = "left"
# the end"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("text", [SET, SET + "\n", 'command = [{name = "go"}, {name = "stop", threshold = 1}]'])
def test_only_thresholds_change(tmp_path: Path, text: str, line_end: str) -> None:
    path, out = tmp_path / "set.toml", tmp_path / "out.toml"
    path.write_bytes(text.replace("\n", line_end).encode())
    found = {"go": 0.111, "stop": 0.222, "left": 0.333}
    write(path, out, found)
    written = out.read_bytes().decode()
    table = tomllib.loads(written)
    assert all(entry["threshold"] == found[entry["name"]] for entry in table["command"])
    kept = [line for line in written.splitlines() if not line.startswith("threshold = 0.")]
    if text.startswith("#"):
        assert kept == [line for line in text.splitlines() if not line.startswith("threshold = 0.")]
        assert "threshold = 0.222 # better one too many" in written and "threshold = 0.6   # of all" in written
        assert written.count("\r\n") == (written.count("\n") if line_end == "\r\n" else 0)
    write(out, out, found)
    assert out.read_bytes().decode() == written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.toml", "set.toml"]
