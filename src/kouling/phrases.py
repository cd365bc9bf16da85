"""The language in which phrases are written, and what a phrase is once it is read: a tree of words.

    alternatives = sequence { "|" sequence } | sequence { "&" sequence }
    sequence     = { text | group [ "+" | "*" ] | "{" [ name ":" ] slot "}" | "<" part ">" }
    group        = "(" alternatives ")" | "[" alternatives "]"

`[a]` may be left out, `(a)+` is said once or more, `(a)*` as often as one likes, `(a & b)` in any order, `[a & b]` any
of them in any order. Text joins as written, so `light[s]` is "light" or "lights". Case and full-width forms make no
difference. A part stands for its text in brackets.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

MAX_NESTING = 64  # the parser recurses; Python's stack must never be what refuses a phrase
MAX_CHARACTERS = 100_000  # of a phrase with its parts in it: parts of parts grow fast
MAX_JOINED = 2_000  # texts that one run of joined text stands for
MAX_ANY_ORDER = 6  # the graph has a copy of each member for every set of those said before

CLOSING = {"(": ")", "[": "]"}
BESIDE_AND = r"[^\s()\[\]{}|]"
SPECIAL = re.compile(r"[()\[\]|]|\{[^{}]*\}|(?<=[)\]])[+*]" + f"|(?<!{BESIDE_AND})&(?!{BESIDE_AND})")
SLOT = "\0"  # stands for the letters at either end of a slot
# Unicode names of letters whose scripts put no spaces between words begin so.
SPACELESS_SCRIPTS = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Slot:
    name: str
    type: str  # with the range, if there is one: number(0..100)


@dataclass(frozen=True)
class Row:
    """One after the other; nothing where it is empty."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Choice:
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """Once or more."""

    body: Node


@dataclass(frozen=True)
class AnyOrder:
    members: tuple[Node, ...]
    needed: bool  # all of them; else any


Node = Text | Slot | Row | Choice | Repeat | AnyOrder
NOTHING = Row()


class _Token(NamedTuple):
    column: int
    text: str
    special: bool


def normalize(text: str) -> str:
    """`text` as it is compared. NFKC makes full-width brackets and bars plain, so they serve in phrases too."""
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def parts_words(letter: str) -> bool:
    """Whether a word may end or begin beside `letter`: a space, or a letter of a script that uses none."""
    return letter == " " or unicodedata.name(letter, "").startswith(SPACELESS_SCRIPTS)


def read(phrase: str, parts: Mapping[str, str] | None = None) -> Node:
    """The tree of a phrase. parts: text of each part that it may name.

    Raises: ValueError, one line, for brackets that do not pair, a phrase or part of one that is empty, and parts that
    are missing or grow too long.
    """
    text = inlined(unicodedata.normalize("NFKC", phrase), parts or {})
    if not text.strip():
        raise ValueError("it is empty; needed: a word")
    node = _group(_tokens(text), "(")
    if can_be_empty(node):
        raise ValueError("it can be empty, as all of it may be left out; needed: a word outside [ ]")
    return node


def inlined(text: str, parts: Mapping[str, str], inside: tuple[str, ...] = ()) -> str:
    """With the text of each part in brackets in its place. Raises: ValueError for parts that are missing or circles."""
    made: list[str] = []
    size = 0
    for number, piece in enumerate(re.split(r"<([^<>]*)>", text)):
        if number % 2:  # the name of a part
            name = piece.strip()
            if name in inside:
                circle = " -> ".join([*inside[inside.index(name) :], name])
                raise ValueError(f"the part <{name}> is made of itself: {circle}; allowed: parts that come to an end")
            if len(inside) > MAX_NESTING:
                raise ValueError(f"the part <{name}> is nested too deep; allowed: {MAX_NESTING} levels")
            if name in parts:
                piece = f"({inlined(unicodedata.normalize('NFKC', parts[name]), parts, (*inside, name))})"
            elif name in ("blank", "unk"):  # of CTC: words that no model knows
                piece = f"<{piece}>"
            else:
                allowed = ", ".join(f"<{each}>" for each in parts) or "those of a [parts] table"
                raise ValueError(f"there is no part <{name}>; allowed: {allowed}")
        made.append(piece)
        size += len(piece)
        if parts and size > MAX_CHARACTERS:
            raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters with its parts; allowed: fewer")
    return "".join(made)


