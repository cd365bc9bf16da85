"""What is heard below the thresholds: the trade of misses for false alarms, its times, and what was almost heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, commands
from kouling.commands import Command
from kouling.measure import near
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.detection import LOWEST, Heard, det, detection_times, listen, recognizer_with, thresholds_of
from kouling.measure.near import ALARM, ALMOST, MISSED, excerpt

Tune = Callable[..., NDArray[np.int16]]


def heard(label: str, *events: tuple[str, float], seconds: float = 3600.0) -> Heard:
    return Heard(label, f"{label}/x.wav", seconds, tuple(Command(n, 0.1, 0.5, c) for n, c in events))


def test_the_trade_at_no_shift_is_that_of_the_thresholds() -> None:
    thresholds = {"go": 0.5, "stop": 0.9}
    clips = [heard("go", ("go", c)) for c in (0.3, 0.6, 0.7)] + [heard("stop", ("stop", 0.8)), heard("stop")]
    running = [heard(UNKNOWN, ("go", 0.4), ("go", 0.95), ("stop", 0.85), ("stop", 0.95))]
    points = det(clips, running, thresholds)
    (at_zero,) = [point for point in points if point.shift == 0]
    assert (at_zero.misses, at_zero.alarms) == (pytest.approx(3 / 5), 2)
    assert all(a.misses <= b.misses and a.alarms >= b.alarms for a, b in zip(points, points[1:], strict=False))
    assert points[0].misses == pytest.approx(1 / 5) and points[0].alarms == 4  # stop was not heard at all in one


def test_no_point_lies_below_what_was_listened_for() -> None:
    points = det([heard("go", ("go", 0.03))], [heard(UNKNOWN, ("go", 0.03))], {"go": 0.5})
    assert min(point.shift for point in points) == pytest.approx(np.log(LOWEST / (1 - LOWEST)))


@pytest.fixture
def clips(tmp_path: Path, tune: Tune) -> Path:
    for label in ("low", "high", "middle"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for take in range(3):
            audio.write(tmp_path / "clips" / label / f"{take}.wav", tune(label))
    return tmp_path / "clips"


def test_thresholds_are_the_commands_own_then_the_set_s_then_the_model_s(fake_runner: Callable[..., Any]) -> None:
    runner = fake_runner(threshold=0.3)
    units = runner.info.units
    table: dict[str, Any] = {"command": [{"name": "low", "threshold": 0.7}, {"name": "high"}]}
    assert thresholds_of(runner.info, commands.parse(table, units, "")) == {"low": 0.7, "high": 0.3}
    table["threshold"] = 0.5
    chosen = commands.parse(table, units, "")
    assert thresholds_of(runner.info, chosen) == {"low": 0.7, "high": 0.5}
    low = recognizer_with(runner, chosen, LOWEST)
    assert set(thresholds_of(runner.info, low.command_set).values()) == {LOWEST}


def test_what_cannot_be_read_is_listed(fake_runner: Callable[..., Any], clips: Path) -> None:
    runner = fake_runner()
    heard_by = recognizer_with(runner, commands.every_unit(runner.info.units), 0.5)
    (clips / "low" / "bad.wav").write_text("not a recording")
    skipped: list[str] = []
    assert len(listen(heard_by, clips, skipped)) == 9 and len(skipped) == 1 and "bad.wav" in skipped[0]
    for file in clips.glob("*/?.wav"):
        file.unlink()
    with pytest.raises(ValueError, match="none of its 1 recordings can be read; the first: .*low/bad.wav: not a"):
        listen(heard_by, clips, [])


@pytest.mark.parametrize("delay_s", [0.0, 0.4])
def test_times_run_from_the_end_of_the_word(fake_runner: Callable[..., Any], clips: Path, delay_s: float) -> None:
    runner = fake_runner(delay_s)
    heard_by = recognizer_with(runner, commands.every_unit(runner.info.units), 0.5)
    times = detection_times(heard_by, clips, {"low/0.wav", "high/2.wav"})
    assert len(times) == 2, times
    assert all(0.05 + delay_s < time_s < 0.5 + delay_s for time_s in times), times


# Near misses


def test_the_nearest_of_each_kind_are_found() -> None:
    said: list[tuple[str, list[tuple[str, float]]]] = [
        ("go", [("go", 0.1)]),
        ("go", [("go", 0.4), ("stop", 0.45)]),
        ("go", [("go", 0.3), ("go", 0.9)]),  # heard in the end
        (UNKNOWN, [("go", 0.2), ("stop", 0.99), ("go", 0.51)]),
    ]
    recordings = [
        Heard(label, f"{label}/{number}", 9.0, tuple(Command(n, at, at + 0.5, c) for at, (n, c) in enumerate(events)))
        for number, (label, events) in enumerate(said)
    ]
    again = [recordings[-1]]  # the same recording in another folder: once is enough
    found = near.find({Path("d"): recordings, Path("e"): again}, {"go": 0.5, "stop": 0.5}, most=2)
    assert [(n.kind, n.event.name, n.event.confidence) for n in found] == [
        (MISSED, "go", 0.4),
        (MISSED, "go", 0.1),
        (ALMOST, "stop", 0.45),
        (ALMOST, "go", 0.2),
        (ALARM, "stop", 0.99),
        (ALARM, "go", 0.51),
    ]


def test_clips_of_near_misses_hold_them(tmp_path: Path, tune: Tune) -> None:
    (tmp_path / "talk" / "a").mkdir(parents=True)
    audio.write(tmp_path / "talk" / "a" / "x.wav", tune("", "", "low", "", slot_s=2.0))
    found = near.find(
        {tmp_path / "talk": [Heard(UNKNOWN, "a/x.wav", 8.0, (Command("low", 4.9, 5.1, 0.4),))]}, {"low": 0.5}
    )
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "old.wav").touch()
    (written,) = near.write_clips(found, tmp_path / "near")
    assert [path.name for path in (tmp_path / "near").iterdir()] == [written.clip.removeprefix("near/")]
    samples = audio.read(tmp_path / written.clip)
    assert len(samples) == round(1.4 * 16000) and np.abs(samples.astype(int)).max() > 7000


def test_an_excerpt_is_the_same_from_blocks_of_any_size() -> None:
    samples = np.arange(32000, dtype=np.int16)
    for size in (700, 5000, 40000):
        blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
        assert np.array_equal(excerpt(blocks, 0.5, 1.25), samples[8000:20000])
        assert np.array_equal(excerpt(blocks, -1.0, 0.1), samples[:1600])
        assert np.array_equal(excerpt(blocks, 1.9, 9.0), samples[30400:])
