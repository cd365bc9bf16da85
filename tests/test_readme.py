"""What the READMEs quote is what the cards of the models that are shipped quote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kouling.recognizer import MODELS

ROOT = Path(__file__).parents[1]


def quoted(text: str) -> list[tuple[str, str, list[str]]]:
    """(command, model, lines printed) of each `$ kouling evaluate` in a fenced block."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *printed = part.rstrip().splitlines()
            model = re.search(r"^kouling evaluate .*--model (\S+)$", command)
            if model:
                found.append((command, model[1], printed))
    return found


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_every_figure_is_in_the_card_of_its_model(name: str) -> None:
    figures = quoted((ROOT / name).read_text(encoding="utf-8"))
    assert len(figures) >= 4
    for command, model, printed in figures:
        card = quoted((MODELS / model / "card.md").read_text(encoding="utf-8"))
        (whole,) = [lines for given, _, lines in card if given == command]
        assert printed and set(printed) <= set(whole)


def test_both_readmes_quote_the_same() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert quoted(english) == quoted(chinese)
