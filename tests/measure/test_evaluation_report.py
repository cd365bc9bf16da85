"""The command lines of evaluate --report, calibrate and mine: what they write, and refuse before long work."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, cli, recognizer
from kouling.cli.options import interruptible

Tune = Callable[..., NDArray[np.int16]]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fake_runner: Callable[..., Any],
) -> Run:
    """run(argument, ...) in an empty folder -> status, stdout, stderr; the model is the one that hears tones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recognizer, "load_runner", lambda model: fake_runner())

    def call(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def data(tmp_path: Path, tune: Tune) -> Path:
    """clips of two commands, a word that is none, and silence; talk and noise; a set with a comment."""
    words = {"low": "low", "high": "high", "other": "middle"}
    content = {f"clips/{label}/{take}": tune(word) for label, word in words.items() for take in range(3)}
    content["clips/_silence_/0"] = tune("")
    content["talk/any/a"] = tune(*["middle"] * 40, "low")
    content["hiss/any/a"] = (np.random.default_rng(0).standard_normal(32000) * 2).astype(np.int16)
    for name, samples in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(tmp_path / f"{name}.wav", samples)
    (tmp_path / "set.toml").write_text(
        '[[command]]\nname = "low"  # the one\n\n[[command]]\nname = "high"\n', encoding="utf-8"
    )
    return tmp_path


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_report_is_one_page_with_pictures_sounds_and_measurements(run: Run, data: Path, lang: str) -> None:
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    more = ["--speech", "talk", "--noise", "hiss", "--commands", "set.toml"]
    status, out, err = run("evaluate", "clips", "--report", "rep", "--json", "--lang", lang, *more)
    assert (status, err) == (0, "")
    figures = json.loads(out)
    assert set(figures) == {"clips", "accuracy", "per_label", "confusions"}
    assert json.loads(run("evaluate", "clips", "--json", "--commands", "set.toml")[1]) == figures
    page = (data / "rep" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and "<audio" in page and f'lang="{lang}"' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)  # nothing from elsewhere
    document = json.loads((data / "rep" / "result.json").read_text(encoding="utf-8"))
    result = document["result"]
    assert result["accuracy"] == figures["accuracy"] and result["folders_as_unknown"] == ["other"]
    assert list(result["snr_db"]) == ["clean", "20", "15", "10", "5", "0"]
    assert list(result["gain_db"]) == ["-20", "-10", "0", "10"]
    assert result["running"]["speech"]["false_alarms"] == 1 and result["running"]["noise"]["false_alarms"] == 0
    assert result["detection_s"]["count"] == 6
    assert [(near["kind"], near["command"]) for near in result["near"]] == [("alarm", "low")]
    assert (data / "rep" / result["near"][0]["clip"]).is_file()
    assert {"accuracy", "recall", "false alarms", "time to command"} <= {m["metric"] for m in document["measurements"]}


def test_what_a_report_can_say_little_about_is_told(run: Run, data: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    for name in ("high", "other", "_silence_"):
        (data / "clips" / name).rename(data / name)
    (data / "clips" / "low" / "bad.wav").write_text("not a recording")
    status, _, err = run("evaluate", "clips", "--report", "rep", "--json")
    assert status == 2 and "holds one label alone, low" in err and "skipped: low/bad.wav" in err
    (data / "clips" / "low").rename(data / "clips" / "unheard-of")
    (data / "other").rename(data / "clips" / "_unknown_")
    (data / "_silence_").rename(data / "clips" / "_silence_")
    status, _, err = run("evaluate", "clips", "--report", "rep", "--json")
    assert "no folder is named after a command; commands: low" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["evaluate", "clips", "--report", "set.toml/rep"], "cannot be written"),
        (["evaluate", "clips", "--report", "rep", "--snr", "3"], "exclude one another"),
        (["evaluate", "clips", "--report", "rep", "--running"], "exclude one another"),
        (["evaluate", "clips", "--speech", "talk"], "goes with --report"),
        (["evaluate", "nowhere", "--report", "rep"], "nowhere: no such folder"),
        (["evaluate", "clips", "--report", "rep", "--speech", "nowhere"], "nowhere: no such folder"),
        (["calibrate", "set.toml", "--data", "clips", "--speech", "talk"], "cannot show 0.5 false alarms an hour"),
        (["calibrate", "set.toml", "--data", "nowhere"], "nowhere: no such folder"),
        (["calibrate", "none.toml", "--data", "clips"], "none.toml"),
        (["calibrate", "set.toml", "--data", "clips", "--false-alarms-per-hour", "0"], "allowed: above 0"),
        (["calibrate", "set.toml", "--data", "clips", "-o", "set.toml/x.toml"], "cannot be written"),
        (["mine", "nowhere"], "nowhere: no such folder"),
        (["mine", "talk", "-o", "set.toml/out"], "cannot be written"),
        (["mine", "talk", "--confidence", "2"], "allowed: above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_clear_line(run: Run, data: Path, arguments: list[str], reason: str) -> None:
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    before = (data / "set.toml").read_text()
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("kouling: ") and err.count("\n") == 1 and reason in err
    assert (data / "set.toml").read_text() == before


def test_calibrate_writes_thresholds_and_says_what_they_rest_on(run: Run, data: Path) -> None:
    arguments = ("calibrate", "set.toml", "--data", "clips", "--speech", "talk", "--false-alarms-per-hour", "600")
    status, out, err = run(*arguments, "--json", "-o", "out.toml")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["proven"] and result["recall"] == 1 and result["clips"] == 6 and result["false_alarms"] == 1
    low, high = result["interval_per_hour"]
    assert low < result["false_alarms_per_hour"] < high
    text = (data / "out.toml").read_text()
    assert f'name = "low"  # the one\nthreshold = {result["thresholds"]["low"]}' in text
    assert "threshold" not in (data / "set.toml").read_text()
    status, out, _ = run(*arguments)
    assert status == 0 and "1 false alarms in 0.01 h" in out and (data / "set.toml").read_text() == text


def test_calibrate_that_cannot_reach_the_rate_writes_nothing(run: Run, data: Path) -> None:
    before = (data / "set.toml").read_text()
    status, out, err = run("calibrate", "set.toml", "--data", "clips", "--speech", "talk", "--unproven")
    assert (status, out) == (1, "") and "cannot be reached" in err and err.count("\n") == 1
    assert (data / "set.toml").read_text() == before


def test_mine_collects_and_says_how_much(run: Run, data: Path) -> None:
    status, out, err = run("mine", "talk", "-o", "out", "--commands", "set.toml")
    assert (status, err) == (0, "") and "1 false alarms in 0.01 h of 1 recordings" in out
    assert len(list((data / "out" / "low").glob("*.wav"))) == 1
    assert "1 were done before" in run("mine", "talk", "-o", "out", "--commands", "set.toml")[1]


def test_an_interrupt_takes_effect_between_recordings_and_a_second_one_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(KeyboardInterrupt), interruptible(done.append) as report:
        report(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)  # not here, where a library might lose it
        report(3)
    assert done == [1, 2] and signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), interruptible(done.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(4)
    assert done == [1, 2] and signal.getsignal(signal.SIGINT) is before
