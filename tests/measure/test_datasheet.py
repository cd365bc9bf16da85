"""The data sheet, its pages in both languages, and the verbs that make them. Never a time."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, cli, recognizer
from kouling.measure import datasheet, datasheet_page, latency, memory, response, runtimes, words
from kouling.measure.datasheet import Datasheet
from kouling.measure.hearing import Hearing
from kouling.measure.memory import Process
from kouling.measure.response import Response
from kouling.measure.runtimes import SIZES, Subject

SHIPPED = [name for name, each in runtimes.RUNTIMES.items() if not each.target]  # bundles: in tests/deploy

pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)
CONTRACT = {"model_bytes", "variable_bytes", "total_bytes", "private_bytes", "peak_rss_bytes", "latency"}


@contextmanager
def no_bar(description: str, total: int | None) -> Iterator[Any]:
    yield lambda done: None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few calls, no fresh processes, one minute and a bit."""
    monkeypatch.setattr(latency, "TURNS", 2)
    monkeypatch.setattr(latency, "LATE_S", 12.0)
    monkeypatch.setattr(datasheet, "MINUTES", 0.4)
    monkeypatch.setattr(memory, "of_fresh_process", lambda *_: Process(2_000_000, 19_000_000, 35_000_000))


def subject_of(runtime: str, model: str = "en-small") -> Subject:
    pytest.importorskip(runtimes.RUNTIMES[runtime].module, reason="the runtime", exc_type=ImportError)
    return runtimes.open_subject(*runtimes.find(model, runtime))


def sheet_of(subject: Subject) -> Datasheet:
    sheet = datasheet.begin(subject)
    datasheet.fill_footprint([sheet], [subject], no_bar)
    datasheet.fill_time(sheet, subject, datasheet.MINUTES, None, no_bar)
    sheet.latency = {size: replace(times, busy=True) for size, times in sheet.latency.items()}
    sheet.response = Response([210.0, 250.0, 400.0], 1, ["x: no audio"])
    return sheet


