"""Mining finds what is heard, once, wherever it was stopped, in bounded memory, and training takes what it writes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, recognizer
from kouling.audio import SAMPLE_RATE_HZ
from kouling.measure.mining import KEPT_S, Miner, excerpts, safe_name
from kouling.recognizer import Recognizer

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]


@pytest.fixture(autouse=True)
def fake(fake_runner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognizer, "load_runner", lambda model: fake_runner())


@pytest.fixture
def hours(tmp_path: Path, tune: Tune) -> Path:
    """Two recordings, in folders of any depth: low after 4 s and high after 10; low after 2."""
    folder = tmp_path / "hours"
    (folder / "deep" / "er").mkdir(parents=True)
    audio.write(folder / "one.wav", tune("", "", "low", "", "", "high", "", "", "", "", slot_s=2.0))
    audio.write(folder / "deep" / "er" / "two.WAV", tune("", "low", "", slot_s=2.0))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_clips_hold_what_was_heard(hours: Path, tmp_path: Path) -> None:
    result = Miner("m", None, hours).run(tmp_path / "out")
    assert (result.recordings, result.before, len(result.events), result.skipped) == (2, 0, 3, [])
    assert result.seconds == pytest.approx(26)
    listed = rows(tmp_path / "out" / "mined.csv")
    assert sorted((row["file"], row["command"]) for row in listed) == [
        ("deep/er/two.WAV", "low"),
        ("one.wav", "high"),
        ("one.wav", "low"),
    ]
    for row in listed:
        samples = audio.read(tmp_path / "out" / row["clip"])
        assert len(samples) == 1.5 * SAMPLE_RATE_HZ
        loud = np.flatnonzero(np.abs(samples.astype(int)) > 4000) / SAMPLE_RATE_HZ
        assert loud[0] > 0.3 and loud[-1] < 1.3 and float(row["confidence"]) > 0.5
        assert Path(row["clip"]).parts[0] == row["command"]


def test_a_second_run_skips_what_is_done_and_a_stopped_one_writes_nothing_twice(hours: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(seconds: float) -> None:
        if seconds > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Miner("m", None, hours).run(out, stop)
    left = rows(out / "mined.csv")
    assert left and all((out / row["clip"]).exists() for row in left)
    Miner("m", None, hours).run(out)
    assert len(rows(out / "mined.csv")) == 3 and len(rows(out / "done.csv")) == 2
    again = Miner("m", None, hours).run(out)
    assert (again.recordings, again.before, again.events) == (0, 2, [])
    assert len(rows(out / "mined.csv")) == 3
    assert Miner("m", None, hours, confidence=0.1).run(out).recordings == 2  # heard otherwise: worth hearing again


def test_what_cannot_be_read_is_told_and_does_not_stop_the_rest(hours: Path, tmp_path: Path) -> None:
    (hours / "bad.wav").write_text("not a recording")
    result = Miner("m", None, hours).run(tmp_path / "out")
    assert result.recordings == 2 and len(result.skipped) == 1 and "bad.wav" in result.skipped[0]
    assert Miner("m", None, hours).run(tmp_path / "out").skipped == result.skipped  # tried again


def test_clips_of_its_own_are_not_mined(hours: Path) -> None:
    assert Miner("m", None, hours).run(hours / "mined").recordings == 2
    assert Miner("m", None, hours, confidence=0.1).run(hours / "mined").recordings == 2


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_nothing_to_listen_to_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{folder}: (no such|holds no recording)"):
        Miner("m", None, tmp_path / folder)


def test_memory_does_not_grow_with_the_recording(fake_runner: Callable[..., Any], tune: Tune) -> None:
    block = tune(*[""] * 9, "low", slot_s=1.0)
    kept = []

    def blocks() -> Any:
        for _ in range(30):
            yield block

    for event, samples, _ in excerpts(Recognizer(fake_runner()), blocks()):
        if event is not None:
            kept.append(samples)
            assert samples.base is None or len(samples.base) <= (KEPT_S + 10) * SAMPLE_RATE_HZ
    assert len(kept) == 30 and {len(samples) for samples in kept[:-1]} == {24000}


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a" * 300, "打开 灯", "x/y:z"])
def test_names_of_files_stay_where_they_belong(name: str) -> None:
    assert "/" not in safe_name(name) and "." not in safe_name(name) and 0 < len(safe_name(name).encode()) <= 200


def test_training_takes_the_clips_as_unknown_words(hours: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="recipes belong to the toolkit", exc_type=ImportError)
    from kouling.train import data, recipe

    Miner("m", None, hours).run(tmp_path / "mined")
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "mine"\nunits = ["low", "high"]\n[[source]]\npath = "words"\n'
        '[[source]]\npath = "mined"\nuse = "unknown"\n',
        encoding="utf-8",
    )
    source = recipe.load(path).source[1]
    corpus = data.load(source, [tmp_path], tmp_path / "cache", progress=False)
    assert source.use == "unknown" and len(corpus.part(source, "train")) == 3
