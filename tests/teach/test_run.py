"""Teaching, from a set to a model that hears it: with tones for voices, so that it takes seconds."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kouling import audio, checkpoint, grammar, recognizer
from kouling.cli import main
from kouling.teach import lesson, run
from kouling.train.recipe import Scenes
from kouling.train.speak import BACKENDS, Texts
from tests.teach.conftest import spoken

SET = """
[[command]]
name = "lamp_on"
phrases = ["lamp on"]

[[command]]
name = "stop"
phrases = ["please stop", "halt now"]
"""


def teach(folder: Path, text: str = SET, *more: str) -> int:
    (folder / "set.toml").write_text(text, encoding="utf-8")
    cache = str(folder / "cache")
    return main(
        ["teach", str(folder / "set.toml"), "-o", str(folder / "model"), "--voices", "tones", "--cache", cache, *more]
    )


def test_a_set_is_taught_and_the_model_knows_its_commands(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert teach(tones, SET, "--epochs", "12", "--json", "--false-alarms-per-hour", "60") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["thresholds"]) == {"lamp_on", "stop"} and told["recall"] > 0.5
    assert "synthetic voices" in told["rests_on"]
    stream = recognizer.load(tones / "model")
    assert [spec.name for spec in stream.command_set.commands] == ["lamp_on", "stop"]
    heard = stream.accept(np.concatenate([np.zeros(8000, np.int16), spoken("lamp on", 130), np.zeros(16000, np.int16)]))
    assert [command.name for command in heard + stream.finish()] == ["lamp_on"]
    assert {path.name for path in (tones / "model").iterdir()} >= {
        "model.safetensors",
        "model.kouling",
        "commands.toml",
    }


def test_an_interrupted_run_goes_on_and_comes_to_the_same(
    tones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kouling.train.loop import Trainer

    whole = Trainer.train_epoch

    def interrupted(self: Trainer, *report: object) -> dict[str, float]:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return whole(self, *report)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    assert teach(tones, SET, "--epochs", "2") == 130
    assert "goes on from the last full epoch" in capsys.readouterr().err
    assert not (tones / "model" / "model.kouling").exists()
    monkeypatch.setattr(Trainer, "train_epoch", whole)
    assert teach(tones, SET, "--epochs", "2") == 0
    assert (tones / "model" / "model.kouling").exists()


def test_recordings_are_learned_from_and_bad_ones_are_named(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        path = tones / "mine" / "lamp_on" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, spoken("lamp on", 150 + 20 * number) if number else np.zeros(16000, np.int16))
    more = ("--epochs", "1", "--json", "--recordings", str(tones / "mine"))
    assert teach(tones, SET, *more) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["recordings"] == {"lamp on": 2}
    assert "0.wav:silent" in "".join(err.split())  # the terminal folds long lines


def test_more_goes_on_with_the_model_and_again_with_further_clips(
    tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach(tones, SET, "--epochs", "2") == 0
    seen = {(tones / "model" / "model.safetensors").read_bytes()}
    for number in range(2):
        clip = tones / "clips" / ("lamp_on" if number else "_unknown_") / f"{number}.wav"
        clip.parent.mkdir(parents=True, exist_ok=True)
        audio.write(clip, spoken("lamp on" if number else "halt paper", 170))
        capsys.readouterr()
        assert teach(tones, SET, "--epochs", "2", "--more", str(tones / "clips"), "--json") == 0
        assert sum(json.loads(capsys.readouterr().out)["recordings"].values()) == number + 1
        seen.add((tones / "model" / "model.safetensors").read_bytes())
    assert len(seen) == 3


def test_more_tells_which_phrase_of_a_command_was_said(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tones / "clips" / "stop"
    kept.mkdir(parents=True)
    audio.write(kept / "1.wav", spoken("halt now", 130))
    audio.write(kept / "2.wav", (1000 * np.random.default_rng(0).standard_normal(8000)).astype(np.int16))
    assert teach(tones, SET, "--epochs", "2", "--more", str(tones / "clips")) == 2  # nothing has been taught yet
    assert "allowed: folders named please_stop, halt_now" in capsys.readouterr().err
    assert teach(tones, SET, "--epochs", "12") == 0
    capsys.readouterr()
    assert teach(tones, SET, "--epochs", "2", "--more", str(tones / "clips"), "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["recordings"] == {"halt now": 1}
    assert "2.wav" in err and "none of the phrases of 'stop'" in " ".join(err.split())


GRAMMAR = """
[slots]
level = ["low", "middle", "high"]
[[command]]
name = "lamp"
phrases = ["lamp {level:level}"]
"""


LONG = """
[[command]]
name = "lamp_on"
phrases = ["turn on lamp"]

