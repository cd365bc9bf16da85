"""What is said in a recording: its label spelled in the model's units, one or several, by a text file as is usual.

    smart_mirror<TAB>smart mirror

Labels that are units themselves need no line; nor do several words whose spellings are there, with spaces between.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Lexicon:
    """Sayings by number: those below `len(units)` are the units themselves (0, blank, is nothing), others follow."""

    def __init__(self, units: Sequence[str], path: Path | None = None) -> None:
        """Raises: ValueError, one line, for a line that is malformed or names what is no unit; OSError."""
        index = {unit: number for number, unit in enumerate(units)}
        self.sayings: list[tuple[int, ...]] = [() if number == 0 else (number,) for number in range(len(units))]
        self.labels: dict[str, int] = {unit: number for unit, number in index.items() if number > 1}
        lines = path.read_text(encoding="utf-8").splitlines() if path else []
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            label, tab, spelling = line.partition("\t")
            if not tab or not label.strip() or not spelling.strip():
                raise ValueError(
                    f"{path}, line {number}: {line!r}; needed: a label, a tab, and units with spaces between"
                )
            unknown = [unit for unit in spelling.split() if unit not in index]
            # A unit may hold spaces itself: then it is written with underscores.
            unknown = [unit for unit in unknown if unit.replace("_", " ") not in index]
            if unknown:
                raise ValueError(f"{path}, line {number}: {unknown[0]!r} is no unit of the recipe")
            said = tuple(index.get(unit, index.get(unit.replace("_", " "), 0)) for unit in spelling.split())
            if len(said) == 1:
                self.labels[label] = said[0]
            else:
                self.labels[label] = len(self.sayings)
                self.sayings.append(said)

    def find(self, label: str) -> int | None:
        """The saying of a label, or of its words one after the other."""
        words = label.split()
        if label not in self.labels and len(words) > 1 and all(word in self.labels for word in words):
            self.labels[label] = len(self.sayings)
            self.sayings.append(tuple(unit for word in words for unit in self.sayings[self.labels[word]]))
        return self.labels.get(label)

    def names(self) -> dict[int, str]:
        """A label of each saying."""
        return {number: label for label, number in reversed(self.labels.items())}
