"""A recipe is read strictly: what is misspelt, of a wrong type or impossible is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kouling.config import PRESETS
from kouling.train.recipe import Recipe, Scenes, Source, Training, from_dict, load

MINIMAL: dict[str, Any] = {"name": "tiny", "units": ["go", "stop"], "source": [{"path": "words.tar"}]}
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*/recipe.toml"))

PARENT = """\
name = "parent"
units = ["go", "stop"]
seed = 3
preset = "small"

[config.encoder]
layers = 3

[training]
epochs = 7
dropout = 0.25

[augment]
gain_db = 3.0

[mix]
balance = 1.0

[[source]]
path = "words.tar"

[[source]]
path = "spoken.txt"
use = "unknown"

[[scenes]]
slots = 2
"""


def refusal(table: dict[str, Any]) -> str:
    """The message that refuses a table, after checking that it is one line."""
    with pytest.raises(ValueError) as caught:
        from_dict(table)
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


def file_refusal(path: Path) -> str:
    """The message that refuses a file, after checking that it is one line that begins with it."""
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    return message


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def changed(**entries: Any) -> dict[str, Any]:
    return {**MINIMAL, **entries}


def test_what_a_recipe_leaves_out_has_its_default() -> None:
    recipe = from_dict(MINIMAL)
    assert recipe == Recipe(name="tiny", units=["go", "stop"], source=(Source(path="words.tar"),))
    assert recipe.config == PRESETS["base"] and recipe.scenes == (Scenes(),)


def test_every_part_of_a_recipe_arrives() -> None:
    recipe = from_dict(
        changed(
            preset="small",
            config={"encoder": {"layers": 3}, "max_command_duration_s": 4},
            scenes=[{"slots": 2, "slot_s": 1}, {"share": 0.5}],
            source=[
                {"path": "a", "rename": {"GO": "go"}},
                {"path": "b", "use": "noise", "part": "both", "exclude": ["x"]},
            ],
            training={"epochs": 2},
            seed=5,
        )
    )
    assert recipe.config.encoder.layers == 3 and recipe.config.encoder.hidden_size == 64
    assert recipe.config.max_command_duration_s == 4.0
    assert recipe.scenes == (Scenes(2, 1.0), Scenes(share=0.5))
    assert recipe.source == (Source("a", rename={"GO": "go"}), Source("b", "noise", "both", exclude=["x"]))
    assert (recipe.training, recipe.seed) == (Training(epochs=2), 5)


@pytest.mark.parametrize(
    ("entries", "key", "allowed"),
    [
        ({"unit": ["go"]}, "'unit'", "units"),
        ({"training": {"epoch": 3}}, "'training.epoch'", "training.epochs"),
        ({"augment": {"gain": 3.0}}, "'augment.gain'", "augment.gain_db"),
        ({"mix": {"unknown": 3.0}}, "'mix.unknown'", "mix.unknown_percent"),
        ({"source": [{"path": "a", "usage": "words"}]}, "'source.usage'", "source.use"),
        ({"scenes": [{"slot": 1}]}, "'scenes.slot'", "scenes.slots"),
        ({"config": {"encoder": {"layer": 1}}}, "'encoder.layer'", "encoder.layers"),
        ({"config": {"encodr": {}}}, "'encodr'", "encoder"),
    ],
)
def test_an_unknown_key_is_refused_with_those_there_are(entries: dict[str, Any], key: str, allowed: str) -> None:
    message = refusal(changed(**entries))
    assert f"unknown key {key}" in message and allowed in message.split("allowed: ")[1]


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"source": [{"path": "a", "use": "word"}]}, "'word'; allowed: words, unknown, speech, noise"),
        ({"source": [{"path": "a", "part": "test"}]}, "'test'; allowed: train, valid, both"),
        ({"source": [{"path": "a", "weight": 0.0}]}, "0.0; allowed: above 0"),
        ({"source": [{"use": "words"}]}, "without a path"),
        ({"source": [{"path": "a", "use": "unknown"}]}, "no source of words"),
        ({"source": [{"path": "a", "part": "valid"}]}, "no source of words"),
        ({"source": []}, "no source of words"),
        ({"source": {"path": "a"}}, "[[source]]"),
        ({"source": ["a"]}, "[[source]]"),
        ({"scenes": {"slots": 1}}, "[[scenes]]"),
        ({"scenes": [{"slots": 0}]}, "slots"),
        ({"units": []}, "no units"),
        ({"units": ["go", "go"]}, "twice"),
        ({"name": ""}, "no name"),
        ({"units": "go"}, "units is 'go'"),
        ({"units": [1, 2]}, "units"),
        ({"units": [["go"]]}, "units"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"training": 3}, "training is 3"),
        ({"training": {"epochs": "3"}}, "training.epochs is '3'"),
        ({"training": {"reuse": 0}}, "reuse"),
        ({"training": {"varying_cached": [50]}}, "varying_cached is [50]; allowed: [lowest, highest], or []"),
        ({"training": {"varying_chunk": [10, 5]}}, "varying_chunk is [10, 5]; allowed: [lowest, highest], or []"),
        ({"training": {"varying_cached": [2, 100]}}, "varying_cached is [2, 100]; this model allows: from 5 to 100"),
        ({"training": {"varying_cached": [50, 101]}}, "this model allows: from 5 to 100"),
        ({"training": {"varying_chunk": [4, 10]}}, "varying_chunk is [4, 10]; this model allows: from 5 to 10"),
        ({"training": {"varying_chunk": [5.0, 10]}}, "training.varying_chunk is [5.0, 10]"),
        ({"source": [{"path": 3}]}, "source.path is 3"),
        ({"source": [{"path": "a", "rename": ["go"]}]}, "source.rename is ['go']"),
        ({"preset": "huge"}, "'huge'; allowed: base, small"),
        ({"preset": ["base"]}, "['base']; allowed: base, small"),
        ({"config": 3}, "config is 3"),
        ({"config": {"encoder": {"hidden_size": 100}}}, "96 or 104"),
    ],
    ids=str,
)
def test_a_wrong_or_impossible_value_is_refused(entries: dict[str, Any], named: str) -> None:
    assert named in refusal(changed(**entries))


@pytest.mark.parametrize("missing", ["name", "units", "source"])
def test_what_a_recipe_must_have_is_asked_for(missing: str) -> None:
    table = changed()
    del table[missing]
    assert {"name": "no name", "units": "no units", "source": "no source of words"}[missing] in refusal(table)


def test_a_table_is_not_changed_by_reading_it() -> None:
    table = changed(config={"encoder": {"layers": 3}}, scenes=[{"slots": 2}])
    from_dict(table)
    assert table == changed(config={"encoder": {"layers": 3}}, scenes=[{"slots": 2}])


# Files


def test_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "'unit'" in file_refusal(written(tmp_path / "typo.toml", 'unit = ["go"]\n'))
    assert "line 2, column 9" in file_refusal(written(tmp_path / "broken.toml", 'name = "x"\nunits = = 3\n'))
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.toml")


def test_a_recipe_extends_another_key_by_key(tmp_path: Path) -> None:
    written(tmp_path / "parent" / "recipe.toml", PARENT)
    child = 'extends = "../parent/recipe.toml"\nname = "child"\n[training]\nepochs = 9\n[augment]\nroom_percent = 5.0\n'
    recipe, parent = load(written(tmp_path / "child" / "recipe.toml", child)), load(tmp_path / "parent" / "recipe.toml")
    assert recipe.name == "child"
    assert (recipe.training.epochs, recipe.training.dropout) == (9, 0.25)
    assert (recipe.augment.gain_db, recipe.augment.room_percent) == (3.0, 5.0)
    for key in ("units", "seed", "preset", "config", "mix", "source", "scenes"):
        assert getattr(recipe, key) == getattr(parent, key)


def test_a_child_changes_single_keys_of_the_configuration_and_replaces_sources_whole(tmp_path: Path) -> None:
    parent = load(written(tmp_path / "parent.toml", PARENT))
    child = 'extends = "parent.toml"\n[config.encoder]\nmax_cached_frames = 20\n[[source]]\npath = "other.tar"\n'
    recipe = load(written(tmp_path / "child.toml", child))
    assert recipe.source == (Source("other.tar"),)
    assert recipe.config.features == parent.config.features
    assert recipe.config.encoder == replace(parent.config.encoder, max_cached_frames=20)
    assert parent.config.encoder not in (recipe.config.encoder, PRESETS["small"].encoder)


def test_recipes_extend_one_another_over_several_steps(tmp_path: Path) -> None:
    written(tmp_path / "a" / "0.toml", PARENT)
    written(tmp_path / "b" / "1.toml", 'extends = "../a/0.toml"\nseed = 4\n[training]\nepochs = 8\n')
    recipe = load(written(tmp_path / "c" / "2.toml", 'extends = "../b/1.toml"\n[training]\nreuse = 2\n'))
    assert (recipe.name, recipe.seed) == ("parent", 4)
    assert (recipe.training.epochs, recipe.training.reuse, recipe.training.dropout) == (8, 2, 0.25)


def test_circular_extends_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.toml", 'extends = "b.toml"\n')
    written(tmp_path / "b.toml", 'extends = "a.toml"\n')
    assert "circle" in file_refusal(tmp_path / "a.toml")
    assert "circle" in file_refusal(written(tmp_path / "self.toml", 'extends = "self.toml"\n'))


@pytest.mark.parametrize("extends", ["3", '["a.toml"]', "true"])
def test_extends_is_a_path(extends: str, tmp_path: Path) -> None:
    assert "extends is" in file_refusal(written(tmp_path / "a.toml", f"extends = {extends}\n"))


def test_a_mistake_in_the_parent_names_the_parent(tmp_path: Path) -> None:
    written(tmp_path / "parent.toml", "= 3\n")
    assert "parent.toml" in file_refusal(written(tmp_path / "child.toml", 'extends = "parent.toml"\n'))


def test_a_file_beside_a_recipe_is_found_from_there(tmp_path: Path) -> None:
    """Also from a recipe in another folder that extends it; data that is not there is left to the data folders."""
    written(tmp_path / "parent" / "recipe.toml", PARENT)
    written(tmp_path / "parent" / "spoken.txt", "hello\n")
    written(tmp_path / "child" / "recipe.toml", 'extends = "../parent/recipe.toml"\n')
    for name in ("parent", "child"):
        words, spoken = load(tmp_path / name / "recipe.toml").source
        assert words.path == "words.tar"
        assert Path(spoken.path).read_text() == "hello\n"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_every_published_recipe_is_valid(path: Path) -> None:
    recipe = load(path)
    assert recipe.name == path.parent.name and recipe.licence


@pytest.mark.parametrize("other", [{"weights": "int4"}, {"frozen_blocks": 0}], ids=str)
def test_a_stem_that_does_not_learn_is_not_normalised(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="training.stem_norm is true where the stem is frozen or on int4 grids"):
        Training(stem_norm=True, **other)
    assert Training(stem_norm=True).stem_norm
