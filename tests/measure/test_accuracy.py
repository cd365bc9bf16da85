"""What is decided for a clip is counted under the right label, and disturbances are as loud as they say."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, commands
from kouling.commands import Command
from kouling.measure.accuracy import Evaluation, decide, disturbance, evaluate, label_of
from kouling.measure.noise import colored_noise, recorded_noise
from kouling.measure.recordings import labelled
from kouling.recognizer import Recognizer

Samples = NDArray[np.int16]
Tune = Callable[..., Samples]


@pytest.fixture
def heard_by(fake_runner: Callable[..., Any]) -> Recognizer:
    """It knows the words low, middle and high, and listens for low and high."""
    runner = fake_runner()
    return Recognizer(
        runner, commands.parse({"command": [{"name": "low"}, {"name": "high"}]}, runner.info.units, "set")
    )


@pytest.fixture
def clips(tmp_path: Path, tune: Tune) -> Path:
    """Low: 3 right, 1 said as high. HIGH: 2 right. Words outside the set, unknown ones and silence: 3 right, 2 not."""
    content = {
        "low/1.wav": tune("low"),
        "low/2.flac": tune("", "low"),
        "low/3.WAV": tune("middle", "low"),
        "low/4.wav": tune("high"),
        "HIGH/1.wav": tune("high"),
        "HIGH/2.wav": tune("high", "high"),
        "middle/1.wav": tune("middle"),
        "middle/2.wav": tune("low"),
        "_unknown_/1.wav": tune("middle"),
        "_silence_/1.wav": tune(""),
        "_silence_/2.wav": tune("high"),
        "_background_noise_/1.wav": tune("low"),
        ".hidden/1.wav": tune("low"),
    }
    for name, samples in content.items():
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, samples)
    (tmp_path / "clips" / "low" / "notes.txt").write_text("not a recording")
    (tmp_path / "clips" / "readme.wav").write_text("in no folder")
    return tmp_path / "clips"


EXPECTED = {
    "clips": 11,
    "accuracy": round(8 / 11, 6),
    "per_label": {
        "high": {"clips": 2, "recall": 1.0},
        "low": {"clips": 4, "recall": 0.75},
        "_silence_": {"clips": 2, "recall": 0.5},
        "_unknown_": {"clips": 3, "recall": 0.666667},
    },
    "confusions": {
        "high": {"high": 2},
        "low": {"low": 3, "high": 1},
        "_silence_": {"_silence_": 1, "high": 1},
        "_unknown_": {"_unknown_": 2, "low": 1},
    },
}


def test_clips_are_counted_under_their_labels(heard_by: Recognizer, clips: Path) -> None:
    done: list[int] = []
    result = evaluate(heard_by, clips, report=done.append)
    assert result.to_dict() == EXPECTED
    assert list(result.to_dict()["per_label"]) == ["high", "low", "_silence_", "_unknown_"]
    assert done == list(range(1, 12))


def test_confusions_add_up_to_the_clips_and_recalls_to_the_accuracy(heard_by: Recognizer, clips: Path) -> None:
    figures = evaluate(heard_by, clips).to_dict()
    sums = {label: sum(counts.values()) for label, counts in figures["confusions"].items()}
    assert sums == {label: row["clips"] for label, row in figures["per_label"].items()}
    assert sum(sums.values()) == figures["clips"]
    right = sum(row["recall"] * row["clips"] for row in figures["per_label"].values())
    assert right / figures["clips"] == pytest.approx(figures["accuracy"], abs=1e-5)


def test_clips_that_another_model_decides_alike_are_counted(
    heard_by: Recognizer, fake_runner: Callable[..., Any], clips: Path
) -> None:
    runner = fake_runner()
    deaf = Recognizer(runner, commands.parse({"command": [{"name": "low"}]}, runner.info.units, "set"))
    assert evaluate(heard_by, clips, against=heard_by).agreed == 11
    result = evaluate(heard_by, clips, against=deaf)
    assert result.agreed == 11 - 4  # the four in which high is heard
    assert result.to_dict() == {**EXPECTED, "agreement": round(7 / 11, 6)}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_a_tar_is_evaluated_like_the_folder_in_it(heard_by: Recognizer, clips: Path, tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "clips.tar", mode) as archive:
        for label in ("low", "HIGH", "middle", "_unknown_", "_silence_"):
            archive.add(clips / label, f"data/{label}")
    assert evaluate(heard_by, tmp_path / "clips.tar").to_dict() == EXPECTED


@pytest.mark.parametrize("packing", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_tar_is_refused_and_not_taken_for_a_shorter_one(tmp_path: Path, damage: str, packing: Any) -> None:
    whole, broken = tmp_path / "whole.tar", tmp_path / "broken.tar"
    audio.write(tmp_path / "noise.wav", np.random.default_rng(0).integers(-9000, 9000, 800).astype(np.int16))
    with tarfile.open(whole, packing) as archive:
        for number in range(40):
            archive.add(tmp_path / "noise.wav", f"low/{number}.wav")
    assert len(list(labelled(whole))) == 40
    content = whole.read_bytes()
    middle = content.index(b"low/20.wav") if packing == "w" else len(content) // 2
    broken.write_bytes(content[:middle] + (b"" if damage == "cut" else bytes([255] * 40) + content[middle + 40 :]))
    with pytest.raises(ValueError, match=f"{broken}: neither a folder nor a readable tar") as caught:
        list(labelled(broken))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("text")])
def test_what_holds_no_clips_is_refused(heard_by: Recognizer, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    path = tmp_path / "clips"
    make(path)
    with pytest.raises(ValueError) as caught:
        evaluate(heard_by, path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1


def test_a_clip_that_cannot_be_read_is_named(heard_by: Recognizer, clips: Path) -> None:
    (clips / "low" / "5.wav").write_bytes(b"text")
    with pytest.raises(ValueError, match="low/5.wav"):
        evaluate(heard_by, clips)


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("up", "Up"),
        ("UP", "Up"),
        ("Up", "Up"),
        ("STRASSE", "straße"),
        ("upper", "_unknown_"),
        ("lights_on", "_unknown_"),
        ("_silence_", "_silence_"),
        ("_unknown_", "_unknown_"),
        ("_Silence_", "_unknown_"),
    ],
)
def test_a_folder_counts_for_the_command_of_its_name(folder: str, label: str) -> None:
    assert label_of(folder, ["Up", "straße", "lights on"]) == label


def test_no_command_is_right_for_silence_and_unknown_words_and_wrong_for_commands() -> None:
    result = Evaluation()
    for label in ("_silence_", "_unknown_", "go"):
        result.add(label, None)
    result.add("_silence_", "go")
    assert result.accuracy == 0.5
    assert (result.recall("_silence_"), result.recall("_unknown_"), result.recall("go")) == (0.5, 1.0, 0.0)
    assert result.to_dict()["confusions"]["go"] == {"_unknown_": 1}


def test_reliability_sets_what_was_reported_beside_what_was_right() -> None:
    result = Evaluation()
    for label, decided, confidence in [
        ("go", "go", 0.92),
        ("go", "stop", 0.94),
        ("_unknown_", "go", 0.9),
        ("stop", "stop", 0.9),
        ("stop", "stop", 1.0),
        ("stop", "stop", 0.96),
        ("stop", "go", 0.3),
    ]:
        result.add(label, decided, confidence)
    result.add("go", None)  # nothing reported
    first, last = result.reliability((0.5, 0.9, 0.95, 1.0))
    assert first == (pytest.approx(0.915), 0.5, 4)
    assert last == (pytest.approx(0.98), 1.0, 2)
    assert Evaluation().reliability() == []


def test_evaluation_keeps_the_confidence_of_each_command(heard_by: Recognizer, clips: Path) -> None:
    ((confidence, right, count),) = evaluate(heard_by, clips).reliability((0.5, 1.0))
    assert count == 8 and right == 5 / 8  # of the eight clips in which a command was heard
    assert 0.99 < confidence <= 1


def test_asking_for_a_label_that_is_not_there_adds_none() -> None:
    result = Evaluation()
    result.add("go", "go")
    assert result.recall("stop") == 0.0
    assert list(result.to_dict()["per_label"]) == ["go"]
    assert Evaluation().accuracy == 0.0


def test_the_surest_command_of_a_clip_is_decided(heard_by: Recognizer, tune: Tune) -> None:
    early, late = Command("go", 0.1, 0.4, 0.7), Command("stop", 0.9, 1.2, 0.8)
    for first, second in ((early, late), (late, early)):
        stub = SimpleNamespace(reset=lambda: None, accept=lambda samples: [first], finish=lambda: [second])  # noqa: B023
        assert decide(stub, tune("low")) == late  # type: ignore[arg-type]
    heard_by.accept(tune("high")[:-2400])  # left over from before
    decided = decide(heard_by, tune("", "low"))
    assert decided is not None and decided.name == "low"
    assert decide(heard_by, tune("middle", "")) is None


# Disturbances


def burst(length: int = 16000) -> Samples:
    """0.4 s of a tone, amplitude 5000, in the middle of digital silence."""
    samples = np.zeros(length, dtype=np.int16)
    tone = 5000 * np.sin(2 * np.pi * 700 * np.arange(6400) / 16000)
    samples[4800:11200] = np.rint(tone)
    return samples


def rms(samples: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def test_without_a_disturbance_nothing_is_changed(voice: Callable[..., Samples]) -> None:
    samples = voice(8000, 0)
    changed = disturbance()(samples, "a")
    assert changed.dtype == np.int16
    np.testing.assert_array_equal(changed, samples)


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 3.0])
def test_gain_scales(gain_db: float) -> None:
    changed = disturbance(gain_db)(burst(), "a")
    np.testing.assert_allclose(changed, burst() * 10 ** (gain_db / 20), rtol=0, atol=0.51)


def test_gain_clips_like_a_recorder() -> None:
    changed = disturbance(20.0)(burst(), "a")
    assert (changed.min(), changed.max()) == (-32768, 32767)
    assert np.mean(np.abs(changed[4800:11200].astype(int)) >= 32767) > 0.5


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_noise_is_as_loud_as_the_snr_says(tmp_path: Path, snr_db: float, recorded: bool) -> None:
    if recorded:
        (tmp_path / "hum").mkdir()
        audio.write(tmp_path / "hum" / "1.wav", (colored_noise(40000, 2.0, 1) * 300).astype(np.int16))
    noise = disturbance(snr_db=snr_db, noises=tmp_path if recorded else None)(burst(), "a") - burst().astype(float)
    measured_db = 20 * np.log10(rms(burst()[4800:11200]) / rms(noise))
    assert measured_db == pytest.approx(snr_db, abs=0.5)
    assert rms(noise[:4800]) > 0.3 * rms(noise)  # all through the clip


def test_gain_leaves_the_snr_alone() -> None:
    plain = disturbance(snr_db=10.0)(burst(), "a")
    quiet = disturbance(-20.0, 10.0)(burst(), "a")
    np.testing.assert_allclose(quiet, plain / 10, rtol=0, atol=0.6)


def test_noise_depends_on_the_clip_s_name_alone(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "hum").mkdir(exist_ok=True)
        audio.write(tmp_path / "hum" / f"{number}.wav", (colored_noise(40000, 2.0, number) * 300).astype(np.int16))
    for noises in (None, tmp_path):
        first, second = (disturbance(snr_db=5.0, noises=noises) for _ in range(2))
        np.testing.assert_array_equal(first(burst(), "a"), second(burst(), "a"))
        assert rms(first(burst(), "a") - first(burst(), "b").astype(float)) > 100


@pytest.mark.parametrize("length", [0, 1, 2, 159, 161])
def test_very_short_clips_can_be_disturbed(length: int) -> None:
    changed = disturbance(-3.0, 10.0)(np.full(length, 1000, dtype=np.int16), "a")
    assert changed.shape == (length,) and changed.dtype == np.int16


def test_silence_stays_silent_at_any_snr() -> None:
    assert not disturbance(snr_db=0.0)(np.zeros(16000, dtype=np.int16), "a").any()


@pytest.mark.parametrize(("gain_db", "snr_db"), [(np.nan, None), (1e9, None), (0.0, np.nan), (0.0, -np.inf)])
def test_levels_that_no_recording_has_are_refused(gain_db: float, snr_db: float | None) -> None:
    with pytest.raises(ValueError, match="allowed"):
        disturbance(gain_db, snr_db)


def test_a_folder_without_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        disturbance(snr_db=10.0, noises=tmp_path)


@pytest.mark.parametrize(("color", "slope_db"), [(0.0, 0.0), (1.0, -3.01), (2.0, -6.02)])
def test_colored_noise_falls_by_its_color_with_each_octave(color: float, slope_db: float) -> None:
    noise = colored_noise(2**17, color, seed=0)
    assert rms(noise) == pytest.approx(1.0, abs=0.01)
    power = np.abs(np.fft.rfft(noise.astype(np.float64))) ** 2
    octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(9, 16)]  # 62 Hz to 8 kHz
    assert np.diff(10 * np.log10(octaves)).mean() == pytest.approx(slope_db, abs=0.3)


def test_recorded_noise_comes_from_the_recording_repeated_if_it_is_short() -> None:
    recording = np.array([3, -4] * 50, dtype=np.int16)
    noise = recorded_noise(recording, 1001, seed=0)
    assert noise.shape == (1001,) and rms(noise) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(noise[:100], noise[100:200])
    assert not recorded_noise(np.zeros(50, dtype=np.int16), 100, seed=0).any()
    starts = {float(recorded_noise(np.arange(1, 10000, dtype=np.int16), 100, seed)[0]) for seed in range(10)}
    assert len(starts) > 5
