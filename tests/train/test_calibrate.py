"""A calibrated confidence is the share of events that are right; the threshold keeps its promise; times are true."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("scipy", reason="training needs scipy", exc_type=ImportError)
pytest.importorskip("torch", reason="training needs torch", exc_type=ImportError)

from kouling.decoder import DecoderConfig  # noqa: E402
from kouling.measure.accuracy import SILENCE, UNKNOWN  # noqa: E402
from kouling.recognizer import Recognizer  # noqa: E402
from kouling.train import calibrate, run  # noqa: E402
from kouling.train.calibrate import choose_threshold, fit_logistic, listen, logit  # noqa: E402
from kouling.train.data import Clip, Corpus  # noqa: E402

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]
FakeRunner = Callable[..., Any]


def confidences(probabilities: Any, slope: float, bias: float) -> Any:
    """Platt's formula, written again."""
    return 1 / (1 + np.exp(-(slope * logit(probabilities) + bias)))


def sigmoid(odds: Any) -> Any:
    return 1 / (1 + np.exp(-odds))


def simulated(count: int, slope: float, bias: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities that a model gives, and whether it was right: as often as sigmoid(slope * logit(p) + bias)."""
    rng = np.random.default_rng(seed)
    probabilities = sigmoid(np.clip(rng.normal(1.0, 2.5, count), -7.5, 7.5))
    return probabilities, rng.random(count) < sigmoid(slope * logit(probabilities) + bias)


# Confidence


@pytest.mark.parametrize(("slope", "bias"), [(1.0, 0.0), (0.5, -0.8), (1.7, 1.2)])
def test_the_fit_finds_slope_and_bias(slope: float, bias: float) -> None:
    found = fit_logistic(*simulated(20000, slope, bias, seed=0))
    assert found == pytest.approx((slope, bias), abs=0.08)


@pytest.mark.parametrize(("slope", "bias"), [(0.5, -0.8), (1.7, 1.2)])
@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.9])
def test_calibrated_events_are_right_as_often_as_they_say(slope: float, bias: float, confidence: float) -> None:
    fitted = fit_logistic(*simulated(10000, slope, bias, seed=1))
    probabilities, right = simulated(20000, slope, bias, seed=2)
    chosen = np.abs(confidences(probabilities, *fitted) - confidence) < 0.05
    assert chosen.sum() > 200
    assert right[chosen].mean() == pytest.approx(confidence, abs=0.05)


@pytest.mark.parametrize("share_right", [0.8, 0.95])
def test_events_that_the_model_is_sure_of_are_right_as_often_as_they_say(share_right: float) -> None:
    """CTC is sure of most of what it says: the far end of the curve is where the events are."""
    rng = np.random.default_rng(0)
    probabilities = np.concatenate([np.ones(8000), rng.uniform(0.1, 0.9, 2000)])
    right = rng.random(10000) < np.concatenate([np.full(8000, share_right), 0.7 * probabilities[8000:]])
    slope, bias = fit_logistic(probabilities, right)
    config = DecoderConfig(confidence_slope=slope, confidence_bias=bias)
    assert config.confidence(1.0) == pytest.approx(share_right, abs=0.02)


@pytest.mark.parametrize("probability", [0.0, 1e-4, 0.3, 0.9, 0.9998, 1.0])
def test_calibration_and_decoder_agree_on_the_formula(probability: float) -> None:
    config = DecoderConfig(confidence_slope=0.6, confidence_bias=-0.4)
    (expected,) = confidences(np.array([probability]), 0.6, -0.4)
    assert config.confidence(probability) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("right", [True, False])
def test_a_fit_to_events_of_one_kind_stays_sane(right: bool) -> None:
    probabilities = np.random.default_rng(0).uniform(0.3, 0.99, 500)
    slope, bias = fit_logistic(probabilities, np.full(500, right))
    assert 0 < slope < 50 and abs(bias) < 50
    assert np.all((confidences(probabilities, slope, bias) > 0.9) == right)
    DecoderConfig(confidence_slope=slope, confidence_bias=bias)


def test_a_fit_to_nothing_is_usable() -> None:
    slope, bias = fit_logistic(np.zeros(0), np.zeros(0, dtype=bool))
    DecoderConfig(confidence_slope=slope, confidence_bias=bias)


def test_a_model_that_is_surer_where_it_is_wrong_keeps_a_positive_slope() -> None:
    probabilities, right = simulated(2000, 1.0, 0.0, seed=0)
    slope, _ = fit_logistic(probabilities, ~right)
    assert 0 < slope < 0.1


# Threshold


SURE = [("go", [("go", 0.99)])] * 100  # heard whatever the threshold


@pytest.mark.parametrize(
    ("alarms", "hours", "expected"),
    [
        ([], 0.0, 0.05),
        ([], 10.0, 0.05),
        ([0.9] * 4, 1.0, 0.05),  # as many as allowed
        ([0.62] * 5, 1.0, 0.65),
        ([0.62] * 5 + [0.31] * 100, 1.0, 0.65),
        ([0.92] * 100, 1.0, 0.95),  # never higher
        ([0.99] * 100, 1.0, 0.05),  # none helps
        ([0.99] * 9 + [0.62], 1.0, 0.65),  # a little
        ([0.5], 0.0, 0.55),  # an event at the threshold is heard
    ],
)
def test_of_thresholds_as_good_for_clips_the_lowest_that_keeps_running_speech_quiet(
    alarms: list[float], hours: float, expected: float
) -> None:
    assert choose_threshold(SURE, np.array(alarms), hours) == expected


def test_quiet_is_not_bought_with_more_than_a_fifth_of_a_point() -> None:
    hesitant = [("go", [("go", 0.56)])] * 2
    noisy = np.linspace(0, 0.94, 100)
    assert choose_threshold(SURE + hesitant, noisy, 1.0) == 0.55
    assert choose_threshold(SURE * 16 + hesitant, noisy, 1.0) == 0.95  # two of 1602 are worth it


@pytest.mark.parametrize("kind", [UNKNOWN, SILENCE])
def test_commands_heard_in_clips_without_one_raise_the_threshold(kind: str) -> None:
    mistaken: list[tuple[str, list[tuple[str, float]]]] = [(kind, [("go", 0.42), ("no", 0.3)])] * 10
    assert choose_threshold(SURE + mistaken, np.zeros(0), 1.0) == 0.45
    assert choose_threshold(SURE + [(kind, [])] * 10, np.zeros(0), 1.0) == 0.05


def test_clips_without_a_word_weigh_a_tenth_however_many_there_are() -> None:
    hesitant = [("go", [("go", 0.43)])] * 3  # 2.9 % of the words
    mistaken: list[tuple[str, list[tuple[str, float]]]] = [(UNKNOWN, [("go", 0.42)])]
    quiet: list[tuple[str, list[tuple[str, float]]]] = [(UNKNOWN, [])]
    for many in (1, 50):
        assert choose_threshold(SURE + hesitant + (mistaken + quiet * 9) * many, np.zeros(0), 1.0) == 0.05
        assert choose_threshold(SURE + hesitant + (mistaken + quiet) * many, np.zeros(0), 1.0) == 0.45


def test_of_two_events_in_a_clip_the_surer_is_judged() -> None:
    both = [("go", [("no", 0.5), ("go", 0.6)])] * 10
    assert choose_threshold(SURE + both, np.full(9, 0.57), 1.0) == 0.6


# A whole calibration


class Scenes:
    """Validation clips, as SceneMaker has them."""

    def __init__(self, clips: list[tuple[Samples, str]], talk: list[Samples], units: tuple[str, ...]) -> None:
        parts = [samples for samples, _ in clips] + talk
        corpus = Corpus(np.concatenate(parts), [])
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        self.units = list(units)
        self.valid = [
            (
                corpus,
                Clip(start, len(samples), len(samples) - 5600, len(samples) - 2400, 5000.0, label, f"{start}.wav"),
                units.index(label) if label else 1,
            )
            for start, (samples, label) in zip(starts, clips, strict=False)
        ]
        self.valid_speech = [
            (corpus, Clip(start, len(samples), 0, len(samples), 5000.0, "", f"{start}.wav"))
            for start, samples in zip(starts[len(clips) :], talk, strict=False)
        ]


def test_calibration_makes_times_confidences_and_threshold_true(
    fake_runner: FakeRunner, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SNRS_DB", (None,))
    runner = fake_runner(0.1)  # it says its words 0.1 s late
    words = [("low", "low"), ("high", "high"), ("middle", "middle")] * 12 + [("high", "")] * 3  # one in five is wrong
    clips = [(tune("", word), label) for word, label in words]
    clips += [(tune("", ""), "")]
    talk = [tune("low", "", "high", "") for _ in range(3)]  # far more than 4 alarms an hour
    told: list[str] = []
    settings = calibrate.calibrate(runner, Scenes(clips, talk, runner.info.units), told.append)  # type: ignore[arg-type]
    assert len(told) == len(calibrate.PRIMING_LEVELS) + 2

    always = {"isolation_s", "hesitation_s", "priming_level"}
    assert set(settings) == {"threshold", "confidence_slope", "confidence_bias", "onset_s", "offset_s"} | always
    # The tones' runner always finds an unknown word a little likely, which adds up while a command waits.
    heard_by = Recognizer(fake_runner(0.1, **{**settings, "hesitation_s": 0.0}))
    samples = tune("", "low", "", "middle")
    heard = heard_by.accept(samples) + heard_by.finish()
    assert [command.name for command in heard] == ["low", "middle"]  # in spite of the alarms
    for command, start_s in zip(heard, (0.65, 1.65), strict=True):
        assert command.start_s == pytest.approx(start_s, abs=0.05)
        assert command.end_s == pytest.approx(start_s + 0.2, abs=0.05)
        assert command.confidence == pytest.approx(36 / 39, abs=0.03)


@pytest.mark.parametrize("talk", [False, True])
def test_alarms_in_running_speech_raise_the_threshold(
    fake_runner: FakeRunner, tune: Tune, monkeypatch: pytest.MonkeyPatch, talk: bool
) -> None:
    monkeypatch.setattr(calibrate, "SNRS_DB", (None,))
    runner = fake_runner()
    clips = [(tune("", word), word) for word in ("low", "high", "middle") * 10]
    spoken = [(tune("low" if talk else "", "") * 0.007).astype(np.int16)]  # heard at 0.76
    settings = calibrate.calibrate(runner, Scenes(clips, spoken, runner.info.units))  # type: ignore[arg-type]
    assert (settings["threshold"] > 0.6) is talk
    assert settings["threshold"] >= 0.05


@pytest.mark.parametrize("wakes_at", [0.0, 0.5, 1.5])
def test_a_stream_begins_as_the_model_hears_best(
    fake_runner: FakeRunner, tune: Tune, monkeypatch: pytest.MonkeyPatch, wakes_at: float
) -> None:
    """The runner hears nothing in a stream that does not begin with a sound of a level."""
    runner = fake_runner()
    begin, step, woken = runner.initial_state, runner.step, [True]
    monkeypatch.setattr(runner, "initial_state", lambda: woken.clear() or begin())

    def hear(features: Samples, state: Any) -> Any:
        woken.append(bool(features.min() >= wakes_at) or woken[-1:] == [True])
        log_probs, following = step(features, state)
        return (log_probs if woken[-1] else np.log(np.eye(5)[[0] * len(log_probs)] * 0.9 + 0.02)), following

    monkeypatch.setattr(runner, "step", hear)
    clips = [(tune("", word), word) for word in ("low", "high", "middle") * 3]
    settings = calibrate.calibrate(runner, Scenes(clips, [], runner.info.units))  # type: ignore[arg-type]
    assert settings["priming_level"] == math.ceil(wakes_at)


def test_without_validation_clips_of_words_there_is_no_calibration(fake_runner: FakeRunner, tune: Tune) -> None:
    runner = fake_runner()
    scenes = Scenes([(tune("", "low"), "")], [], runner.info.units)
    with pytest.raises(ValueError, match="no validation clips of words"):
        calibrate.calibrate(runner, scenes)  # type: ignore[arg-type]


def test_a_word_that_is_heard_twice_is_right_once(fake_runner: FakeRunner, tune: Tune) -> None:
    heard_by = Recognizer(fake_runner())
    samples = tune("low", "", "low", "high")
    clip = Clip(0, len(samples), 2400, 5600, 5000.0, "low", "a.wav")
    events = listen(heard_by, samples, clip, "low")
    assert [(event.unit, event.right) for event in events] == [("low", True), ("low", False), ("high", False)]
    assert [event.right for event in listen(heard_by, samples, clip, "")] == [False] * 3
    first = events[0]
    assert first.lag_start_s - first.lag_end_s == pytest.approx(0.2)


def test_validation_is_decided_by_the_recogniser_as_it_ships(fake_runner: FakeRunner, tune: Tune) -> None:
    runner = fake_runner(threshold=0.6)
    clips = [(tune("", "low"), "low"), (tune("", "high"), "low"), (tune("", ""), "low"), (tune("", "low"), "")]
    scenes = Scenes(clips + [(tune("", ""), "")] * 2, [], runner.info.units)
    *words, (corpus, clip, _) = scenes.valid
    scenes.valid = [*words, (corpus, clip, 0)]
    result = run.evaluate_validation(Recognizer(runner), scenes)  # type: ignore[arg-type]
    assert result.to_dict()["confusions"] == {
        "low": {"low": 1, "high": 1, "_unknown_": 1},
        "_silence_": {"_silence_": 1},
        "_unknown_": {"low": 1, "_unknown_": 1},
    }


def test_a_run_ends_calibrated_and_measured_in_the_runtime_that_ships(
    fake_runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    earlier = replace(fake_runner().info, decoder={"threshold": 0.1}, provenance={"seed": 3})
    stored = [earlier]
    done: list[Any] = []
    settings, figures = {"threshold": 0.7}, SimpleNamespace(accuracy=0.25, clips=8)

    def exported(source: Path, target: Path) -> None:
        assert (source, target) == (tmp_path / "model.safetensors", tmp_path / "step.onnx")
        done.append((dict(stored[-1].decoder), dict(stored[-1].provenance)))

    trainer = SimpleNamespace(run=lambda: done.append("train"), scenes="scenes")
    monkeypatch.setattr(run, "Trainer", lambda *arguments, **named: trainer)
    monkeypatch.setattr(run.checkpoint, "load", lambda path: (stored[-1], {"w": 1}))
    monkeypatch.setattr(run.checkpoint, "save", lambda path, info, weights: stored.append(info))
    monkeypatch.setattr(run.onnx, "export", exported)
    monkeypatch.setattr(run.engine, "export", lambda source, target: done.append(target.name))
    monkeypatch.setattr(run.onnx, "OnnxRunner", lambda path: f"runner {len(done)}")
    monkeypatch.setattr(run, "Recognizer", lambda runner: f"heard by {runner}")
    monkeypatch.setattr(run, "calibrate", lambda *given: done.append(("calibrate", *given[:2])) or settings)
    monkeypatch.setattr(run, "evaluate_validation", lambda *given: done.append(("evaluate", *given)) or figures)
    run.run(SimpleNamespace(name="tiny"), [], tmp_path, tmp_path)  # type: ignore[arg-type]
    assert done == [
        "train",
        ({}, {"seed": 3}),
        ("calibrate", "runner 2", "scenes"),
        (settings, {"seed": 3}),
        ("evaluate", "heard by runner 4", "scenes"),
        (settings, {"seed": 3, "accuracy": 0.25, "clips": 8}),
        "model.kouling",
    ]
