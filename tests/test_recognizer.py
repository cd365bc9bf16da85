"""Samples become commands, the same ones however they arrive; what cannot be heard is refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import commands, recognizer
from kouling.commands import Command
from kouling.recognizer import MAX_FRAMES_PER_CALL, Recognizer, as_int16, find_model, model_names

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]
FakeRunner = Callable[..., Any]


def refusal(work: Callable[[], Any]) -> str:
    """The message of a ValueError, after checking that it is one line."""
    with pytest.raises(ValueError) as caught:
        work()
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


def hear(heard_by: Recognizer, samples: NDArray[Any], portion: int | None = None) -> list[Command]:
    heard_by.reset()
    heard: list[Command] = []
    for start in range(0, len(samples), portion or max(len(samples), 1)):
        heard += heard_by.accept(samples[start : start + portion] if portion else samples)
    return heard + heard_by.finish()


def names(heard: list[Command]) -> list[str]:
    return [command.name for command in heard]


@pytest.fixture
def heard_by(fake_runner: FakeRunner) -> Recognizer:
    return Recognizer(fake_runner())


def test_words_are_heard_in_order_at_their_times(heard_by: Recognizer, tune: Tune) -> None:
    heard = hear(heard_by, tune("low", "", "high", "middle"))
    assert names(heard) == ["low", "high", "middle"]
    # The tones begin 0.15 s into their slots of 0.5 s, and an encoder frame is 0.04 s.
    assert [command.end_s for command in heard] == pytest.approx((0.15, 1.15, 1.65), abs=0.025)
    assert all(0 <= command.start_s <= command.end_s and 0 <= command.confidence <= 1 for command in heard)


def test_a_command_set_says_what_is_heard(fake_runner: FakeRunner, tune: Tune) -> None:
    runner = fake_runner()
    table = {"command": [{"name": "chord", "phrases": ["low high"]}, {"name": "middle"}]}
    heard_by = Recognizer(runner, commands.parse(table, runner.info.units, "set"))
    assert names(hear(heard_by, tune("high", "low", "high", "middle", "low"))) == ["chord", "middle"]


@pytest.mark.parametrize("gain_db", [-20, 10])
def test_level_makes_no_difference_to_which_words_are_heard(heard_by: Recognizer, tune: Tune, gain_db: int) -> None:
    words = ["low", "high", "middle", "low"]
    samples = tune(*words) * 10 ** (gain_db / 20)
    assert names(hear(heard_by, np.clip(samples, -32768, 32767).astype(np.int16))) == words


@pytest.mark.parametrize("portion", [1, 7, 160, 1000, 16000])
def test_portions_make_no_difference(
    heard_by: Recognizer, tune: Tune, voice: Callable[..., Samples], portion: int
) -> None:
    samples = np.concatenate([tune("low", "high"), voice(6000, 3), tune("middle")])
    expected = hear(heard_by, samples)
    assert len(expected) >= 3
    assert hear(heard_by, samples, portion) == expected


def test_commands_come_while_listening_and_not_only_at_the_end(heard_by: Recognizer, tune: Tune) -> None:
    assert names(heard_by.accept(tune("low", "high", ""))) == ["low", "high"]
    assert heard_by.finish() == []


def test_a_reset_recognizer_equals_a_fresh_one(fake_runner: FakeRunner, tune: Tune) -> None:
    used = Recognizer(fake_runner())
    used.accept(tune("middle", "high")[:-3000])  # a tone, a decision and half a step are under way
    used.reset()
    samples = tune("low", "high", "low")
    heard = used.accept(samples) + used.finish()
    assert heard == hear(Recognizer(fake_runner()), samples)
    assert names(heard) == ["low", "high", "low"]


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_finish_hears_a_word_that_is_cut_at_the_end(fake_runner: FakeRunner, tune: Tune, delay_s: float) -> None:
    heard_by = Recognizer(fake_runner(delay_s))
    samples = tune("low", "high")
    cut = samples[: 8000 + 2400 + 1600]  # 0.1 s of the second tone
    assert names(heard_by.accept(cut)) == ["low"]
    assert names(heard_by.finish()) == ["high"]


def test_finish_hears_a_command_that_might_have_gone_on(fake_runner: FakeRunner, tune: Tune) -> None:
    runner = fake_runner(max_gap_s=3.0)  # longer than the silence behind a recording
    table = {"command": [{"name": "low"}, {"name": "low high"}]}
    heard_by = Recognizer(runner, commands.parse(table, runner.info.units, "set"))
    assert heard_by.accept(tune("low")) == []
    assert names(heard_by.finish()) == ["low"]


def test_the_runner_is_called_with_whole_steps_of_bounded_size(fake_runner: FakeRunner, tune: Tune) -> None:
    runner = fake_runner()  # it refuses anything but whole steps
    heard_by = Recognizer(runner)
    runner.calls.clear()  # of the silence before the stream
    hear(heard_by, np.tile(tune("low", "high"), 10))
    assert max(runner.calls) == MAX_FRAMES_PER_CALL  # as few calls as may be, and bounded memory
    runner.calls.clear()
    hear(heard_by, tune("low"), 160)
    assert set(runner.calls[:-1]) == {2}  # live: no step waits for another


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 401, 1679, 1680])
def test_very_short_recordings_hold_no_command(heard_by: Recognizer, num_samples: int) -> None:
    assert hear(heard_by, np.full(num_samples, 50, dtype=np.int16)) == []
    assert heard_by.log_probs(np.zeros(num_samples, dtype=np.int16)).shape[1] == 5


def test_log_probs_are_those_that_the_decoder_hears(fake_runner: FakeRunner, tune: Tune) -> None:
    heard_by = Recognizer(fake_runner(0.3))
    heard_by.accept(tune("middle"))  # must not be left over
    log_probs = heard_by.log_probs(tune("low", "high"))
    assert log_probs.dtype == np.float32 and len(log_probs) >= (98 + 4 + 40) / 4  # the recording, lookahead, flush
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-5)
    best = log_probs.argmax(axis=1)
    assert [int(unit) for unit, before in zip(best[1:], best, strict=False) if unit and unit != before] == [2, 4]
    assert names(heard_by.accept(tune("low", "", ""))) == ["low"]  # left reset


# Samples


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_heard_like_the_same_int16(heard_by: Recognizer, voice: Callable[..., Samples], dtype: Any) -> None:
    samples = np.concatenate([voice(8000, 0), np.array([-32768, 32767, 0, -1], dtype=np.int16)])
    np.testing.assert_array_equal(as_int16((samples / 32768).astype(dtype)), samples)


def test_floats_and_int16_give_the_same_commands(heard_by: Recognizer, tune: Tune) -> None:
    samples = tune("low", "high")
    expected = hear(heard_by, samples)
    assert names(expected) == ["low", "high"]
    assert hear(heard_by, samples.astype(np.float32) / 32768) == expected


def test_floats_beyond_full_scale_are_clipped() -> None:
    np.testing.assert_array_equal(as_int16(np.array([1.0, 7.5, -1.0, -9.0])), [32767, 32767, -32768, -32768])


@pytest.mark.parametrize(
    ("samples", "parts"),
    [
        (np.zeros(10, dtype=np.int32), ["int32", "int16"]),
        (np.zeros(10, dtype=np.uint8), ["uint8"]),
        (np.zeros(10, dtype=bool), ["bool"]),
        (np.zeros(10, dtype=complex), ["complex"]),
        (np.zeros((10, 2), dtype=np.int16), ["mono", "(10, 2)"]),
        (np.zeros((1, 10)), ["(1, 10)"]),
        (np.array(3.0), ["()"]),
        (np.array([0.0, np.nan]), ["NaN"]),
        (np.array([np.inf, 0.0], dtype=np.float32), ["infinity"]),
    ],
)
def test_other_samples_are_refused(heard_by: Recognizer, tune: Tune, samples: NDArray[Any], parts: list[str]) -> None:
    heard_by.accept(tune("low")[:5000])
    message = refusal(lambda: heard_by.accept(samples))
    assert all(part in message for part in parts)
    assert names(heard_by.accept(tune("low", "high")[5000:]) + heard_by.finish()) == ["low", "high"]  # unharmed


# Models


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("aa", "en-commands", "zh"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "step.onnx").write_bytes(b"model")
    (tmp_path / "models" / "not-a-model").mkdir()
    monkeypatch.setattr(recognizer, "MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_installed_models_are_listed_with_the_default_first(installed: Path) -> None:
    assert model_names() == ["en-commands", "aa", "zh"]


def test_models_are_found_by_name_folder_and_path(installed: Path) -> None:
    expected = installed / "models" / "zh" / "step.onnx"
    assert (
        find_model("zh") == find_model(expected) == find_model(str(expected)) == find_model(expected.parent) == expected
    )
    (installed / "zh").mkdir()
    assert find_model("zh") == expected  # the name of a model comes before a folder


def test_the_engine_runs_what_it_can(
    installed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = installed / "models" / "zh"
    (folder / "model.kouling").write_bytes(b"model")
    monkeypatch.setattr(recognizer.importlib.util, "find_spec", lambda name: "built")
    assert find_model("zh") == find_model(folder) == folder / "model.kouling"
    assert find_model("aa").name == "step.onnx" and not caplog.records
    monkeypatch.setattr(recognizer.importlib.util, "find_spec", lambda name: None)
    assert find_model("zh") == folder / "step.onnx"
    assert "the C engine was not built" in caplog.text and "ONNX Runtime" in caplog.text


def test_an_unknown_model_is_refused_with_those_there_are(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("en-comands", installed / "models" / "not-a-model", ""):
        message = refusal(lambda: find_model(wrong))  # noqa: B023
        assert repr(str(wrong)) in message
        assert "installed: en-commands, aa, zh" in message
    monkeypatch.setattr(recognizer, "MODELS", installed / "nowhere")
    assert "installed: none" in refusal(lambda: find_model("en-commands"))


def test_a_checkpoint_is_refused_with_how_to_make_it_run(installed: Path) -> None:
    path = installed / "model.safetensors"
    path.write_bytes(b"")
    assert f"kouling export {path} --target engine" in refusal(lambda: find_model(path))


def test_load_joins_a_model_and_a_command_set(tiny_model: Path, tmp_path: Path, voice: Callable[..., Samples]) -> None:
    path = tmp_path / "set.toml"
    path.write_text('[[command]]\nname = "halt"\nphrases = ["stop"]\n', encoding="utf-8")
    heard_by = recognizer.load(tiny_model, path)
    assert heard_by.info.name == "tiny"
    assert set(names(hear(heard_by, voice(48000, 1)))) == {"halt"}
    heard_by = recognizer.load(tiny_model / "step.onnx")
    assert set(names(hear(heard_by, voice(48000, 1)))) == {"stop", "left"}


def test_load_refuses_a_word_that_the_model_does_not_know(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.toml"
    path.write_text('[[command]]\nname = "halt"\nphrases = ["stop there"]\n', encoding="utf-8")
    message = refusal(lambda: recognizer.load(tiny_model, path))
    assert str(path) in message and "'there'" in message and "'stop'" in message


def test_impossible_decoder_settings_of_a_model_are_refused(fake_runner: FakeRunner) -> None:
    assert "decoder.treshold" in refusal(lambda: Recognizer(fake_runner(treshold=0.5)))
    assert "decoder.threshold" in refusal(lambda: Recognizer(fake_runner(threshold=7)))
    assert "decoder.settle_s" in refusal(lambda: Recognizer(fake_runner(settle_s="soon")))
    assert "decoder.priming_level is -1" in refusal(lambda: Recognizer(fake_runner(priming_level=-1.0)))


def test_decoder_settings_of_a_model_are_used(fake_runner: FakeRunner, tune: Tune) -> None:
    (plain,) = hear(Recognizer(fake_runner()), tune("low"))
    (late,) = hear(Recognizer(fake_runner(offset_s={"low": 0.1})), tune("low"))
    assert late.end_s == pytest.approx(plain.end_s - 0.1)
    (doubtful,) = hear(Recognizer(fake_runner(confidence_slope=0.1)), tune("low"))
    assert doubtful.confidence < plain.confidence
    assert hear(Recognizer(fake_runner(confidence_bias=-30.0)), tune("low")) == []


@pytest.mark.parametrize(("settings", "frames", "level"), [({}, 400, 0.0), ({"priming_level": 1.5}, 400, 1.5)])
def test_a_stream_begins_after_what_the_model_says(
    fake_runner: FakeRunner, settings: dict[str, float], frames: int, level: float
) -> None:
    before = recognizer.priming(fake_runner(**settings).info)
    assert before.shape == (frames, 16) and (before == level).all()
    runner = fake_runner(**settings)
    given: list[NDArray[np.float32]] = []
    step = runner.step
    runner.step = lambda features, state: given.append(features) or step(features, state)  # type: ignore[method-assign,func-returns-value]
    Recognizer(runner)
    np.testing.assert_array_equal(given, [before])


def test_the_longest_command_of_the_model_s_configuration_is_the_decoder_s(fake_runner: FakeRunner) -> None:
    runner = fake_runner()
    runner.info = replace(runner.info, config=replace(runner.config, max_command_duration_s=2.0))
    assert recognizer.overlay_decoder(runner.info).max_command_duration_s == 2.0


def test_a_model_without_its_runtime_says_what_to_install(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'kouling[onnx]'" in refusal(lambda: recognizer.load(tiny_model))