[[command]]
name = "stop"
phrases = ["please stop lamp now", "halt lamp"]
"""


def test_long_phrases_are_taught_by_words_and_so_are_many(
    tones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lesson, "SENTENCES", 240)
    asked = ("--epochs", "16", "--json", "--false-alarms-per-hour", "600")
    assert teach(tones, LONG, *asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recall"] > 0.5 and told["asked_per_hour"] == 600
    stream = recognizer.load(tones / "model")
    assert set(stream.info.units[2:]) == {"turn", "on", "lamp", "please", "stop", "now", "halt"}
    assert all(spec.graph for spec in stream.command_set.commands)
    said = np.concatenate([np.zeros(8000, np.int16), spoken("turn on lamp", 130), np.zeros(24000, np.int16)])
    assert [command.name for command in stream.accept(said) + stream.finish()] == ["lamp_on"]
    kept = tones / "clips" / "stop"
    kept.mkdir(parents=True)
    audio.write(kept / "1.wav", spoken("please stop lamp now", 130))
    assert teach(tones, LONG, "--epochs", "2", "--more", str(tones / "clips"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["recordings"] == {"please stop lamp now": 1}
    assert teach(tones, SET, "--more", str(tones / "clips")) == 2
    assert "was taught by words" in capsys.readouterr().err
    for one, by_phrase in (("lamp a", False), ("lampa", True)):
        phrases = [one, *(f"lamp{letter}" for letter in "bcdefghijk")]
        table = {"command": [{"name": f"c{n}", "phrases": [phrase]} for n, phrase in enumerate(phrases)]}
        plan = lesson.plan(grammar.read(table, "set"), "en", ["tones"])
        assert plan.by_phrase == by_phrase and len(plan.phrases) == 11 and lesson.size_of(plan, "en") == "base"
    # What sounds like a word is another one where the word stands alone; in a phrase the others tell.
    plan = lesson.plan(grammar.read(tomllib.loads(LONG.replace("halt lamp", "lamp")), "set"), "en", ["tones"])
    assert "damp" in {text for _, text, voices in plan.unknown.texts if voices > 1}
    plan = lesson.plan(grammar.read(tomllib.loads(LONG), "set"), "en", ["tones"])
    assert "stop" not in plan.command_of and plan.command_of["halt lamp"] == "stop"  # the lone word is not the command
    assert {voices for *_, voices in plan.unknown.texts} == {1}


def test_a_grammar_is_taught_word_by_word_and_so_is_running_speech(
    tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = tones / "background-words.tsv"
    rows = heard.read_text(encoding="utf-8").splitlines()
    rows[1] = rows[1].rpartition("\t")[0] + "\tlow"  # a word of the grammar, among others
    heard.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert teach(tones, GRAMMAR, "--epochs", "2") == 0
    stream = recognizer.load(tones / "model")
    assert set(stream.info.units[2:]) == {"lamp", "low", "middle", "high"}
    lexicon = dict(
        line.split("\t") for line in (tones / "model" / "work" / "lexicon.txt").read_text(encoding="utf-8").splitlines()
    )
    assert lexicon["low"] == "low" and lexicon["lamp high"] == "lamp high"
    others = {word for word, spelling in lexicon.items() if spelling == "<unk>"}
    cuts = (tones / "model" / "work" / "cuts.tsv").read_text(encoding="utf-8").splitlines()
    said = {word for line in cuts for word in line.split("\t")[3].split()}
    assert "low" in said and said - {"low"} == others


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[command]]\nname = "a"\nphrases = ["a"]\n', "one short sound"),
        (SET + '\n[[command]]\nname = "again"\nphrases = ["lampon"]\n', "sound the same"),
        ("[[command]]\nname = 3\n", "name is 3"),
        ("", "no commands"),
    ],
)
def test_sets_that_cannot_be_taught_are_refused_in_one_line(
    tones: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert teach(tones, text) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tones / "model" / "model.kouling").exists()


def test_every_start_that_comes_along_can_be_learned_from() -> None:
    for starts in lesson.STARTS.values():
        infos = {size: checkpoint.load_info(path) for size, path in starts.items()}
        assert all(info.config.encoder.layers > lesson.TRAINING.frozen_blocks for info in infos.values())
    assert lesson.start_of("de", "small") == lesson.STARTS["en"]["small"]
    with pytest.raises(ValueError, match="--size small; allowed for zh: base"):
        lesson.start_of("zh", "small")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no recording in it"),
        (lambda folder: (folder / "jump").mkdir(parents=True), "'jump' is no command"),
    ],
)
def test_wrong_recordings_are_refused(tones: Path, capsys: pytest.CaptureFixture[str], make: object, said: str) -> None:
    folder = tones / "mine"
    make(folder)  # type: ignore[operator]
    if (folder / "jump").is_dir():
        audio.write(folder / "jump" / "1.wav", spoken("jump"))
    assert teach(tones, SET, "--recordings", str(folder)) == 2
    assert said in capsys.readouterr().err


def test_without_a_synthesiser_the_error_says_how_to_get_one(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tones / "set.toml").write_text(SET, encoding="utf-8")
    for engine, said in (("piper", "pip install piper-tts"), ("nobody", "allowed: espeak-ng, flite")):
        assert main(["teach", str(tones / "set.toml"), "-o", str(tones / "model"), "--voices", engine]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "shapes", [(Scenes(3, 1.5, 0.7), Scenes(1, 3.0, 0.3)), (Scenes(4, 1.3, 0.3), Scenes(1, 6.0, 0.7))]
)
def test_rounding_is_weighed_by_as_many_scenes_whatever_their_shape(shapes: tuple[Scenes, ...]) -> None:
    class Drawn:
        recipe = SimpleNamespace(scenes=shapes)

        def some(self, words: float) -> list[SimpleNamespace]:
            rows = round(words * shapes[0].share / shapes[0].slots)
            return [SimpleNamespace(features=np.zeros((rows, 150, 64), np.float16))]

    assert len(run.some_scenes(Drawn())) == run.CALIBRATION_SCENES  # type: ignore[arg-type]


def test_enrolled_recordings_are_left_out_of_what_is_taught() -> None:
    told: list[str] = []
    both, only = {"name": "both", "phrases": ["x"], "enrolled": {}}, {"name": "only", "enrolled": {}}
    table = run.without_enrolled({"language": "en", "command": [both, only]}, told.append)
    assert table == {"language": "en", "command": [{"name": "both", "phrases": ["x"]}]}
    assert [line.split("'")[1] for line in told] == ["both", "only"]
    with pytest.raises(ValueError, match="every command was enrolled, and none has phrases"):
        run.without_enrolled({"command": [only]}, told.append)


def test_with_another_voice_installed_a_set_is_taught_anew(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sources() -> list[str]:
        plan = lesson.plan(grammar.read(tomllib.loads(SET), "set"), "en", ["tones"])
        start = lesson.start_of("en", "small")
        return [source.path for source in lesson.recipe_of(plan, "x", "en", start, tones / "work", None, 0).source]

    before, again = sources(), sources()
    assert before == again and Texts.load(Path(before[0])).voices == {"tones": ("100", "140", "200")}
    monkeypatch.setattr(BACKENDS["tones"], "voices", lambda language: ["100", "140", "200", "280"])
    changed = sources()
    assert len(set(before[:2] + changed[:2])) == 4 and changed[2:] == before[2:]


def test_a_command_of_few_sentences_is_spoken_in_more_voices(tones: Path) -> None:
    table = {
        "slots": {"drink": [f"drink{number}" for number in range(40)], "size": ["small", "large"]},
        "command": [
            {"name": "order", "phrases": ["{size} {drink} and {size} {drink}"]},
            {"name": "cancel", "phrases": ["cancel {size}"]},
        ],
    }
    texts = lesson.plan(grammar.read(table, "set"), "en", ["tones"]).spoken.texts
    said = {name: [n for label, _, n in texts if label.startswith(name)] for name in ("cancel ", "small drink")}
    assert said["cancel "] == [min(lesson.SENTENCES // 2 // 2, lesson.MOST_ALONE)] * 2
    assert set(said["small drink"]) == {1}
