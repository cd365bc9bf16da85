"""A Picovoice Rhino context (YAML) as a command set of kouling: intents become commands, macros become parts.

Expressions differ in their brackets: `[a, b]` is one of them, `(a)` may be left out, `$type:name` is a slot, `@name` a
macro. Built-in slots become numbers or lists, where kouling has the like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import tomlkit
import yaml

from kouling import grammar, phrases
from kouling.slot_types import BUILT_IN
from kouling.spoken_numbers import TENS

TOKEN = re.compile(r"[\[\](),]|\$[\w.]+(?:\s*:\s*\w+)?|@\w+|[^\[\](),$@]+|.")
FOREIGN = re.compile(r"[{}<>|&+*]")  # of kouling's phrases
SECTIONS = ("expressions", "slots", "macros")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST = "zeroth first second third fourth fifth sixth seventh eighth ninth".split()
TEENTHS = "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth".split()


@dataclass
class _Context:
    """What is read so far."""

    commands: list[tuple[str, list[str]]] = field(default_factory=list)
    slots: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)  # slots that are called as one of ours is


def to_toml(text: str, name: str) -> str:
    """The command set of a context, as TOML. name: where it came from, in errors.

    Raises: ValueError, one line with the number of the line and the reason, for a text that is no context and for what
    kouling has not; slots that need another kind of value are named.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(f"{name}: {f'line {mark.line + 1}: ' if mark else ''}no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: no YAML: {' '.join(str(error).split())}") from None
    try:
        context = _context(root)
        table = _table(context)
        grammar.read(table, name)
    except _AtLine as error:
        raise ValueError(f"{name}: line {error.line}: {error}") from None
    return f"# Made of {name} by `kouling import rhino`.\n\n{tomlkit.dumps(_document(context))}"


class _AtLine(ValueError):
    def __init__(self, node: yaml.Node | None, reason: str) -> None:
        super().__init__(reason)
        self.line = node.start_mark.line + 1 if node else 1


def _context(root: yaml.Node | None) -> _Context:
    top = dict(_entries(root, "the file"))
    if list(top) != ["context"]:
        raise _AtLine(root, f"the file has {', '.join(map(repr, top)) or 'nothing'}; needed: 'context' alone")
    sections = dict(_entries(top["context"], "context"))
    for section in sections:
        if section not in SECTIONS:
            raise _AtLine(sections[section], f"context has {section!r}; allowed: {', '.join(SECTIONS)}")
    if "expressions" not in sections:
        raise _AtLine(top["context"], "context has no expressions; needed: an intent with its expressions")
    made = _Context()
    lines: dict[str, yaml.Node] = {}
    for slot, node in _entries(sections.get("slots"), "slots") if "slots" in sections else ():
        own = made.renamed[slot] = f"{slot}_value" if slot in BUILT_IN else slot
        values = [value for _, value in _scalars(node, f"slot {slot!r}")]
        for (line, value), number in zip(_scalars(node, f"slot {slot!r}"), range(len(values)), strict=True):
            if value in values[:number]:
                raise _AtLine(line, f"slot {slot!r} has the value {value!r} twice; allowed: once")
            if FOREIGN.search(value) or re.search(r"[\[\]()]", value):
                raise _AtLine(line, f"slot {slot!r}: value {value!r} has a mark in it; allowed: words")
        made.slots[own] = values
    macros = dict(_entries(sections["macros"], "macros")) if "macros" in sections else {}
    for macro, node in macros.items():
        options = [_phrase(line, text, made, macros) for line, text in _scalars(node, f"macro {macro!r}")]
        made.parts[macro] = " | ".join(options)
        lines[macro] = node
    for macro, node in lines.items():
        try:
            phrases.inlined(f"<{macro}>", made.parts)
        except ValueError as error:
            raise _AtLine(node, f"macro {macro!r}: {error}") from None
    for intent, node in _entries(sections["expressions"], "expressions"):
        written = []
        for line, text in _scalars(node, f"intent {intent!r}"):
            written.append(_phrase(line, text, made, macros))
            try:
                grammar.read({**_table(made), "command": [{"name": intent, "phrases": written[-1:]}]}, "context")
            except ValueError as error:
                raise _AtLine(line, str(error).removeprefix("context: ")) from None
        made.commands.append((intent, written))
    if not made.commands:
        raise _AtLine(sections["expressions"], "expressions are empty; needed: an intent with its expressions")
    return made


def _entries(node: yaml.Node | None, where: str) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _AtLine(node, f"{where} is {_kind(node)}; needed: names with what belongs to them")
    entries: list[tuple[str, yaml.Node]] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _AtLine(key, f"{where} has {_kind(key)} for a name; needed: a word")
        if any(key.value == other for other, _ in entries):
            raise _AtLine(key, f"{where} has {key.value!r} twice; allowed: once")
        entries.append((key.value, value))
    return entries


