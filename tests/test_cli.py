"""The command line is a contract: what goes to stdout, one clear line on stderr for a mistake, and the exit status."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from kouling import __version__, audio, cli, recognizer, show
from kouling.commands import Command
from kouling.measure.stream import StreamResult

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]
Run = Callable[..., "Outcome"]


class Outcome(SimpleNamespace):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What stdout holds, every line of it as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line on stderr."""
        assert self.err.startswith("kouling: ") and self.err.endswith("\n") and self.err.count("\n") == 1
        return self.err.removeprefix("kouling: ").rstrip()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """run(argument, ...) in an empty folder: the status, and what went to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KOULING_DATA", raising=False)

    def call(*arguments: object) -> Outcome:
        try:
            status: Any = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # of argparse
            status = stopped.code
        return Outcome(status=status, **capsys.readouterr()._asdict())

    return call


@pytest.fixture
def fake(fake_runner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model, it is the one that hears tones."""
    monkeypatch.setattr(recognizer, "load_runner", lambda model: fake_runner())


@pytest.fixture
def recording(tmp_path: Path, tune: Tune) -> Path:
    """Low and high, each in the middle of its half second."""
    audio.write(tmp_path / "tones.wav", tune("low", "high"))
    return tmp_path / "tones.wav"


@pytest.fixture
def clips(tmp_path: Path, tune: Tune) -> Path:
    """Two of low, one of them right; one of high; one unknown."""
    content = {"low/1": tune("low"), "low/2": tune("high"), "HIGH/1": tune("high"), "_unknown_/1": tune("")}
    for name, samples in content.items():
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(tmp_path / "clips" / f"{name}.wav", samples)
    return tmp_path / "clips"


@pytest.fixture
def command_set(tmp_path: Path) -> Path:
    path = tmp_path / "set.toml"
    path.write_text('[[command]]\nname = "lamp"\nphrases = ["low [high]"]\n', encoding="utf-8")
    return path


