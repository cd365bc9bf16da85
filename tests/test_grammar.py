"""Command sets as they are written: what they can say, sentences drawn from them, and mistakes in one clear line."""

from __future__ import annotations

import random
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kouling import grammar, spoken_numbers
from kouling.commands import BLANK, UNKNOWN, parse
from kouling.grammar import Grammar

DOCS = Path(__file__).parents[1] / "docs" / "orders.md"
SLOTS = {"drink": ["latte", "flat white"], "size": {"small": ["small", "[very] little"], "large": "large|big"}}
PARTS = {"milk": "(no|some) milk", "with": "with <milk>"}


def command(*phrases: str, language: str = "en", **more: Any) -> Grammar:
    entry = {"name": "it", "phrases": list(phrases)}
    table = {"slots": SLOTS, "parts": PARTS, "language": language, "command": [entry], **more}
    return grammar.read(table, "set.toml").commands[0]


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:
        grammar.read({"command": [{"name": "go"}], **table}, "set.toml")
    message = str(caught.value)
    assert message.startswith("set.toml: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("phrase", "texts"),
    [
        ("a {drink}", ["a latte", "a flat white"]),
        (
            "{size} {drink}",
            [f"{s} {d}" for s in ("small", "very little", "little", "large", "big") for d in SLOTS["drink"]],
        ),
        ("{n:number(1..2)} cups", ["one cups", "two cups"]),
        ("<with>", ["with no milk", "with some milk"]),
        ("a light[s] {drink}", ["a lights latte", "a lights flat white", "a light latte", "a light flat white"]),
        ("(one & two) {d:drink}", [f"{o} {d}" for o in ("one two", "two one") for d in SLOTS["drink"]]),
        ("go [left & right]", ["go left right", "go right left", "go left", "go right", "go"]),
        ("go {x:drink} [{y:drink}]", None),
        ("(go)+", None),
    ],
)
def test_texts_are_every_sentence_or_none_at_all(phrase: str, texts: list[str] | None) -> None:
    found = command(phrase).texts(10 if texts is None or len(texts) > 4 else len(texts))
    assert found == texts if phrase != "go {x:drink} [{y:drink}]" else sorted(found or ()) != []


def test_texts_are_none_beyond_the_number_asked_for() -> None:
    assert command("{n:number}").texts(1000) is None and command("(a|b|c)").texts(2) is None
    assert command("(a|b|c)").texts(3) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "phrase", ["[a] {size} [{drink}]", "({drink} [and])+", "[{size} & {n:number} & <milk>] go", "{who:digits}"]
)
def test_sentences_are_drawn_from_what_can_be_said(phrase: str) -> None:
    of = command(phrase)
    texts = {of.sample(random.Random(seed))[0] for seed in range(200)}
    assert len(texts) > 5 and {word for text in texts for word in text.split()} <= set(of.words())
    assert of.sample(random.Random(1)) == of.sample(random.Random(1))


def test_every_value_and_every_option_is_drawn() -> None:
    of = command("[please] {size} {drink}")
    drawn = [of.sample(random.Random(seed)) for seed in range(300)]
    assert {text for text, _ in drawn} == set(of.texts(100) or ())
    small = sum(slots["size"] == "small" for _, slots in drawn)
    assert 100 < small < 200  # values are equally likely, however many ways there are to say them


def test_words_are_those_of_slots_and_numbers_too() -> None:
    assert command("go {n:number(19..21)} {drink} [s]").words() == "go nineteen twenty one latte flat white s".split()
    assert set(command("{n:number}").words()) == set(
        "zero a and hundred".split() + spoken_numbers.ONES + spoken_numbers.TENS
    )
    assert "幺" in command("{n:digits}", language="zh").words()
    assert grammar.words({"command": [{"name": "go_left"}]}) == ["go", "left"]


@pytest.mark.parametrize("language", spoken_numbers.LANGUAGES)
def test_numbers_are_what_their_words_add_up_to_and_no_way_says_two(language: str) -> None:
    said: dict[str, int] = {}
    for value in range(spoken_numbers.MOST_NUMBER + 1):
        for way in spoken_numbers.number(value, language):
            assert sum(each.adds for each in way) == value
            assert said.setdefault(" ".join(each.text for each in way), value) == value
    known = {
        "en": {"a hundred and five": 105, "one hundred five": 105, "twenty five": 25, "nine hundred ninety nine": 999},
        "zh": {
            "一 百 零 五": 105,
            "两 百": 200,
            "二 百": 200,
            "一 百 五": 150,
            "一 百 一 十": 110,
            "十 二": 12,
            "九 百 九 十 九": 999,
        },
    }[language]
    assert {text: said[text] for text in known} == known


