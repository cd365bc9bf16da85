"""What can be said: phrases expand to every way to say them, and mistakes are refused in one clear line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kouling import commands
from kouling.commands import BLANK, UNKNOWN, Command, CommandSet, CommandSpec, every_unit, load, parse

ENGLISH = [
    BLANK,
    UNKNOWN,
    *"turn switch on off the light lights please kitchen go no stop Open down".split(),
    "shut down",
]
MANDARIN = [BLANK, UNKNOWN, "中国", "北京", "打开", "打", "开灯", "电视", "灯", "中国人", "民", "人民币", "tv"]


def said(phrase: str, units: list[str] = ENGLISH) -> list[str]:
    """Every way to say a phrase, its units joined by `+`."""
    spec = parse({"command": [{"name": "it", "phrases": [phrase]}]}, units, "set.toml").commands[0]
    return ["+".join(units[index] for index in sequence) for sequence in spec.sequences]


def refusal(table: dict[str, Any], units: list[str] = ENGLISH) -> str:
    """The message that refuses a table, after checking that it is one line that begins with the file."""
    with pytest.raises(ValueError) as caught:
        parse(table, units, "set.toml")
    message = str(caught.value)
    assert message.startswith("set.toml: ")
    assert len(message.splitlines()) == 1
    return message


def phrase_refusal(phrase: str, units: list[str] = ENGLISH) -> str:
    message = refusal({"command": [{"name": "fine", "phrases": ["go"]}, {"name": "lamp", "phrases": [phrase]}]}, units)
    where = f"set.toml: command 'lamp': phrase {phrase!r}: "
    assert message.startswith(where)
    return message.removeprefix(where)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("lights on", ["lights+on"]),
        ("  lights\t on\n", ["lights+on"]),
        ("(turn|switch) on", ["turn+on", "switch+on"]),
        ("(turn on|off)", ["turn+on", "off"]),
        ("[please] go", ["please+go", "go"]),
        ("go[ please]", ["go+please", "go"]),
        ("[turn|switch] off", ["turn+off", "switch+off", "off"]),
        (
            "(turn on|switch off) [the] lights",
            "turn+on+the+lights turn+on+lights switch+off+the+lights switch+off+lights".split(),
        ),
        ("go [the [kitchen (light|lights)]]", ["go+the+kitchen+light", "go+the+kitchen+lights", "go+the", "go"]),
        ("((turn|switch) (on|off)|go)", ["turn+on", "turn+off", "switch+on", "switch+off", "go"]),
        ("([the] kitchen|go)", ["the+kitchen", "kitchen", "go"]),
        ("go|stop", ["go", "stop"]),
        ("light[s] on", ["lights+on", "light+on"]),
        ("go [[the]] [[[please]]]", ["go+the+please", "go+the", "go+please", "go"]),
        ("（ＧＯ｜stop）", ["go", "stop"]),
    ],
)
def test_a_phrase_expands_to_every_way_to_say_it_in_written_order(phrase: str, expected: list[str]) -> None:
    assert said(phrase) == expected


def test_sequences_of_a_command_are_distinct_and_keep_the_order_of_its_phrases() -> None:
    table = {"command": [{"name": "it", "phrases": ["stop", "[the] (go|go)", "go", "the stop"]}]}
    sequences = parse(table, ENGLISH, "set.toml").commands[0].sequences
    words = [[ENGLISH[index] for index in sequence] for sequence in sequences]
    assert words == [["stop"], ["the", "go"], ["go"], ["the", "stop"]]


@pytest.mark.parametrize("phrase", ["open", "OPEN", "Open", "oPEN", "ｏｐｅｎ"])
def test_words_match_units_without_regard_to_case_and_width(phrase: str) -> None:
    assert said(phrase) == ["Open"]


def test_case_folds_beyond_ascii_and_accents_match_in_either_form() -> None:
    assert said("STRASSE", ["Straße"]) == ["Straße"]
    assert said("e\u0301te\u0301", ["\u00c9t\u00e9"]) == ["\u00c9t\u00e9"]


def test_a_unit_may_hold_several_words() -> None:
    assert said("please shut down") == ["please+shut down"]
    assert said("(please|shut) down") == ["please+down", "shut down"]
    assert said("shut down", [" Shut  Down"]) == [" Shut  Down"]
    assert "'shut'" in phrase_refusal("shut the light")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("中国北京", ["中国+北京"]),
        ("中国 北京", ["中国+北京"]),
        ("打开灯", ["打开+灯"]),  # or 打 + 开灯: equally few, the longest first
        ("打 开灯", ["打+开灯"]),  # a written space is kept
        ("中国人民币", ["中国+人民币"]),  # greedy 中国人 would leave 民 and 币, which is none
        ("中国人民", ["中国人+民"]),
        ("打开(电视|[北京]灯)", ["打开+电视", "打开+北京+灯", "打开+灯"]),
        ("(中|[北京]中)国人", ["中国人", "北京+中国人"]),
        ("打开TV", ["打开+tv"]),
    ],
)
def test_scripts_without_spaces_are_segmented_into_units(phrase: str, expected: list[str]) -> None:
    assert said(phrase, MANDARIN) == expected


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (["甲乙丙", "丁", "戊", "甲乙", "丙丁戊"], "甲乙+丙丁戊"),  # two, though the other way begins with a longer one
        (["甲", "乙丙丁", "戊", "甲乙", "丙", "丁戊"], "甲乙+丙+丁戊"),  # both three
    ],
)
def test_segmentation_takes_the_fewest_units_then_the_longest_first(units: list[str], expected: str) -> None:
    assert said("甲乙丙丁戊", units) == [expected]


@pytest.mark.parametrize(
    "units",
    [
        ["時々", "tv"],
        ["つけて", "ください"],
        ["テレビ", "ライト"],
        ["เปิด", "ไฟ"],
        ["ເປີດ", "ໄຟ"],
        ["បើក", "ភ្លើង"],
        ["ဖွင့်", "မီး"],
        ["སྒོ", "ཕྱེ"],
    ],
)
def test_every_script_without_spaces_is_segmented(units: list[str]) -> None:
    assert said("".join(units), units) == ["+".join(units)]


def test_words_of_other_scripts_are_never_segmented() -> None:
    assert "does not know the word 'noon'" in phrase_refusal("noon")  # no + on


def test_the_part_that_no_unit_spells_is_named() -> None:
    message = phrase_refusal("go中国火星", [*MANDARIN, "go"])
    assert message.startswith("the model does not know the word '火星'")


def test_a_set_from_toml_holds_phrases_as_written_and_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "set.toml"
    path.write_text(
        "threshold = 0.5\nrefractory_s = 1\nhesitation_s = 0\n"
        '[[command]]\nname = "lights_on"\nphrases = ["Turn on [the] lights"]\nthreshold = 1\n'
        '[[command]]\nname = "shut_DOWN"\n',
        encoding="utf-8",
    )
    units = ["turn", "on", "the", "lights", "shut", "down"]
    lights = CommandSpec("lights_on", ("Turn on [the] lights",), ((0, 1, 2, 3), (0, 1, 3)), 1.0)
    shut = CommandSpec("shut_DOWN", ("shut DOWN",), ((4, 5),), None)
    assert load(path, units) == load(str(path), units) == CommandSet((lights, shut), 0.5, 1.0, 0.0)


def test_thresholds_and_refractory_time_are_optional() -> None:
    loaded = parse({"command": [{"name": "go"}]}, ENGLISH, "set.toml")
    assert (loaded.threshold, loaded.refractory_s, loaded.commands[0].threshold) == (None, None, None)


def test_broken_toml_is_refused_with_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('[[command]]\nname = "go\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.toml: not valid TOML: .*line 2, column \d+") as caught:
        load(path, ENGLISH)
    assert len(str(caught.value).splitlines()) == 1


def test_every_unit_is_one_command_per_word_unit() -> None:
    units = [BLANK, "yes", UNKNOWN, "shut down", "<noise>", "打开"]
    expected = [("yes", 1), ("shut down", 3), ("打开", 5)]
    assert every_unit(units) == CommandSet(tuple(CommandSpec(unit, (unit,), ((index,),)) for unit, index in expected))
    with pytest.raises(ValueError, match="no word among the model's units"):
        every_unit([BLANK, UNKNOWN])


def test_a_command_event_cannot_be_changed_and_has_no_slots_by_default() -> None:
    event = Command("go", 1.0, 1.5, 0.9)
    assert event.slots == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.name = "stop"  # type: ignore[misc]


GO = {"name": "go", "phrases": ["go"]}


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ({}, ["no commands", "[[command]]"]),
        ({"command": []}, ["no commands", "[[command]]"]),
        ({"command": GO}, ["command is {", "(dict)", "[[command]] tables"]),
        ({"command": [GO, "stop"]}, ["command is [", "(list)", "[[command]] tables"]),
        (
            {"command": [GO], "treshold": 0.5},
            ["unknown key 'treshold'", "threshold, refractory_s, hesitation_s"],
        ),
        ({"command": [GO], "threshold": 1.01}, ["threshold is 1.01", "from 0 to 1"]),
        ({"command": [GO], "threshold": "high"}, ["threshold is 'high'", "from 0 to 1"]),
        ({"command": [GO], "threshold": float("nan")}, ["threshold is nan", "from 0 to 1"]),
        ({"command": [GO], "refractory_s": -1}, ["refractory_s is -1", "from 0 to 10"]),
        ({"command": [GO], "refractory_s": 10.5}, ["refractory_s is 10.5", "from 0 to 10"]),
        ({"command": [GO], "hesitation_s": "no"}, ["hesitation_s is 'no'", "from 0 to 10"]),
        ({"command": [GO | {"treshold": 1}]}, ["command 'go'", "unknown key 'treshold'", "name, phrases, threshold"]),
        ({"command": [GO | {"threshold": -0.1}]}, ["command 'go'", "threshold is -0.1", "from 0 to 1"]),
        ({"command": [GO | {"threshold": True}]}, ["command 'go'", "threshold is True", "from 0 to 1"]),
        ({"command": [GO, {"phrases": ["stop"]}]}, ["command number 2", "name is missing"]),
        ({"command": [{"name": 7}]}, ["command number 1", "name is 7", "a string"]),
        ({"command": [{"name": ""}]}, ["command ''", "name is ''", "none of '', '_unknown_', '_silence_'"]),
        ({"command": [{"name": " \n"}]}, ["name is ' \\n'", "none of '', '_unknown_', '_silence_'"]),
        ({"command": [{"name": "_unknown_"}]}, ["name is '_unknown_'", "none of '', '_unknown_', '_silence_'"]),
        ({"command": [{"name": "_silence_"}]}, ["name is '_silence_'", "none of '', '_unknown_', '_silence_'"]),
        ({"command": [GO, {"name": "go", "phrases": ["stop"]}]}, ["command 'go'", "taken by an earlier command"]),
        ({"command": [GO | {"phrases": "go"}]}, ["command 'go'", "phrases is 'go' (str)", "a list of strings"]),
        ({"command": [GO | {"phrases": ["go", 3]}]}, ["command 'go'", "phrases is ['go', 3]", "a list of strings"]),
        ({"command": [GO | {"phrases": []}]}, ["command 'go'", "phrases is empty", "one phrase or more"]),
        ({"command": [{"name": "dance"}]}, ["command 'dance'", "phrase 'dance'", "does not know the word 'dance'"]),
        (
            {"command": [GO, {"name": "run", "phrases": ["stop", "[please] GO"]}]},
            ["command 'run'", "'go' is a phrase of command 'go' too"],
        ),
    ],
)
def test_a_mistake_is_refused_with_what_was_given_and_what_is_allowed(table: dict[str, Any], parts: list[str]) -> None:
    message = refusal(table)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("key", ["threshold", "refractory_s", "hesitation_s"])
def test_the_ends_of_the_range_are_allowed(key: str) -> None:
    for value in (0, 1):
        loaded = getattr(parse({"command": [GO], key: value}, ENGLISH, "set.toml"), key)
        assert loaded == value and isinstance(loaded, float)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("", "it is empty"),
        (" \t", "it is empty"),
        ("[go]", "it can be empty"),
        ("[go] [[the] lights]", "it can be empty"),
        ("go|[stop]", "it can be empty"),
        ("(go|) on", "nothing to say at column 5"),
        ("go ()", "nothing to say at column 5"),
        ("go [ ]", "nothing to say at column 5"),
        ("go || stop", "nothing to say at column 5"),
        ("(go", "'(' at column 1 is never closed; needed: ')'"),
        ("go [the (light|lights)", "'[' at column 4 is never closed; needed: ']'"),
        ("go)", "')' at column 3 closes no bracket of its kind"),
        (")", "')' at column 1 closes no bracket of its kind"),
        ("(go [the) lights]", "')' at column 9 closes no bracket of its kind"),
        (BLANK, "the model does not know the word '<blank>'"),
        (UNKNOWN, "the model does not know the word '<unk>'"),
    ],
)
def test_a_malformed_phrase_is_refused_with_the_place(phrase: str, expected: str) -> None:
    assert phrase_refusal(phrase).startswith(expected)


def test_an_unknown_word_is_named_with_the_nearest_and_the_words_of_the_model() -> None:
    message = phrase_refusal("turn on the kichen Lihgts")
    assert message.startswith(
        "the model does not know the word 'kichen', nearest 'kitchen'; allowed: 'turn', 'switch', "
    )
    assert message.endswith("'Open', 'down', 'shut down'")
    assert BLANK not in message and UNKNOWN not in message
    assert "nearest" not in phrase_refusal("xylophone")


def test_a_long_list_of_words_is_cut() -> None:
    words = ["go", *(f"word{number:02}" for number in range(1, 50))]
    assert phrase_refusal("xylophone", words[:40]).endswith("'word38', 'word39'")
    assert phrase_refusal("xylophone", words).endswith("'word38', 'word39' ... and 10 more")


def test_units_that_compare_equal_are_refused() -> None:
    assert "'go' and 'GO' differ in case or form only" in refusal({"command": [GO]}, ["go", "GO"])


def test_the_length_of_a_phrase_is_limited() -> None:
    assert said("go " * 32) == ["+".join(["go"] * 32)]
    assert said("shut down " * 32) == ["+".join(["shut down"] * 32)]
    assert phrase_refusal("go " * 33) == "it has more than 32 words; allowed: fewer"
    assert phrase_refusal("中国" * 33, [*MANDARIN, "go"]) == "it has more than 32 words; allowed: fewer"


@pytest.mark.parametrize(
    "phrase",
    [
        "[go] " * 60 + "stop",
        "stop " + "[go (on|off) [please] " * 20 + "]" * 20,
        "stop" + " (go|on|off|the)" * 30,
        "(" * 60 + "go" + " [the])" * 60,
        "|".join("stop [a] [b] [c] [d] [e] [f] [g] [h] [i] [j]".replace("[", f"[{number}") for number in range(9)),
    ],
)
def test_an_explosion_is_refused_before_it_happens(phrase: str) -> None:
    assert "more than 2,000 word sequences" in phrase_refusal(phrase)


def test_repetitions_do_not_count_as_more_ways() -> None:
    assert said("|".join(["go"] * 2001)) == ["go"]
    assert said("打" + "[开]" * 20, ["打", "开"]) == ["打" + "+开" * times for times in range(20, -1, -1)]


def test_deep_nesting_is_read_to_its_limit_and_refused_beyond() -> None:
    assert said("stop " + "[" * 64 + "go" + "]" * 64) == ["stop+go", "stop"]
    for depth in (65, 100_000):
        assert "'[' at column 70 is nested too deep; allowed: 64 levels" in phrase_refusal("stop " + "[" * depth)


def test_sequences_are_counted_over_the_phrases_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_SEQUENCES_PER_COMMAND", 3)
    entry = {"name": "it", "phrases": ["[please] go", "stop"]}
    assert len(parse({"command": [entry]}, ENGLISH, "set.toml").commands[0].sequences) == 3
    entry["phrases"] = ["[please] go", "[please] stop"]
    assert "phrase '[please] stop': the command has more than 3 word" in refusal({"command": [entry]})


def test_sequences_are_counted_over_the_commands_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_SEQUENCES_PER_SET", 3)
    entries = [{"name": "go", "phrases": ["[please] go"]}, {"name": "stop"}]
    assert len(parse({"command": entries}, ENGLISH, "set.toml").commands) == 2
    message = refusal({"command": [*entries, {"name": "on"}]})
    assert "command 'on': the set has more than 3 word sequences" in message
