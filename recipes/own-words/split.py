"""A few recordings of each label to learn from, all others to be heard: OUT/given, OUT/heard.

    python recipes/own-words/split.py TAR COUNT OUT

Which ones go where is by the hashes of their names.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from kouling.measure.recordings import labelled
from kouling.train.data import name_hash


def main(tar: Path, count: int, out: Path) -> None:
    by_label: dict[str, list[tuple[int, str, bytes]]] = defaultdict(list)
    for label, name, file in labelled(tar):
        by_label[label].append((name_hash(name), Path(name).name, file.read()))
    for label, recordings in by_label.items():
        for number, (_, name, content) in enumerate(sorted(recordings)):
            path = out / ("given" if number < count else "heard") / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
