"""Contexts of Picovoice Rhino become command sets that mean the same; mistakes are told with their line."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kouling import grammar, rhino
from kouling.commands import BLANK, UNKNOWN, parse

COFFEE = Path(__file__).parents[1] / "examples" / "coffee.yaml"


def imported(text: str) -> dict[str, Any]:
    table = tomllib.loads(rhino.to_toml(text, "context.yaml"))
    grammar.read(table, "imported")
    return table


def of(*expressions: str, more: str = "") -> str:
    lines = "".join(f'      - "{each}"\n' for each in expressions)
    return f"context:\n  expressions:\n    it:\n{lines}{more}"


SLOTS = "  slots:\n    color:\n      - red\n      - dark blue\n    number:\n      - lots\n"
MACROS = "  macros:\n    please:\n      - please\n      - would you (@kindly)\n    kindly:\n      - kindly\n"


@pytest.mark.parametrize(
    ("expression", "phrase"),
    [
        ("turn the lamp on", "turn the lamp on"),
        ("[turn, switch] (the, a) lamp on", "(turn|switch) [the|a] lamp on"),
        ("[turn (it, that) on, start] now", "(turn [it|that] on|start) now"),
        ("[a,b](c)[d , e f]", "(a|b) [c] (d|e f)"),
        ("make it $color:shade", "make it {shade:color}"),
        ("from $color:first to $color:second", "from {first:color} to {second:color}"),
        ("make it $color", "make it {color:color}"),
        ("take $number:many", "take {many:number_value}"),
        ("(@please) go", "[<please>] go"),
        ("$pv.TwoDigitInteger:minutes minutes", "{minutes:number(0..99)} minutes"),
        ("$pv.SingleDigitInteger:cups cups", "{cups:number(0..9)} cups"),
        ("dim to $pv.Percent:level", "dim to {level:number(0..100)} percent"),
        ("the $pv.SingleDigitOrdinal:place one", "the {place:ordinal} one"),
        ("the $pv.TwoDigitOrdinal:place one", "the {place:ordinal_of_two_digits} one"),
        ("line $pv.Alphabetic:line", "line {line:letter}"),
    ],
)
def test_expressions_become_phrases(expression: str, phrase: str) -> None:
    assert imported(of(expression, more=SLOTS + MACROS))["command"][0]["phrases"] == [phrase]


def test_ordinals_are_said_as_words() -> None:
    table = imported(of("the $pv.TwoDigitOrdinal:place one"))
    values = table["slots"]["ordinal_of_two_digits"]
    assert [values[n] for n in ("0", "1", "12", "20", "21", "40", "99")] == [
        *("zeroth", "first", "twelfth", "twentieth", "twenty first", "fortieth", "ninety ninth")
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("context:\n  expressions:\n    it:\n      - [turn, on] now\n", 4, "no YAML: "),
        ("", 1, "the file is empty; needed: names"),
        ("hello\n", 1, "the file is 'hello'; needed: names"),
        ("intents: {}\n", 1, "the file has 'intents'; needed: 'context' alone"),
        ("context:\n  expressions: {}\n", 2, "expressions are empty"),
        ("context:\n  slots:\n    a: [b]\n", 2, "context has no expressions"),
        ("context:\n  words: []\n", 2, "context has 'words'; allowed: expressions, slots, macros"),
        ("context:\n  expressions:\n    it: go\n", 3, "intent 'it' is 'go'; needed: a list"),
        ("context:\n  expressions:\n    it:\n      - go\n      - [a]\n", 5, "intent 'it' has a list in its list"),
        ("context:\n  expressions:\n    it:\n      - go\n    it:\n      - stop\n", 5, "expressions has 'it' twice"),
        (of("go [a, b"), 4, "'[' is never closed"),
        (of("go", "go (a]"), 5, "']' closes no bracket of its kind"),
        (of("go, stop"), 4, "a comma stands outside of brackets"),
        (of("go [a, ]"), 4, "nothing to say"),
        (of("(go)"), 4, "it can be empty"),
        (of("go $color:c"), 4, "there is no slot $color; allowed: none"),
        (of("go @please"), 4, "there is no macro @please; allowed: none"),
        (of("go {x}"), 4, "'go {x}' means nothing"),
        (of("call $pv.PhoneNumber:who"), 4, "$pv.PhoneNumber has nothing like it in kouling; allowed: $pv."),
        (
            of("go", more="  slots:\n    color:\n      - red\n      - red\n"),
            8,
            "slot 'color' has the value 'red' twice",
        ),
        (of("go", more="  slots:\n    color:\n"), 6, "slot 'color' is empty; needed: a list"),
        (of("go", more="  macros:\n    a:\n      - '@b'\n    b:\n      - x @a\n"), 7, "is made of itself"),
        (of("$color:a $other:a", more=SLOTS + "    other:\n      - x\n"), 4, "slot 'a' is color and other"),
    ],
)
def test_a_wrong_context_is_refused_with_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        rhino.to_toml(text, "context.yaml")
    message = str(caught.value)
    assert message.startswith(f"context.yaml: line {line}: ") and reason in message and "\n" not in message


def test_the_coffee_maker_is_imported_and_never_expanded() -> None:
    table = imported(COFFEE.read_text(encoding="utf-8"))
    read = grammar.read(table, "coffee")
    order = read.commands[0]
    assert (order.name, order.texts(200_000)) == ("orderBeverage", None)
    spec = parse(table, (BLANK, UNKNOWN, *read.words()), "coffee").commands[0]
    assert spec.graph and len(spec.graph.unit) < 2000 and not spec.sequences
    drawn: dict[str, set[str]] = {}
    for seed in range(300):
        for name, value in order.sample(random.Random(seed))[1].items():
            drawn.setdefault(name, set()).update(value if isinstance(value, list) else [str(value)])
    assert {name: sorted(values) for name, values in drawn.items()} == {
        name: sorted(values) for name, values in table["slots"].items()
    }
