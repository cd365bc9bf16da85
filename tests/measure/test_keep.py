"""Clips that are kept at the microphone."""

from pathlib import Path

import numpy as np
import pytest

from kouling import audio
from kouling.commands import Command
from kouling.measure.keep import MISS_S, REMEMBERED_S, Keeper

RATE = audio.SAMPLE_RATE_HZ


def keeper(folder: Path, seconds: float = 10.0) -> Keeper:
    """One that has heard a ramp: what a sample is tells when it was."""
    made = Keeper(folder, ("lights on", "stop"))
    samples = (np.arange(round(seconds * RATE)) // RATE).astype(np.int16)
    for block in np.array_split(samples, 50):
        made.hear(block)
    return made


def kept(folder: Path) -> dict[str, np.ndarray]:
    return {path.parent.name: audio.read(path) for path in folder.glob("*/*.wav")}


def test_a_false_alarm_is_kept_with_what_is_around_it(tmp_path: Path) -> None:
    k = keeper(tmp_path)
    assert k.number(Command("stop", 4.0, 4.9, 0.9)) == 1
    assert "kept 1.7 s" in k.answer("1\n")
    clip = kept(tmp_path)["_unknown_"]
    assert clip[0] == 3 and clip[-1] == 5 and len(clip) == round(1.7 * RATE)


def test_what_was_another_command_and_what_was_missed_are_kept_under_their_names(tmp_path: Path) -> None:
    k = keeper(tmp_path)
    k.number(Command("stop", 4.0, 4.9, 0.9))
    k.answer("1 lights on")
    k.answer("m stop")
    clips = kept(tmp_path)
    assert set(clips) == {"lights on", "stop"}
    assert len(clips["stop"]) == round(MISS_S * RATE) and clips["stop"][-1] == 9


@pytest.mark.parametrize("line", ["", "2", "m", "x stop", "1 jump", "m jump", "1stop"])
def test_lines_that_mean_nothing_keep_nothing_and_say_what_is_allowed(tmp_path: Path, line: str) -> None:
    k = keeper(tmp_path)
    k.number(Command("stop", 4.0, 4.9, 0.9))
    with pytest.raises(ValueError, match="allowed: "):
        k.answer(line)
    assert not kept(tmp_path)


def test_sound_is_forgotten_and_memory_stays_bounded(tmp_path: Path) -> None:
    k = keeper(tmp_path, seconds=4 * REMEMBERED_S)
    k.number(Command("stop", 4.0, 4.9, 0.9))
    with pytest.raises(ValueError, match="more than 30 s ago"):
        k.answer("1")
    assert sum(map(len, k._blocks)) <= (REMEMBERED_S + 3) * RATE
