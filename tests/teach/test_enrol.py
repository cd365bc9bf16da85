"""Commands that are enrolled from recordings: made in a second, heard by the engine as Python matches them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, commands, recognizer, templates
from kouling.checkpoint import ModelInfo
from kouling.cli import main
from kouling.deploy.engine import Engine
from kouling.measure import noise, stream
from kouling.teach import enrol
from kouling.templates import Templates, likeness, likeness_of
from tests.spoken import EXAMPLES

pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)

Samples = NDArray[np.int16]
WORDS = {"stop": "halt", "北京": "beijing", "商行": "shanghang"}  # said in the examples, and what they are called here


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(recognizer.find_model(recognizer.SPEECH_MODEL))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def brute_likeness(sound: NDArray[np.float32], template: NDArray[np.float32]) -> NDArray[np.float64]:
    """By the definition, path by path ending at each frame."""
    alike = sound.astype(np.float64) @ template[:, :-1].T + template[:, -1]
    frames, rows = alike.shape
    best = np.full((frames + 1, rows), -1e9)
    ends = np.full(frames, -1e9)
    for t in range(frames):
        for r in range(rows):
            begun = alike[t, r] if r == 0 else best[t, r - 1] + alike[t, r]
            left_out = best[t, r - 2] - 0.1 + alike[t, r] if r > 1 else -1e9
            best[t + 1, r] = max(begun, best[t, r] - 0.1, left_out)
            ends[t] = max(begun, left_out)
    return ends / rows


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_likeness_is_that_of_the_best_path(rows: int) -> None:
    rng = np.random.default_rng(rows)
    sounds = rng.normal(size=(3, 25, 16)).astype(np.float32)
    template = (rng.normal(size=(rows, 17)) / 5).astype(np.float32)
    found = likeness(sounds, template)
    for sound, row in zip(sounds, found, strict=True):
        expected = brute_likeness(sound, template)
        reached = expected > -1e6
        assert row[reached] == pytest.approx(expected[reached], abs=1e-4) and (row[~reached] < -1e6).all()
        assert reached.sum() > 10


def test_a_command_is_as_alike_as_the_mean_of_its_best_templates() -> None:
    rng = np.random.default_rng(0)
    sounds = rng.normal(size=(1, 20, 16)).astype(np.float32)
    made = [(rng.normal(size=(4, 17)) / 5).astype(np.float32) for _ in range(5)]
    each = np.array([[likeness(sounds[:, : t + 1], one)[0, max(t - 6, 0) :].max() for one in made] for t in range(20)])
    assert likeness_of(sounds, made)[0] == pytest.approx(np.sort(each, axis=1)[:, -3:].mean(axis=1), abs=1e-5)


def test_templates_survive_the_command_set() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 17)).astype(np.float16).astype(np.float32)
    read = Templates.of_table(json.loads(json.dumps(Templates("m", "12345678", (rows,)).to_table())))
    assert (read.model, read.encoder) == ("m", "12345678") and np.array_equal(read.recordings[0], rows)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"model": "m", "encoder": "e", "recordings": []},
        {"model": "m", "encoder": "e", "recordings": ["AAA"]},
        {"model": "m", "encoder": "e", "recordings": ["BAARAA=="]},
        {"model": "m", "encoder": "e", "recordings": ["x" * 10], "more": 1},
    ],
)
def test_damaged_templates_are_refused(broken: dict[str, Any]) -> None:
    table = {"command": [{"name": "x", "enrolled": broken}]}
    with pytest.raises(ValueError, match="write (it|them) with kouling enrol") as error:
        commands.parse(table, ("<blank>", "a"), "set.toml")
    assert "set.toml: command 'x'" in str(error.value)


# With speech


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Of each word recordings in one voice, a little faster and slower, in some noise: made of the examples."""
    folder = tmp_path_factory.mktemp("words")
    made: dict[str, list[Path]] = {}
    for file, model in (("en-orders.ogg", "en-commands"), ("zh-words.ogg", "zh-commands")):
        samples = audio.read(EXAMPLES / file).astype(np.float32)
        for event in stream.hear(recognizer.load(model), audio.read(EXAMPLES / file)):
            if event.name not in WORDS:
                continue
            said = samples[int(16000 * (event.start_s - 0.2)) : int(16000 * (event.end_s + 0.25))]
            for number in range(9):
                at = np.arange(0, len(said) - 1, 0.94 + 0.015 * number)
                hiss = noise.colored_noise(len(at), 1.0, number) * 40
                path = folder / f"{WORDS[event.name]}-{number}.wav"
                audio.write(path, noise.to_int16(np.interp(at, np.arange(len(said)), said) + hiss, 0.0))
                made.setdefault(WORDS[event.name], []).append(path)
    return made