@pytest.mark.parametrize("runtime", SHIPPED)
def test_every_runtime_answers_alike(runtime: str) -> None:
    subject, other = subject_of(runtime), subject_of("engine")
    assert subject.info.units == other.info.units
    for size in SIZES:
        frames = subject.frames(size)
        assert frames % subject.info.config.encoder.streaming_step_size == 0 and frames - SIZES[size] < 10
        features = np.random.default_rng(0).random((frames, subject.info.config.features.num_mels), np.float32)
        found, expected = subject.call(size)(features), other.call(size)(features)
        assert found.shape == (frames // subject.info.config.encoder.subsampling, len(subject.info.units))
        assert np.abs(np.exp(found) - np.exp(expected)).max() < 0.2  # the engine's weights are int8


def test_calls_remember_what_was_before() -> None:
    call = subject_of("onnx").call("step")
    features = np.ones((3, 64), np.float32)
    assert not np.array_equal(call(features), call(features))


@pytest.mark.parametrize("runtime", SHIPPED)
def test_a_fresh_process_says_what_it_takes(runtime: str) -> None:
    if not memory.ROLLUP.exists():
        pytest.skip("only Linux says what is private")
    subject = subject_of(runtime)
    found = memory.of_fresh_process(runtime, subject.path, "step")
    assert found is not None and 0 < found.private_bytes < found.process_private_bytes < found.peak_rss_bytes


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("runtime", ["engine", "torch"])
def test_the_page_says_everything_in_both_languages(lang: str, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sheet = sheet_of(subject_of(runtime, "en-commands"))
    for at in SIZES:
        verdicts = sheet.verdicts(at, 6_000_000, 0.0)
        made = datasheet_page.page(sheet, at, verdicts, lang)
        text = made.write(tmp_path / at, sheet.to_dict(at, verdicts)).read_text(encoding="utf-8")
        assert text.count("<svg") == 3 and f'lang="{lang}"' in text
        assert not any(mark in text for mark in ("<script", "<link", 'src="http', "None"))
    heard = replace(sheet, hearing=Hearing(4356, 0.9612, 0.77, 0.5, 0.0473))
    both = datasheet_page.comparison([heard, sheet], lang)
    text = both.write(tmp_path, {}).read_text(encoding="utf-8")
    assert all(cell in text for cell in ("96.12%", "4.73%", "4356", "0.77"))
    assert {each.metric for each in sheet.measurements()} >= {"planned memory", "latency", "step over time"}


@pytest.mark.usefixtures("quick")
def test_json_is_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "--model", "en-small", "--runtime", "engine", "--json", "--at", "step"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= CONTRACT
    assert found["total_bytes"] == found["model_bytes"] + found["variable_bytes"]
    assert all(set(found["latency"][size]) >= {"median", "p95", "p99"} for size in ("step", "300", "500"))
    assert found["delay_ms"] == 50 and found["macs_per_step"] == 237_248
    assert found["streaming"]["at_s"] == sorted(found["streaming"]["at_s"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("budget", "status"), [(["--memory", "1GB"], 0), (["--memory", "1KB", "--latency", "99s"], 1)])
def test_a_budget_decides_the_exit_status(budget: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "--model", "en-small", *budget]) == status
    assert ("fail" in capsys.readouterr().out) == bool(status)


@pytest.mark.usefixtures("quick")
def test_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    subject_of("onnx")
    assert cli.main(["compare", "en-small", "en-small:onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert [each["runtime"] for each in found] == ["engine", "onnx"]


@pytest.mark.usefixtures("quick")
def test_side_by_side_with_what_each_hears(
    voice: Callable[[int, int], NDArray[np.int16]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("_unknown_/1.wav", "yes/1.wav", "talk/1.wav")):
        (tmp_path / name).parent.mkdir()
        audio.write(tmp_path / name, voice(16000, number))
    (tmp_path / "clips").mkdir()
    for label in ("_unknown_", "yes"):
        (tmp_path / label).rename(tmp_path / "clips" / label)
    (tmp_path / "speech").mkdir()
    (tmp_path / "talk").rename(tmp_path / "speech" / "talk")
    given = [
        "--data",
        str(tmp_path / "clips"),
        "--speech",
        str(tmp_path / "speech"),
        "--commands",
        "examples/eight.toml",
    ]
    assert cli.main(["compare", "en-small", "en-base", *given]) == 0
    assert "missed" in capsys.readouterr().out
    (tmp_path / "clips" / "yes" / "2.wav").write_text("no recording")
    assert cli.main(["compare", "en-small", "en-base", *given, "--json"]) == 2
    told = capsys.readouterr()
    assert told.err.count("2.wav") == 1
    for each in json.loads(told.out)["models"]:
        assert each["hearing"]["clips"] == 2 and each["hearing"]["false_alarms_per_hour"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure", "--memory", "6 bananas"], "allowed: a size above 0"),
        (["measure", "--latency", "-1ms"], "allowed: a time above 0"),
        (
            ["measure", "--runtime", "abacus"],
            "allowed: engine, onnx, onnx-bundle, litert, openvino, executorch, ethos-u, executorch-ethos-u, rknn, "
            "torch",
        ),
        (["measure", "--model", "nobody"], "no model 'nobody'"),
        (["measure", "--data", "/nowhere"], "no such folder"),
        (["compare", "en-small"], "two or more"),
        (["compare", "en-small", "en-small:abacus"], "abacus"),
        (["compare", "en-small", "en-base", "--speech", "x"], "--speech goes with --data"),
        (["compare", "en-small", "en-base", "--data", "/nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("runtime", SHIPPED)
def test_a_missing_runtime_is_said_with_the_command_that_installs_it(
    runtime: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    module = runtimes.RUNTIMES[runtime].module
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    assert cli.main(["measure", "--model", "en-small", "--runtime", runtime]) == 2
    error = capsys.readouterr().err
    assert "pip install" in error and error.count("\n") == 1


def test_a_report_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(latency, "measure", None)  # would fail
    (tmp_path / "file").write_text("")
    assert cli.main(["measure", "--model", "en-small", "--report", str(tmp_path / "file" / "report")]) == 1
    error = capsys.readouterr().err
    assert "no report can be written" in error and error.count("\n") == 1


@pytest.mark.usefixtures("quick")
def test_an_interrupt_leaves_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "stream", interrupted)
    assert cli.main(["measure", "--model", "en-small", "--report", str(tmp_path), "--memory", "1KB"]) == 130
    left = json.loads((tmp_path / "result.json").read_text())["result"]
    assert left["latency"] and "streaming" not in left and "verdicts" not in left
    assert "real time" in capsys.readouterr().out


def test_the_core_and_the_collector_are_as_before() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no pinning here")
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), latency.quiet_core():
        assert len(os.sched_getaffinity(0)) == 1
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("runtime", ["engine", "torch"])
@pytest.mark.parametrize("size", SIZES)
def test_whatever_a_plan_names_has_a_chinese_name(runtime: str, size: str) -> None:
    plan = subject_of(runtime, "en-commands").plan(size)
    names = {each.part for each in plan.operations} | {each.role for each in plan.buffers}
    assert names - set(words.CHINESE) == set()


def test_disturbed_calls_are_left_out_while_half_remain() -> None:
    few = latency._times([(1_000_000, False), (1_000_000, False), (9_000_000, True)], 10.0)
    assert (few.median, few.p99, few.calls, few.disturbed, few.real_time_factor) == (1.0, 1.0, 2, 1, 0.1)
    most = latency._times([(1_000_000, False), (9_000_000, True), (9_000_000, True)], 10.0)
    assert (most.median, most.calls, most.disturbed) == (9.0, 3, 2)
    assert most.busy and not few.busy


def test_bins_hold_every_step_once() -> None:
    bins = latency._bins(12000, 0.05)
    assert bins[0][1] == 0 and bins[-1][2] == 12000
    assert all(one[2] == other[1] for one, other in zip(bins, bins[1:], strict=False))


def test_time_to_command_counts_every_clip(data: Path, tmp_path: Path) -> None:
    heard_by = recognizer.load("en-small")
    folder = tmp_path / "clips"
    for label in ("go", "nonsense"):
        (folder / label).mkdir(parents=True)
        (folder / label / "1.wav").write_bytes((data / "words/rise/00.wav").read_bytes())
    (folder / "go" / "2.wav").write_text("no audio")
    result = response.measure(heard_by, folder, Response())
    assert len(result.delays_ms) + result.missed == 1
    assert sorted(line.split(":")[0].rsplit("/", 1)[-1] for line in result.skipped) == ["1.wav", "2.wav"]
    with pytest.raises(ValueError, match="no clip of a command"):
        response.measure(heard_by, data / "words", Response())
