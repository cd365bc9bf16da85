"""What a comparison says of a model's hearing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio
from kouling.measure import hearing

Tune = Callable[..., NDArray[np.int16]]


@pytest.fixture
def folders(tmp_path: Path, tune: Tune) -> tuple[Path, Path]:
    """Clips of which one, said as another word, is missed; speech in which a command is truly said."""
    said = {"low/1.wav": "low", "low/2.wav": "high", "high/1.wav": "high", "high/2.wav": "high", "_unknown_/1.wav": ""}
    for name, word in said.items():
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(tmp_path / "clips" / name, tune(word))
    (tmp_path / "speech" / "low").mkdir(parents=True)
    audio.write(tmp_path / "speech" / "low" / "1.wav", tune("", "low", ""))
    return tmp_path / "clips", tmp_path / "speech"


def test_right_and_missed_at_a_rate(fake_runner: Callable[..., Any], folders: tuple[Path, Path]) -> None:
    clips, speech = folders
    done: list[int] = []
    alone = hearing.measure(fake_runner(), None, clips)
    assert (alone.clips, alone.accuracy, alone.misses) == (5, 4 / 5, None)
    often = hearing.measure(fake_runner(), None, clips, speech, 1e6, report=done.append)
    assert done == list(range(1, hearing.passes(clips, speech) + 1))  # type: ignore[operator]
    assert often.accuracy == alone.accuracy and often.misses == pytest.approx(1 / 4)
    assert often.speech_hours == pytest.approx(len(audio.read(speech / "low" / "1.wav")) / 16000 / 3600)
    # The false alarm, whatever its folder is called, is as sure as the words: no threshold parts them.
    assert hearing.measure(fake_runner(), None, clips, speech, 0.5).misses == 1.0


def test_of_chosen_commands(fake_runner: Callable[..., Any], folders: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = tmp_path / "set.toml"
    chosen.write_text('[[command]]\nname = "high"\nphrases = ["high"]\n')
    found = hearing.measure(fake_runner(), chosen, *folders)
    assert found.accuracy == 4 / 5  # "high", said for low, is all that is taken for a command
    assert found.misses == 0  # low is no command of the set: nothing in the speech is an alarm


def test_what_cannot_be_read_is_said_once(fake_runner: Callable[..., Any], folders: tuple[Path, Path]) -> None:
    clips, speech = folders
    (clips / "low" / "bad.wav").write_text("not a recording")
    skipped: list[str] = []
    assert hearing.measure(fake_runner(), None, clips, speech, skipped=skipped).clips == 5
    assert len(skipped) == 1 and "bad.wav" in skipped[0]
    with pytest.raises(ValueError, match="allowed: 0 or more"):
        hearing.measure(fake_runner(), None, clips, speech, -1)