@pytest.fixture(scope="module")
def own_set(words: dict[str, list[Path]], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set") / "own.toml"
    for word, files in words.items():
        options = ["enrol", str(path), word, *map(str, files[:5]), "--cache", str(cache)]
        assert main(options) == 0
    return path


def test_enrolled_commands_are_heard_and_told_apart(own_set: Path, words: dict[str, list[Path]]) -> None:
    listener = recognizer.load(recognizer.SPEECH_MODEL, own_set)
    for word, files in words.items():
        for file in files[5:]:
            samples = audio.read(file)
            (heard,) = stream.hear(listener, np.concatenate([np.zeros(8000, np.int16), samples]))
            assert heard.name == word
            first, last = noise.speech_bounds(samples)
            assert heard.start_s == pytest.approx(0.5 + first / 16000, abs=0.25)
            assert heard.end_s == pytest.approx(0.5 + last / 16000, abs=0.25)


@pytest.mark.parametrize("portion", [160, 1601, 100_000])
def test_the_engine_hears_what_python_matches(
    engine: Engine, own_set: Path, words: dict[str, list[Path]], portion: int
) -> None:
    chosen = commands.load(own_set, engine.info.units)
    order = random.Random(portion).sample([file for files in words.values() for file in files], 12)
    samples = np.concatenate([np.concatenate([audio.read(file), np.zeros(9000, np.int16)]) for file in order])
    low = replace(chosen, commands=tuple(replace(spec, threshold=0.3) for spec in chosen.commands))
    live = engine.recognizer(low)
    parts = [samples[start : start + portion] for start in range(0, len(samples), portion)]
    heard = [each for part in parts for each in live.accept(part)] + live.finish()
    hidden = enrol.Listener(engine).hear(samples)
    names = [file.stem.rpartition("-")[0] for file in order]
    assert [each.name for each in heard] == names
    frame_s = engine.info.config.encoder_frame_s
    for each in heard:
        spec = next(spec for spec in chosen.commands if spec.name == each.name)
        assert spec.enrolled is not None
        values = likeness_of(hidden[None], spec.enrolled.recordings)[0]
        near = values[int(each.start_s / frame_s) : int(each.end_s / frame_s) + 20]
        assert each.confidence == pytest.approx(min(float(near.max()), 1.0), abs=2e-3)


def test_a_command_may_have_phrases_too_and_is_heard_once(
    words: dict[str, list[Path]], cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "set.toml"
    path.write_text('# mine\n[[command]]\nname = "go"  # moves\nphrases = ["go", "left"]\n', encoding="utf-8")
    files = [*map(str, words["halt"][:3])]
    assert main(["enrol", str(path), "go", *files, "--cache", str(cache), "--model", "en-commands"]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith('# mine\n[[command]]\nname = "go"  # moves\nphrases = ["go", "left"]\n')
    listener = recognizer.load("en-commands", path)
    assert [each.name for each in stream.hear(listener, audio.read(words["halt"][4]))] == ["go"]
    assert main(["enrol", str(path), "go", *files, "--cache", str(cache), "--model", "en-commands"]) == 0
    assert path.read_text(encoding="utf-8") == text  # the same recordings make the same command, in its place


def test_what_was_enrolled_with_another_model_is_refused(own_set: Path) -> None:
    with pytest.raises(
        ValueError, match="was enrolled with the model 'en-speech', of another encoder than 'en-commands'"
    ):
        recognizer.load("en-commands", own_set)


def test_another_origin_is_another_encoder_and_thresholds_are_not(engine: Engine) -> None:
    info: ModelInfo = engine.info
    key = templates.encoder_key(info)
    assert templates.encoder_key(replace(info, provenance={**info.provenance, "taught": {"recall": 1}})) == key
    assert templates.encoder_key(replace(info, decoder={"threshold": 0.9})) == key
    assert templates.encoder_key(replace(info, provenance={**info.provenance, "seed": -1})) != key


def tone(seconds: float) -> Samples:
    return (8000 * np.sin(np.arange(int(16000 * seconds)) * 0.3)).astype(np.int16)


def test_bad_recordings_are_named(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(4)]
    for file in files:
        audio.write(file, np.zeros(16000, np.int16))
    own = tmp_path / "own.toml"
    assert main(["enrol", str(own), "x", *map(str, files), "--cache", str(cache)]) == 2
    assert "0 of 4 recordings can be used; needed: 3; " in (said := capsys.readouterr().err)
    assert "0.wav: silent" in said
    audio.write(files[0], np.concatenate([np.zeros(4000, np.int16), tone(4.0), np.zeros(4000, np.int16)]))
    assert main(["enrol", str(own), "x", *map(str, files), "--cache", str(cache)]) == 2
    said = capsys.readouterr().err  # `teach` takes 8 s
    assert "0.wav: 4." in said and "s of sound; allowed: 3 s or less; cut it out" in said
    assert main(["enrol", str(own), "x", *map(str, files[:2]), "--cache", str(cache)]) == 2
    assert "2 recordings; allowed: 3 to 8" in capsys.readouterr().err
    assert not own.exists()


def test_a_recording_of_something_else_is_left_out_and_named(
    words: dict[str, list[Path]], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [*words["halt"][:4], words["beijing"][0]]
    assert main(["enrol", str(tmp_path / "a.toml"), "abra", *map(str, files), "--cache", str(cache), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recordings"] == 4
    assert told["left_out"] == [f"{files[-1]}: sounds unlike the other recordings"]


def test_only_this_voice_hears_others_less(words: dict[str, list[Path]], cache: Path, tmp_path: Path) -> None:
    files = [*map(str, words["halt"][:5])]
    for name, more in (("any", []), ("mine", ["--only-this-voice"])):
        assert main(["enrol", str(tmp_path / "v.toml"), name, *files, "--cache", str(cache), *more]) == 0
    anyone, mine = commands.load(tmp_path / "v.toml", ("<blank>", "a")).commands
    assert anyone.threshold is not None and mine.threshold is not None and mine.threshold > anyone.threshold