def _tokens(phrase: str) -> deque[_Token]:
    """Brackets, marks, slots and texts of a phrase with their columns, and the end as an empty one; brackets pair."""
    tokens: deque[_Token] = deque()
    at = 0
    for match in SPECIAL.finditer(phrase):
        if match.start() > at:
            tokens.append(_Token(at + 1, phrase[at : match.start()], False))
        tokens.append(_Token(match.start() + 1, match.group(), True))
        at = match.end()
    if at < len(phrase):
        tokens.append(_Token(at + 1, phrase[at:], False))
    opened: list[_Token] = []
    for token in tokens:
        if not token.special:
            for stray in re.finditer(r"[{}]", token.text):
                column = token.column + stray.start()
                raise ValueError(f"{stray.group()!r} at column {column} has no other half; needed: {{slot}}")
        elif token.text in CLOSING:
            opened.append(token)
            if len(opened) > MAX_NESTING:
                raise ValueError(
                    f"{token.text!r} at column {token.column} is nested too deep; allowed: {MAX_NESTING} levels"
                )
        elif token.text in CLOSING.values() and (not opened or CLOSING[opened.pop().text] != token.text):
            raise ValueError(f"{token.text!r} at column {token.column} closes no bracket of its kind")
    if opened:
        last = opened[-1]
        raise ValueError(f"{last.text!r} at column {last.column} is never closed; needed: {CLOSING[last.text]!r}")
    tokens.append(_Token(len(phrase) + 1, "", True))
    return tokens


def _group(tokens: deque[_Token], bracket: str) -> Node:
    """Read alternatives off the front of `tokens`, and the bracket or end that follows."""
    rows: list[Node] = []
    marks: dict[str, int] = {}
    while True:
        column = tokens[0].column
        row = _row(tokens)
        if not row.parts or all(isinstance(part, Text) and not part.text.strip() for part in row.parts):
            raise ValueError(f"nothing to say at column {column}; needed: a word (write [a] for what may be left out)")
        rows.append(row.parts[0] if len(row.parts) == 1 else row)
        end = tokens.popleft()
        if end.text not in ("|", "&"):
            break
        marks[end.text] = end.column
    if len(marks) > 1:
        raise ValueError(f"'|' and '&' stand in one bracket at column {max(marks.values())}; allowed: inner brackets")
    if "&" in marks:
        if len(rows) > MAX_ANY_ORDER:
            raise ValueError(f"{len(rows)} members in any order; allowed: {MAX_ANY_ORDER} or fewer")
        return AnyOrder(tuple(rows), bracket == "(")
    return Choice((*rows, NOTHING)) if bracket == "[" else rows[0] if len(rows) == 1 else Choice(tuple(rows))


def _row(tokens: deque[_Token]) -> Row:
    """Read a sequence off the front of `tokens`, up to the mark, bracket or end that follows."""
    parts: list[Node] = []
    while True:
        token = tokens[0]
        if token.special and token.text in ("|", "&", ")", "]", ""):
            return Row(tuple(parts))
        tokens.popleft()
        if not token.special:
            parts.append(Text(token.text.casefold()))
        elif token.text in CLOSING:
            node = _group(tokens, token.text)
            if tokens[0].special and tokens[0].text in ("+", "*"):
                often = tokens.popleft().text == "*" or can_be_empty(node)
                if token.text == "[" and isinstance(node, Choice):
                    node = node.options[0] if len(node.options) == 2 else Choice(node.options[:-1])
                node = Choice((Repeat(node), NOTHING)) if often else Repeat(node)
            parts.append(node)
        else:  # a slot
            name, colon, kind = token.text[1:-1].partition(":")
            kind = (kind if colon else name).strip()
            name = name.partition("(")[0].strip()
            if not name or not kind:
                raise ValueError(f"{token.text!r} at column {token.column} names no slot; needed: {{slot}}")
            parts.append(Slot(name, kind))