def _scalars(node: yaml.Node, where: str) -> Iterator[tuple[yaml.Node, str]]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _AtLine(node, f"{where} is {_kind(node)}; needed: a list, each line beginning with -")
    for each in node.value:
        if not isinstance(each, yaml.ScalarNode) or not each.value.strip():
            raise _AtLine(each, f"{where} has {_kind(each)} in its list; needed: text (in quotes, if it has brackets)")
        yield each, each.value


def _kind(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "empty"
    return {yaml.MappingNode: "names with values", yaml.SequenceNode: "a list"}.get(type(node), "empty")


def _phrase(line: yaml.Node, text: str, made: _Context, macros: dict[str, Any]) -> str:
    """An expression as a phrase of kouling. Words, brackets and slots stand apart in both."""
    words: list[str] = []
    opened: list[str] = []
    for match in TOKEN.finditer(text):
        token = match.group().strip()
        if token in ("[", "("):
            opened.append(token)
            words.append("(" if token == "[" else "[")
        elif token in ("]", ")"):
            if not opened or {"[": "]", "(": ")"}[opened.pop()] != token:
                raise _AtLine(line, f"{text!r}: {token!r} closes no bracket of its kind")
            words.append(")" if token == "]" else "]")
        elif token == ",":
            if not opened:
                raise _AtLine(line, f"{text!r}: a comma stands outside of brackets; allowed: in [a, b] and (a, b)")
            words.append("|")
        elif token.startswith("$") and len(token) > 1:
            words.append(_slot(line, token, made))
        elif token.startswith("@") and len(token) > 1:
            if token[1:] not in macros:
                allowed = ", ".join(f"@{macro}" for macro in macros) or "none, as there are no macros"
                raise _AtLine(line, f"{text!r}: there is no macro {token}; allowed: {allowed}")
            words.append(f"<{token[1:]}>")
        elif token and (token[0] in "$@" or FOREIGN.search(token)):
            raise _AtLine(line, f"{text!r}: {token!r} means nothing in an expression")
        elif token:
            words.append(token)
    if opened:
        raise _AtLine(line, f"{text!r}: {opened[-1]!r} is never closed")
    return re.sub(r"(?<=[(\[|]) | (?=[)\]|])", "", " ".join(words))


def _slot(line: yaml.Node, token: str, made: _Context) -> str:
    kind, colon, name = (part.strip() for part in token[1:].partition(":"))
    name = name if colon else kind.rpartition(".")[2]
    if kind.startswith("pv."):
        return _built_in(line, kind, name, made)
    if kind not in made.renamed:
        allowed = ", ".join(f"${slot}" for slot in made.renamed) or "none, as there are no slots"
        raise _AtLine(line, f"there is no slot ${kind}; allowed: {allowed}")
    return f"{{{name}:{made.renamed[kind]}}}"


def _built_in(line: yaml.Node, kind: str, name: str, made: _Context) -> str:
    numbers = {
        "pv.SingleDigitInteger": f"{{{name}:number(0..9)}}",
        "pv.TwoDigitInteger": f"{{{name}:number(0..99)}}",
        "pv.Percent": f"{{{name}:number(0..100)}} percent",
    }
    lists: dict[str, tuple[str, dict[str, str]]] = {
        "pv.SingleDigitOrdinal": ("ordinal", {str(n): _ordinal(n) for n in range(10)}),
        "pv.TwoDigitOrdinal": ("ordinal_of_two_digits", {str(n): _ordinal(n) for n in range(100)}),
        "pv.Alphabetic": ("letter", {letter.upper(): letter for letter in LETTERS}),
    }
    if kind in numbers:
        return numbers[kind]
    if kind not in lists:
        raise _AtLine(line, f"${kind} has nothing like it in kouling; allowed: ${', $'.join([*numbers, *lists])}")
    slot, values = lists[kind]
    while made.slots.setdefault(slot, values) != values:  # the context has one of that name
        slot += "_"
    return f"{{{name}:{slot}}}"


def _ordinal(number: int) -> str:
    if number < 20:
        return [*FIRST, *TEENTHS][number]
    tens, ones = divmod(number, 10)
    return f"{TENS[tens - 2]} {FIRST[ones]}" if ones else f"{TENS[tens - 2][:-1]}ieth"


def _table(made: _Context) -> dict[str, Any]:
    commands = [{"name": intent, "phrases": written} for intent, written in made.commands]
    return {"slots": made.slots, "parts": made.parts, "command": commands}


def _document(made: _Context) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    for key, entries in (("slots", made.slots), ("parts", made.parts)):
        if entries:
            table = tomlkit.table()
            for name, value in entries.items():
                table.add(name, _list(value, 6) if isinstance(value, list) else value)
            document.add(key, table)
    commands = tomlkit.aot()
    for intent, written in made.commands:
        entry = tomlkit.table()
        entry.add("name", intent)
        entry.add("phrases", _list(written, 1))
        commands.append(entry)
    document.add("command", commands)
    return document


def _list(values: list[str], most_in_a_line: int) -> Any:
    made = tomlkit.array()
    made.extend(values)
    return made.multiline(len(values) > most_in_a_line)
