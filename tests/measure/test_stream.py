"""A composed stream holds what it says, and events are matched with it one to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio
from kouling.commands import Command
from kouling.measure.noise import colored_noise
from kouling.measure.stream import TOLERANCE_S, Spoken, StreamResult, compose, false_alarms, hear, score
from kouling.recognizer import Recognizer

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]
NAMES = ["low", "high"]


@pytest.fixture
def heard_by(fake_runner: Callable[..., Any]) -> Recognizer:
    return Recognizer(fake_runner())


@pytest.fixture
def clips(tmp_path: Path, tune: Tune) -> Path:
    for label in ("low", "middle", "high"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for take in range(6):
            audio.write(tmp_path / "clips" / label / f"{take}.wav", tune(label))
    return tmp_path / "clips"


def event(name: str, start_s: float, end_s: float) -> Command:
    return Command(name, start_s, end_s, 0.9)


# Composing


@pytest.mark.parametrize("count", [5, 12, 20])
def test_commands_are_where_the_list_says_and_do_not_overlap(heard_by: Recognizer, clips: Path, count: int) -> None:
    samples, spoken = compose(clips, NAMES, 0.25, count, snr_db=60.0, noises=None)
    assert samples.dtype == np.int16 and len(samples) == 15 * 16000
    assert len(spoken) == count and {said.name for said in spoken} == set(NAMES)
    assert all(before.end_s <= after.start_s for before, after in zip(spoken, spoken[1:], strict=False))
    assert 0 <= spoken[0].start_s and spoken[-1].end_s <= 15
    quiet = samples.copy()
    for said in spoken:
        first, last = round(said.start_s * 16000), round(said.end_s * 16000)
        assert said.end_s - said.start_s == pytest.approx(0.2, abs=0.05)
        assert np.abs(samples[first:last].astype(int)).max() > 7000
        (heard,) = hear(heard_by, samples[first:last])
        assert heard.name == said.name
        quiet[max(first - 480, 0) : last + 480] = 0
    assert np.abs(quiet.astype(int)).max() < 100  # nothing anywhere else


def test_a_composed_stream_is_heard_whole(heard_by: Recognizer, clips: Path) -> None:
    samples, spoken = compose(clips, NAMES, 0.25, 10, snr_db=60.0, noises=None)
    result = score(hear(heard_by, samples), spoken, 15.0)
    assert (result.spoken, result.found, result.false_alarms) == (10, 10, 0)


@pytest.mark.parametrize("recorded", [False, True])
def test_noise_runs_through_the_stream_at_its_snr(clips: Path, tmp_path: Path, recorded: bool) -> None:
    noises = None
    if recorded:
        noises = tmp_path / "noises"
        (noises / "hum").mkdir(parents=True)
        for number, level in enumerate((100, 1000)):  # brought to the same level
            audio.write(noises / "hum" / f"{number}.wav", (colored_noise(30000, 1.0, number) * level).astype(np.int16))
    samples, spoken = compose(clips, NAMES, 0.25, 5, snr_db=10.0, noises=noises)
    speech = np.zeros(len(samples), dtype=bool)
    for said in spoken:
        speech[round(said.start_s * 16000) - 1600 : round(said.end_s * 16000) + 1600] = True
    noise = np.where(speech, np.nan, samples.astype(np.float64)).reshape(15, 16000)
    levels_db = 10 * np.log10(np.nanmean(noise**2, axis=1))
    clip_db = 10 * np.log10(np.mean((8000 * np.sin(np.arange(1000)) * np.hanning(1000) ** 0.5) ** 2))
    assert clip_db - 10 * np.log10(np.nanmean(noise**2)) == pytest.approx(10.0, abs=1.0)
    assert np.ptp(levels_db) < 6.0


def test_every_command_is_at_the_snr_however_it_was_recorded(clips: Path, tune: Tune) -> None:
    for label in NAMES:
        for take in range(6):
            level = 0.05 + 0.15 * take
            audio.write(clips / label / f"{take}.wav", (tune(label) * level).astype(np.int16))
    samples, spoken = compose(clips, NAMES, 0.25, 12, snr_db=60.0, noises=None)
    peaks = [np.abs(samples[round(s.start_s * 16000) : round(s.end_s * 16000)].astype(int)).max() for s in spoken]
    assert max(peaks) < 1.1 * min(peaks)


def test_the_same_seed_makes_the_same_stream(clips: Path) -> None:
    first, spoken = compose(clips, NAMES, 0.25, 5, 10.0, None, seed=1)
    again, spoken_again = compose(clips, NAMES, 0.25, 5, 10.0, None, seed=1)
    other, spoken_otherwise = compose(clips, NAMES, 0.25, 5, 10.0, None, seed=2)
    np.testing.assert_array_equal(first, again)
    assert spoken == spoken_again != spoken_otherwise


@pytest.mark.parametrize(
    ("names", "minutes", "count", "part"),
    [
        (["none", "of these"], 1.0, 5, "none, of these"),
        (NAMES, 0.05, 7, "7 commands do not fit"),  # 3 s, clips of 0.5 s
        (NAMES, 0.0, 5, "0.0 minutes"),
        (NAMES, -1.0, 5, "-1.0 minutes"),
        (NAMES, float("nan"), 5, "nan minutes"),
        (NAMES, float("inf"), 5, "inf minutes"),
        (NAMES, 1e9, 5, "minutes"),
        (NAMES, 1.0, 0, "0 commands"),
        (NAMES, 1.0, -3, "-3 commands"),
    ],
)
def test_a_stream_that_cannot_be_made_is_refused(
    clips: Path, names: list[str], minutes: float, count: int, part: str
) -> None:
    with pytest.raises(ValueError) as caught:
        compose(clips, names, minutes, count, 10.0, None)
    assert part in str(caught.value) and len(str(caught.value).splitlines()) == 1


# Scoring

SPOKEN = [Spoken("go", 1.0, 1.5), Spoken("stop", 5.0, 5.4), Spoken("go", 9.0, 9.5)]


@pytest.mark.parametrize(
    ("heard", "found", "wrong"),
    [
        ([], 0, []),
        ([event("go", 1.1, 1.4), event("stop", 5.0, 5.5), event("go", 9.4, 9.6)], 3, []),
        ([event("go", 9.4, 9.6), event("stop", 5.0, 5.5)], 2, []),
        ([event("stop", 1.1, 1.4)], 0, [("stop", 1.4)]),  # another command
        ([event("go", 3.0, 3.3)], 0, [("go", 3.3)]),  # another time
        ([event("go", 1.0, 1.2), event("go", 1.3, 1.5)], 1, [("go", 1.5)]),  # twice for one
        ([event("go", 0.2, 10.0), event("go", 9.0, 9.5)], 2, []),
        ([event("go", 1.5 + TOLERANCE_S - 0.01, 2.0)], 1, []),
        ([event("go", 1.5 + TOLERANCE_S + 0.01, 2.1)], 0, [("go", 2.1)]),
        ([event("go", 0.2, 1.0 - TOLERANCE_S + 0.01)], 1, []),
        ([event("go", 0.2, 1.0 - TOLERANCE_S - 0.01)], 0, [("go", pytest.approx(0.69))]),
    ],
)
def test_each_spoken_command_is_found_by_one_event_at_most(
    heard: list[Command], found: int, wrong: list[tuple[str, Any]]
) -> None:
    result = score(heard, SPOKEN, 1800.0)
    assert (result.spoken, result.found, result.false_alarms) == (3, found, len(wrong))
    assert list(result.wrong) == wrong
    assert result.hours == 0.5


def test_figures_are_given_by_the_hour() -> None:
    result = StreamResult(10, 8, 3, 0.25, (("go", 1.234), ("go", 2.0), ("stop", 61.0)))
    assert result.to_dict() == {
        "spoken": 10,
        "found": 8,
        "false_alarms": 3,
        "hours": 0.25,
        "false_alarms_per_hour": 12.0,
        "wrong": [
            {"command": "go", "at_s": 1.23},
            {"command": "go", "at_s": 2.0},
            {"command": "stop", "at_s": 61.0},
        ],
    }


# Hearing


@pytest.mark.parametrize("block_s", [0.01, 0.37, 100.0])
def test_hearing_starts_afresh_and_does_not_depend_on_blocks(heard_by: Recognizer, tune: Tune, block_s: float) -> None:
    samples = tune("low", "", "high", "middle")
    heard_by.accept(tune("middle")[:-2400])  # left over from before
    heard = hear(heard_by, samples, block_s)
    assert [command.name for command in heard] == ["low", "high", "middle"]
    assert heard == hear(heard_by, samples)


def test_false_alarms_are_counted_over_all_recordings(heard_by: Recognizer, tmp_path: Path, tune: Tune) -> None:
    (tmp_path / "talk").mkdir()
    audio.write(tmp_path / "talk" / "1.wav", tune("low", "", "high", ""))
    audio.write(tmp_path / "talk" / "2.wav", tune("", ""))
    audio.write(tmp_path / "talk" / "3.wav", tune("middle", ""))
    done: list[int] = []
    result = false_alarms(heard_by, tmp_path, done.append)
    assert (result.spoken, result.found, result.false_alarms) == (0, 0, 3)
    assert result.hours == pytest.approx(4 / 3600)
    assert [name for name, _ in result.wrong] == ["low", "high", "middle"]
    # The time in all that was listened to: 2 s and 1 s lie before the last recording.
    assert [at_s for _, at_s in result.wrong] == pytest.approx([0.2, 1.2, 3.2], abs=0.1)
    assert done == [1, 2, 3]


def test_nothing_to_listen_to_is_refused(heard_by: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        false_alarms(heard_by, tmp_path)