def test_say_is_kept_for_those_who_speak() -> None:
    read = grammar.read(
        {"say": {"Latte": "lah tay", "go": ["goh"]}, "command": [{"name": "go", "say": ["gow", "go"]}]}, "set.toml"
    )
    assert read.say == {"latte": ("lah tay",), "go": ("goh",)} and read.commands[0].say == ("gow", "go")


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ({"slots": {"a": []}}, ["slot 'a' has no values", "needed: one or more"]),
        ({"slots": {"a": {}}}, ["slot 'a' has no values"]),
        ({"slots": {"a": "b"}}, ["slot 'a' is 'b'", "a list of values"]),
        ({"slots": {"a": [1]}}, ["value 1 is said 1", "a string"]),
        ({"slots": {"a": {"b": []}}}, ["value 'b' is said []"]),
        ({"slots": {"a": ["x", "X"]}}, ["'x' says both 'x' and 'X'"]),
        ({"slots": {"a": ["[x]"]}}, ["value '[x]'", "it can be empty"]),
        ({"slots": {"a": {"b": "{number}"}}}, ["value 'b'", "it has slots, repetition or order in it"]),
        ({"slots": {"number": ["x"]}}, ["slot 'number' cannot be called so", "number, digit, digits"]),
        ({"slots": {"a": [f"w{n}" for n in range(5001)]}}, ["5,001 values", "5,000 or fewer"]),
        ({"parts": {"a": "x <b>", "b": "<a>"}}, ["the part <b> is made of itself: b -> a -> b"]),
        ({"parts": {"a": "<a>"}}, ["the part <a> is made of itself: a -> a"]),
        ({"parts": {"a": "(x"}}, ["part 'a'", "is never closed"]),
        ({"parts": {"a": 1}}, ["part 'a' is 1", "a phrase as a string"]),
        ({"parts": {f"p{n}": f"<p{n + 1}> <p{n + 1}>" for n in range(40)} | {"p40": "x"}}, ["100,000 characters"]),
        ({"say": {"a": [1]}}, ["say of 'a' is [1]", "a list of strings"]),
        ({"language": 3}, ["language is 3", "a string"]),
        ({"fillers": 2}, ["fillers is 2", "from 0 to 1"]),
        ({"max_command_duration_s": 0}, ["max_command_duration_s is 0", "above 0"]),
        ({"slots": []}, ["slots is [] (list)", "a [slots] table"]),
        ({"command": [{"name": f"c{n}"} for n in range(5000)]}, ["5,000 commands", "2,000 or fewer"]),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(table: dict[str, Any], parts: list[str]) -> None:
    message = refusal(table)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("go {drnk}", "there are no values of the slot 'drnk'; allowed: drink, size, number, digit, digits"),
        ("go {drink", "'{' at column 4 has no other half"),
        ("go }", "'}' at column 4 has no other half"),
        ("go {}", "'{}' at column 4 names no slot"),
        ("{drink}s", "a slot, a repetition or an order is joined to a word; needed: a space"),
        ("(a)+s", "a slot, a repetition or an order is joined to a word"),
        ("<mlk>", "there is no part <mlk>; allowed: <milk>, <with>"),
        ("(a & b | c)", "'|' and '&' stand in one bracket"),
        ("(a & )", "nothing to say at column 5"),
        ("(a & b & c & d & e & f & g)", "7 members in any order; allowed: 6 or fewer"),
        ("[a & b]", "it can be empty"),
        ("(a)*", "it can be empty"),
        ("(a)++", "a slot, a repetition or an order is joined to a word"),
        ("{x:number(9..3)}", "'number(9..3)' has no such range; allowed: 0 to 999"),
        ("{x:number(0..1000)}", "'number(0..1000)' has no such range"),
        ("{x:number(5)}", "'number(5)' has no end"),
        ("{x:digits(9)}", "'digits(9)' has no such length; allowed: 1 to 8"),
        ("{x:number(a)}", "'number(a)' is no number"),
        ("{x:drink} {x:size}", "slot 'x' is drink and size; allowed: one"),
    ],
)
def test_a_malformed_phrase_is_refused_with_the_place(phrase: str, expected: str) -> None:
    table = {"slots": SLOTS, "parts": PARTS, "command": [{"name": "it", "phrases": [phrase]}]}
    message = refusal(table)
    assert message.startswith(f"set.toml: command 'it': phrase {phrase!r}: ") and expected in message, message


def test_numbers_are_refused_in_languages_that_have_none_here() -> None:
    assert command("salut", language="fr").words() == ["salut"]
    with pytest.raises(ValueError, match=r"'number' is not known in the language 'fr'; allowed: en, zh"):
        command("{number}", language="fr")


@pytest.mark.parametrize(
    "phrase", ["({drink})+ " * 200, "{n:number} " * 300, "(" + " & ".join(["{n:number}"] * 6) + ")"]
)
def test_a_graph_that_grows_too_large_is_refused_at_once(phrase: str) -> None:
    table = {"slots": {"drink": [f"latte{n}" for n in range(400)]}, "command": [{"name": "it", "phrases": [phrase]}]}
    units = (BLANK, UNKNOWN, *grammar.words(table))
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"set: command 'it': phrase .* in its graph; allowed: fewer"):
        parse(table, units, "set")
    assert time.monotonic() - started < 20


def test_the_set_of_the_manual_is_one() -> None:
    text = DOCS.read_text(encoding="utf-8")
    (block,) = [each for each in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "coffee.toml" in each]
    read = grammar.read(tomllib.loads(block), "coffee.toml")
    assert read.commands[0].texts(200_000) is None
    (order, cancel) = parse(tomllib.loads(block), (BLANK, UNKNOWN, *read.words()), "coffee.toml").commands
    assert order.graph and len(order.graph.unit) < 1000 and cancel.graph is None and len(cancel.sequences) == 2