def can_be_empty(node: Node, spaces: bool = True) -> bool:
    """Whether it may stand for nothing. spaces: these too are nothing."""
    match node:
        case Text(text):
            return not (text.strip() if spaces else text)
        case Row(parts):
            return all(can_be_empty(part, spaces) for part in parts)
        case Choice(options):
            return any(can_be_empty(option, spaces) for option in options)
        case Repeat(body):
            return can_be_empty(body, spaces)
        case AnyOrder(members, needed):
            return not needed or all(can_be_empty(member, spaces) for member in members)
    return False


def inside(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    below: tuple[Node, ...] = ()
    match node:
        case Row(each) | Choice(each) | AnyOrder(each, _):
            below = each
        case Repeat(body):
            below = (body,)
    for child in below:
        yield from inside(child)


def is_plain(node: Node) -> bool:
    """Whether it stands for a number of texts: no slots, repetition or order in it."""
    return all(isinstance(each, Text | Row | Choice) for each in inside(node))


def expand(node: Node, most: int) -> list[str]:
    """Every text that a plain node stands for, in written order, joined as written. Raises: ValueError for more."""
    match node:
        case Text(text):
            return [text]
        case Row(parts):
            texts = [""]
            for part in parts:
                options = expand(part, most)
                check_count(len(texts) * len(options), most)  # before they are made: n optionals would make 2**n
                texts = list(dict.fromkeys(text + option for text in texts for option in options))
            return texts
        case Choice(options):
            found: dict[str, None] = {}
            for option in options:
                found |= dict.fromkeys(expand(option, most))
                check_count(len(found) - (option == NOTHING), most)
            return list(found)
    raise TypeError(f"{node} is not plain")


def check_count(num_sequences: int, most: int) -> None:
    if num_sequences > most:
        raise ValueError(f"the command has more than {most:,} word sequences here; allowed: fewer")


def in_words(node: Node) -> Node:
    """The same, with text that is joined to its neighbours (`light[s]`) written out, so that words end where texts do.

    Raises: ValueError where something that is no plain text is joined to a word.
    """
    match node:
        case Text(text):
            return Text(" ".join(text.split())) if text.strip() else NOTHING
        case Row(parts):
            return Row(tuple(in_words(part) for part in _unjoined(list(parts))))
        case Choice(options):
            return Choice(tuple(map(in_words, options)))
        case Repeat(body):
            return Repeat(in_words(body))
        case AnyOrder(members, needed):
            return AnyOrder(tuple(map(in_words, members)), needed)
    return node


def _unjoined(parts: list[Node]) -> list[Node]:
    done: list[Node] = []
    for part in parts:
        first = len(done)  # of those beside which this one may come to stand
        while first > 0 and (first == len(done) or can_be_empty(done[first], spaces=False)):
            first -= 1
        before = {letter for each in done[first:] for letter in _letters(each, -1)}
        if all(_free(one, other) for one in before for other in _letters(part, 0)):
            done.append(part)
            continue
        run = Row((*done[first:], part))
        if not is_plain(run):
            raise ValueError("a slot, a repetition or an order is joined to a word; needed: a space between them")
        done[first:] = [Choice(tuple(Text(text) if text else NOTHING for text in expand(run, MAX_JOINED)))]
    return done


def _free(one: str, other: str) -> bool:
    return parts_words(one) or parts_words(other) or one == other == SLOT


def _letters(node: Node, end: int) -> set[str]:
    """What it may begin (end: 0) or end (-1) with; spaces of all kinds as one."""
    match node:
        case Text(text):
            return {" " if text[end].isspace() else text[end]} if text else set()
        case Slot():
            return {SLOT}
        case Row(parts):
            found: set[str] = set()
            for part in parts if end == 0 else reversed(parts):
                found |= _letters(part, end)
                if not can_be_empty(part, spaces=False):
                    break
            return found
        case Choice(each) | AnyOrder(each, _):
            return {letter for one in each for letter in _letters(one, end)}
        case Repeat(body):
            return _letters(body, end)
    return set()