@pytest.fixture
def installed(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model, installed as `tiny`."""
    monkeypatch.setattr(recognizer, "MODELS", tmp_path / "models")
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


# listen


@pytest.mark.usefixtures("fake")
def test_listen_shows_each_recording_with_its_commands(run: Run, recording: Path) -> None:
    outcome = run("listen", recording, recording)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.replace("\n", "").count(str(recording)) == 2  # long paths are folded
    assert outcome.out.count("1.0 s") == 2 and outcome.out.count("█") > 4
    assert outcome.out.index("low") < outcome.out.index("high") < outcome.out.rindex("low")


@pytest.mark.usefixtures("fake")
def test_listen_json_is_one_object_a_line_and_nothing_else(run: Run, recording: Path) -> None:
    outcome = run("listen", recording, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    assert [list(line) for line in outcome.lines] == [["file", "command", "start_s", "end_s", "confidence"]] * 2
    assert [(line["file"], line["command"]) for line in outcome.lines] == [
        (str(recording), "low"),
        (str(recording), "high"),
    ]
    for line, spike_s in zip(outcome.lines, (0.2, 0.7), strict=True):
        assert line["start_s"] < line["end_s"] == pytest.approx(spike_s, abs=0.1)
        assert 0.9 < line["confidence"] <= 1


def test_slots_are_there_where_there_are_any() -> None:
    event = Command("lamp", 1.0, 1.5, 0.9, {"room": "厨房"})
    assert json.loads(show.command_json("a.wav", event))["slots"] == {"room": "厨房"}
    assert "厨房" in show.command_json("a.wav", event)
    assert "slots" not in json.loads(show.command_json("a.wav", Command("lamp", 1.0, 1.5, 0.9)))


@pytest.mark.usefixtures("fake")
def test_a_bad_file_does_not_stop_the_others(run: Run, recording: Path, tmp_path: Path) -> None:
    outcome = run("listen", "--json", recording, tmp_path / "none.wav", recording)
    assert outcome.status == 2
    assert [line["command"] for line in outcome.lines] == ["low", "high"] * 2
    assert str(tmp_path / "none.wav") in outcome.complaint


@pytest.mark.usefixtures("fake")
def test_listen_takes_a_command_set(run: Run, recording: Path, command_set: Path) -> None:
    outcome = run("listen", "--json", recording, "--commands", command_set)
    assert [line["command"] for line in outcome.lines] == ["lamp"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ["[/]", "lamp [kitchen]", "[bold]x[/bold]", "灯"])
def test_names_are_shown_as_they_are(run: Run, recording: Path, clips: Path, tmp_path: Path, name: str) -> None:
    text = f'[[command]]\nname = "{name}"\nphrases = ["low"]\n'
    (tmp_path / "set.toml").write_text(text, encoding="utf-8")
    for arguments in (["listen", recording], ["evaluate", clips], ["evaluate", clips, "--running"]):
        outcome = run(*arguments, "--commands", tmp_path / "set.toml")
        assert (outcome.status, outcome.err) == (0, "")
        assert name in outcome.out


class Stdin:
    """sys.stdin with its bytes, which come a few at a time."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(content), 1001)  # type: ignore[arg-type]


@pytest.mark.usefixtures("fake")
def test_listen_takes_raw_samples_from_stdin(run: Run, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tune("low", "", "high").astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    outcome = run("listen", "-", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    assert [(line["file"], line["command"]) for line in outcome.lines] == [("-", "low"), ("-", "high")]
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    outcome = run("listen", "-")
    assert outcome.status == 0 and "Ctrl-C" in outcome.err
    assert "low" in outcome.out and "high" in outcome.out


@pytest.mark.usefixtures("fake")
def test_a_closed_stdin_is_refused(run: Run, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    outcome = run("listen", "--json", "-", recording)
    assert outcome.status == 2 and "stdin" in outcome.complaint
    assert len(outcome.lines) == 2


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("arguments", [["listen"], ["listen", "a.wav", "--mic"]])
def test_nothing_or_both_to_listen_to_is_refused(run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert "--mic" in outcome.complaint


@pytest.mark.usefixtures("fake")
def test_no_microphone_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class PortAudioError(Exception):
        pass

    def no_device(*arguments: Any, **settings: Any) -> None:
        raise PortAudioError("Error querying device -1")

    fake = ModuleType("sounddevice")
    fake.PortAudioError, fake.RawInputStream, fake.query_devices = PortAudioError, no_device, no_device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    outcome = run("listen", "--mic", "--json")
    assert (outcome.status, outcome.out) == (2, "")
    assert "microphone: Error querying device -1" in outcome.complaint


@pytest.mark.usefixtures("fake")
def test_the_microphone_is_heard_until_ctrl_c(run: Run, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    def live() -> Any:
        yield from np.split(tune("low", ""), 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, "microphone", live)
    outcome = run("listen", "--mic", "--json")
    assert (outcome.status, outcome.err) == (130, "")
    assert [line["command"] for line in outcome.lines] == ["low"]


@pytest.mark.usefixtures("fake")
def test_what_is_heard_on_the_microphone_can_be_kept(
    run: Run, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tune("low", "")
    said, typed = threading.Event(), threading.Event()

    def lines() -> Any:
        assert said.wait(10)
        yield "1\n"
        typed.set()

    def live() -> Any:
        yield from np.split(sound, 10)
        said.set()
        assert typed.wait(10)
        yield sound[:100]

    monkeypatch.setattr(audio, "microphone", live)
    monkeypatch.setattr(sys, "stdin", lines())
    outcome = run("listen", "--mic", "--keep", tmp_path / "kept")
    assert outcome.status == 0 and "low" in outcome.out
    assert len(list((tmp_path / "kept" / "_unknown_").glob("*.wav"))) == 1


# Recordings


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("rate_hz", "channels", "subtype", "suffix"),
    [
        (16000, 1, "PCM_16", ".flac"),
        (8000, 1, "PCM_16", ".wav"),
        (48000, 2, "PCM_24", ".wav"),
        (44100, 1, "PCM_24", ".flac"),
        (16000, 2, "FLOAT", ".wav"),
    ],
)
def test_recordings_of_all_kinds_are_heard(
    run: Run, tmp_path: Path, rate_hz: int, channels: int, subtype: str, suffix: str
) -> None:
    time_s = np.arange(int(1.2 * rate_hz)) / rate_hz
    tone = 0.25 * np.sin(2 * np.pi * 400 * time_s) * ((time_s > 0.5) & (time_s < 0.8))
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate_hz, subtype=subtype)
    outcome = run("listen", path, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (line,) = outcome.lines
    assert line["command"] == "low" and line["end_s"] == pytest.approx(0.55, abs=0.1)


@pytest.mark.usefixtures("fake")
def test_a_recording_of_one_sample_holds_no_command(run: Run, tmp_path: Path) -> None:
    audio.write(tmp_path / "one.wav", np.array([1000], dtype=np.int16))
    outcome = run("listen", tmp_path / "one.wav", "--json")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert "no command" in run("listen", tmp_path / "one.wav").out


def text_file(path: Path) -> None:
    path.write_text("not a recording\n" * 100)


def nan_file(path: Path) -> None:
    soundfile.write(path, np.array([0.0] * 9000 + [np.nan] * 2), 16000, format="WAV", subtype="FLOAT")


def cut_flac(path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, 32000), 16000, format="FLAC")
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


UNUSABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing.wav": (lambda path: None, "No such file"),
    "empty.wav": (lambda path: path.write_bytes(b""), "empty"),
    "text.wav": (text_file, "not a recording"),
    "nan.wav": (nan_file, "NaN"),
    "cut.flac": (cut_flac, "damaged or cut short"),
    "folder.wav": (lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_are_no_recordings_are_refused(run: Run, tmp_path: Path, name: str) -> None:
    make, reason = UNUSABLE[name]
    make(tmp_path / name)
    outcome = run("listen", "--json", tmp_path / name)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.complaint.startswith(f"{tmp_path / name}: ") and reason in outcome.complaint


# Models and command sets


@pytest.mark.parametrize("verb", ["listen", "evaluate"])
@pytest.mark.usefixtures("installed")
def test_an_unknown_model_is_refused_with_those_installed(run: Run, recording: Path, verb: str) -> None:
    outcome = run(verb, recording, "--model", "en-comands")
    assert (outcome.status, outcome.out) == (2, "")
    assert "'en-comands'" in outcome.complaint and "installed: tiny" in outcome.complaint


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('[[command]]\nname = "lamp\n', ["line 2, column"]),
        ("\n\n= 3\n", ["line 3, column 1"]),
        ('[[command]]\nname = "lamp"\nphrases = ["lower"]\n', ["'lower'", "nearest 'low'"]),
        ('[[command]]\nname = "low"\ntreshold = 1\n', ["treshold"]),
        ("", ["no commands"]),
        (b"\xff\xfe", ["UTF-8"]),
        (None, ["No such file"]),
        (Path, ["directory"]),
    ],
    ids=lambda value: None if isinstance(value, list) else repr(value)[:20],
)
@pytest.mark.parametrize("verb", ["listen", "evaluate"])
def test_a_broken_command_set_is_refused(
    run: Run, clips: Path, tmp_path: Path, verb: str, content: Any, parts: list[str]
) -> None:
    path = tmp_path / "broken.toml"
    if content is Path:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    outcome = run(verb, clips, "--json", "--commands", path)
    assert (outcome.status, outcome.out) == (2, "")
    assert str(path) in outcome.complaint
    assert all(part in outcome.complaint for part in parts)


def test_models_lists_what_is_installed(run: Run, installed: Path) -> None:
    outcome = run("models", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (row,) = outcome.lines
    assert row == {
        "name": "tiny",
        "language": "en",
        "commands": ["go", "stop", "left"],
        "parameters": row["parameters"],
        "bytes": (installed / "step.onnx").stat().st_size,
        "accuracy": 0.125,
    }
    assert row["parameters"] > 1000
    outcome = run("models")
    assert outcome.status == 0 and all(part in outcome.out for part in ("tiny", "12.50%", "0.1 MB", "stop"))


def test_models_without_any_is_an_empty_list(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognizer, "MODELS", tmp_path)
    assert run("models", "--json") == Outcome(status=0, out="", err="")


# evaluate


@pytest.mark.usefixtures("fake")
def test_evaluate_json_is_the_contract_s(run: Run, clips: Path) -> None:
    outcome = run("evaluate", clips, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.lines == [
        {
            "clips": 4,
            "accuracy": 0.75,
            "per_label": {
                "high": {"clips": 1, "recall": 1.0},
                "low": {"clips": 2, "recall": 0.5},
                "_unknown_": {"clips": 1, "recall": 1.0},
            },
            "confusions": {"high": {"high": 1}, "low": {"low": 1, "high": 1}, "_unknown_": {"_unknown_": 1}},
        }
    ]


@pytest.mark.usefixtures("fake")
def test_words_outside_the_command_set_count_as_unknown(run: Run, clips: Path, command_set: Path) -> None:
    command_set.write_text('[[command]]\nname = "high"\n', encoding="utf-8")
    (figures,) = run("evaluate", clips, "--json", "--commands", command_set).lines
    assert figures["confusions"] == {"high": {"high": 1}, "_unknown_": {"_unknown_": 2, "high": 1}}


@pytest.mark.usefixtures("fake")
def test_evaluate_shows_a_table(run: Run, clips: Path) -> None:
    outcome = run("evaluate", clips)
    assert (outcome.status, outcome.err) == (0, "")
    assert "75.00% of 4 clips" in outcome.out and "50.0%" in outcome.out and "high 1" in outcome.out
    assert "of 3 commands reported at 100% on average, 67% were right" in outcome.out
    assert "decided as the other model" not in outcome.out
    assert "100.00% of the clips decided as the other model does" in run("evaluate", clips, "--against", "other").out


@pytest.mark.usefixtures("fake")
def test_evaluate_disturbs_the_clips_as_told(run: Run, clips: Path) -> None:
    accuracies = [
        run("evaluate", clips, "--json", *options).lines[0]["accuracy"]
        for options in ([], ["--gain", "-20"], ["--gain", "-60"], ["--snr", "-20"])
    ]
    assert accuracies[0] == accuracies[1] == 0.75 and accuracies[2] == 0.25 and accuracies[3] < 0.75


@pytest.mark.usefixtures("fake")
def test_evaluate_hears_streams_and_running_speech(run: Run, clips: Path, tmp_path: Path, tune: Tune) -> None:
    outcome = run("evaluate", clips, "--json", "--stream", "0.2", "--count", "6", "--snr", "60")
    assert (outcome.status, outcome.err) == (0, "")
    (figures,) = outcome.lines
    # One of the three recordings is said wrong: whenever it comes, a command is missed and another heard.
    assert figures["spoken"] == 6 and figures["found"] == 4 and figures["false_alarms"] == 2
    assert figures["hours"] == pytest.approx(0.2 / 60, abs=1e-4)
    outcome = run("evaluate", clips, "--json", "--running")
    assert (outcome.lines[0]["spoken"], outcome.lines[0]["false_alarms"]) == (0, 3)
    outcome = run("evaluate", clips, "--running")
    assert "3 false alarms" in outcome.out
    assert [line.split()[1] for line in outcome.out.splitlines()[1:]] == ["high", "low", "high"]


def test_a_stream_is_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show.stream(StreamResult(10, 8, 1, 0.5, (("go", 75.0),)))
    assert capsys.readouterr().out.split("\n")[:2] == [
        "8 of 10 commands found, 1 false alarms in 0.50 h (2.0 an hour)",
        "     1:15.0  go",
    ]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "options",
    [
        ["--stream", "1", "--count", "0"],
        ["--stream", "1", "--count", "-1"],
        ["--stream", "1", "--count", "1000"],
        ["--stream", "0"],
        ["--stream", "nan"],
        ["--stream", "inf"],
        ["--stream", "1e9"],
        ["--gain", "nan"],
        ["--gain", "1e9"],
        ["--gain", "loud"],
        ["--snr", "nan"],
        ["--snr", "10", "--noise", "nowhere"],
        ["--snr"],
        ["--bogus"],
        ["--stream", "1", "--running"],
        ["--stream", "1", "--gain", "3"],
        ["--running", "--gain", "3"],
        ["--running", "--snr", "3"],
        ["--running", "--noise", "."],
        ["--running", "--against", "tiny"],
    ],
    ids=" ".join,
)
def test_impossible_options_are_refused(run: Run, clips: Path, options: list[str]) -> None:
    outcome = run("evaluate", clips, "--json", *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.complaint


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_is_no_recording_is_skipped_and_told(run: Run, clips: Path, name: str) -> None:
    (whole,) = run("evaluate", clips, "--json").lines
    make, reason = UNUSABLE[name]
    make(clips / "low" / name)
    outcome = run("evaluate", clips, "--json")
    assert outcome.lines == [whole]
    if name == "missing.wav":
        assert outcome.status == 0
    else:
        assert outcome.status == 2
        assert outcome.complaint.startswith(f"skipped: low/{name}: ") and reason in outcome.complaint


@pytest.mark.usefixtures("fake")
def test_evaluate_without_clips_is_refused(run: Run, tmp_path: Path, recording: Path) -> None:
    for wrong in (tmp_path / "nowhere", recording, tmp_path):
        outcome = run("evaluate", wrong, "--json")
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.complaint.startswith(f"{wrong}: ")


# train and export

RECIPE = """
name = "tiny"
units = ["low"]
preset = "small"
[[source]]
path = "words-of-nobody"
"""


def test_a_missing_recipe_is_refused(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)
    for wrong in (tmp_path / "none.toml", tmp_path):
        outcome = run("train", wrong)
        assert outcome.status == 2 and str(wrong) in outcome.complaint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("given", ["option", "environment", "nothing"])
def test_a_recipe_without_its_data_says_where_it_looked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    places = ["here", "there"] if given != "nothing" else ["data", "."]
    options = [part for place in places for part in ("--data", place)] if given == "option" else []
    if given == "environment":
        monkeypatch.setenv("KOULING_DATA", os.pathsep.join(places))
    outcome = run("train", "recipe.toml", "--out", "out", "--cache", "cache", *options)
    assert outcome.status == 2
    for place in places:
        assert str(Path(place) / "words-of-nobody") in outcome.complaint
    assert "--data" in outcome.complaint


@pytest.mark.parametrize(
    ("error", "status", "parts"),
    [
        (OSError(28, "No space left on device"), 1, ["No space left on device", "last good checkpoint", "runs/tiny"]),
        (KeyboardInterrupt(), 130, ["stopped", "runs/tiny"]),
        (ValueError("runs/tiny holds a run of another recipe"), 2, ["another recipe"]),
        (FileNotFoundError("start.safetensors: no such checkpoint"), 2, ["start.safetensors"]),
    ],
    ids=["disk full", "ctrl-c", "wrong folder", "no initial checkpoint"],
)
def test_training_that_stops_says_why_and_what_is_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, parts: list[str]
) -> None:
    pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)

    def stop(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("kouling.train.run.run", stop)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    outcome = run("train", "recipe.toml")
    assert outcome.status == status
    assert all(part in outcome.complaint for part in parts)
    assert ("last good checkpoint" in outcome.complaint) is (status == 1)


def test_train_passes_on_what_it_is_given(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)
    called: list[Any] = []
    monkeypatch.setattr("kouling.train.run.run", lambda *arguments: called.append(arguments))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert run("train", "recipe.toml", "--data", "a", "--data", "b", "--out", "o", "--cache", "c").status == 0
    assert run("train", "recipe.toml", "--data", "a", "--out", "o", "--cache", "c", "--keep-scenes", "k").status == 0
    assert run("train", "recipe.toml", "--device", "cpu", "--workers", "3").status == 0
    (recipe, *first), (*_, shared, _, _), (*_, device, workers) = called
    assert recipe.name == "tiny"
    assert first == [[Path("a"), Path("b")], Path("o"), Path("c"), None, "auto", 0]
    assert shared == Path("k") and (device, workers) == ("cpu", 3)
    outcome = run("train", "recipe.toml", "--workers", "-1")
    assert outcome.status == 2 and "--workers is -1; allowed: 0 or more" in outcome.complaint
    assert len(called) == 3


def test_train_writes_its_validation_part_instead(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)
    called: list[Any] = []
    monkeypatch.setattr("kouling.train.run.run", lambda *arguments: called.append("run"))
    monkeypatch.setattr("kouling.train.validation.write_validation", lambda *arguments: called.append(arguments[1:]))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert run("train", "recipe.toml", "--data", "a", "--cache", "c", "--validation", "v").status == 0
    assert called == [([Path("a")], Path("c"), Path("v"))]


@pytest.mark.parametrize("verb", [["train", "recipe.toml"], ["export", "en-small", "--target", "onnx", "-o", "x"]])
def test_without_the_toolkit_it_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for name in [name for name in sys.modules if name.startswith(("kouling.train", "kouling.deploy", "kouling.enc"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    outcome = run(*verb)
    assert outcome.status == 2
    assert "pip install 'kouling[train,onnx]'" in outcome.complaint


@pytest.mark.parametrize("content", [b"", b"text", b"\x40\0\0\0\0\0\0\0" + b"{" * 20, None], ids=repr)
def test_export_refuses_what_is_no_checkpoint(run: Run, tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("torch", reason="export needs torch", exc_type=ImportError)
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    outcome = run("export", path, "--target", "onnx", "-o", tmp_path / "step.onnx")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.complaint.startswith(f"{path}: ")
    assert not (tmp_path / "step.onnx").exists()


@pytest.mark.parametrize("option", [["--weights", "int4"], ["--commands", "set.toml"], ["--state", "bfloat16"]])
def test_options_of_another_target_are_refused(run: Run, tmp_path: Path, option: list[str]) -> None:
    outcome = run("export", "model.safetensors", "--target", "onnx", "-o", tmp_path / "x.onnx", *option)
    assert outcome.status == 2 and "goes with --target engine or c-array, not with onnx" in outcome.err


def test_export_knows_its_targets(run: Run) -> None:
    outcome = run("export", "model.safetensors", "--target", "abacus", "-o", "x")
    assert outcome.status == 2 and "abacus" in outcome.complaint and "onnx" in outcome.complaint


def test_export_says_nothing_where_all_is_well(tiny_model: Path) -> None:
    """`tiny_model` is made by the command, with warnings as errors."""
    assert (tiny_model / "export.txt").read_text() == ""


# Slots

TONES_WITH_SLOTS = """
[slots]
pitch = ["low", "middle", "high"]
[[command]]
name = "play"
phrases = ["{from:pitch} {to:pitch}"]
"""
CONTEXT = (
    "context:\n  expressions:\n    play:\n      - play $pitch:tone\n  slots:\n    pitch:\n      - low\n      - high\n"
)


@pytest.mark.usefixtures("fake")
def test_slots_are_values_beside_their_confidences(run: Run, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "set.toml").write_text(TONES_WITH_SLOTS)
    (line,) = run("listen", recording, "--commands", "set.toml", "--json").lines
    assert line["slots"] == {"from": "low", "to": "high"} and list(line["slot_confidences"]) == ["from", "to"]
    assert all(0.9 < confidence <= 1 for confidence in line["slot_confidences"].values())
    shown = run("listen", recording, "--commands", "set.toml").out
    assert "from: low" in shown and "to: high" in shown


def test_a_slot_in_doubt_says_how_sure_it_is() -> None:
    said = {"n": 20, "drinks": ["latte", "mocha"]}
    assert list(map(show.slot, said.items(), (0.99, 0.7))) == ["   n: 20", "   drinks: latte, mocha (70%)"]


def test_a_context_of_rhino_is_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "context.yaml").write_text(CONTEXT)
    assert run("import", "rhino", "context.yaml", "-o", "set.toml").status == 0
    assert 'phrases = ["play {tone:pitch}"]' in (tmp_path / "set.toml").read_text()
    (tmp_path / "context.yaml").write_text(CONTEXT.replace("$pitch", "$pich"))
    outcome = run("import", "rhino", "context.yaml", "-o", "other.toml")
    assert (outcome.status, outcome.out) == (2, "") and not (tmp_path / "other.toml").exists()
    assert outcome.complaint == "context.yaml: line 4: there is no slot $pich; allowed: $pitch"
    assert run("import", "rhino", "none.yaml", "-o", "x.toml").complaint == "none.yaml: no such file"
    assert run("import", "snips", "context.yaml", "-o", "x.toml").status == 2


@pytest.mark.usefixtures("fake")
def test_a_set_is_compiled_by_itself(run: Run, tmp_path: Path) -> None:
    (tmp_path / "set.toml").write_text(TONES_WITH_SLOTS)
    assert run("export", "set.toml", "--model", "tones", "-o", "set.words").status == 0
    assert (tmp_path / "set.words").read_bytes().startswith(b"KLWORDS\0\2\0\0\0")
    assert "--model is missing" in run("export", "set.toml", "-o", "x").complaint
    assert "--target onnx of a command set" in run("export", "set.toml", "--target", "onnx", "-o", "x").complaint
    assert "--weights goes with a model" in run("export", "set.toml", "--weights", "int4", "-o", "x").complaint
    assert "--target is missing; allowed: engine" in run("export", "en-small", "-o", "x").complaint


# The program


def start(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own. Its output is buffered, as in a shell."""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    environment.pop("PYTHONUNBUFFERED", None)
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **settings}
    command = [sys.executable, "-m", "kouling", *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=120, **settings)


def test_the_program_hears_with_a_real_model(tiny_model: Path, tmp_path: Path, voice: Callable[..., Samples]) -> None:
    audio.write(tmp_path / "voice.wav", voice(48000, 1))
    (tmp_path / "text.wav").write_text("text")
    done = start("listen", tmp_path / "voice.wav", tmp_path / "text.wav", "--model", tiny_model, "--json")
    outcome = Outcome(status=done.returncode, out=done.stdout, err=done.stderr)
    assert outcome.status == 2
    assert len(outcome.lines) >= 3 and {line["command"] for line in outcome.lines} <= {"go", "stop", "left"}
    assert outcome.complaint.startswith(f"{tmp_path / 'text.wav'}: ")


@pytest.mark.parametrize("arguments", [["listen"], ["evaluate", "--json"]], ids=" ".join)
def test_a_reader_who_leaves_is_no_error(tiny_model: Path, tmp_path: Path, tune: Tune, arguments: list[str]) -> None:
    (tmp_path / "clips" / "go").mkdir(parents=True)
    path = tmp_path / "clips" / "go" / "1.wav"
    audio.write(path, tune("low"))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        what = path if arguments[0] == "listen" else tmp_path / "clips"
        done = start(*arguments, what, "--model", tiny_model, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_under_the_output_is_told(tiny_model: Path, tmp_path: Path, tune: Tune) -> None:
    (tmp_path / "go").mkdir()
    audio.write(tmp_path / "go" / "1.wav", tune("low"))
    with open("/dev/full", "w") as full:
        done = start("evaluate", tmp_path, "--model", tiny_model, "--json", stdout=full)
    outcome = Outcome(status=done.returncode, out="", err=done.stderr)
    assert outcome.status == 1 and "No space left on device" in outcome.complaint


def test_nothing_to_do_is_refused_in_one_line(run: Run) -> None:
    outcome = run()
    assert outcome.status == 2 and "COMMAND" in outcome.complaint
    assert run("--version") == Outcome(status=0, out=f"kouling {__version__}\n", err="")
