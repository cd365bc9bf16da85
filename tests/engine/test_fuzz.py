"""Nothing that can be in a file makes the engine do what is undefined: the fuzz corpus, and changes of its seeds.

`make fuzz` looks further.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

MOST_FILES, MOST_BYTES = 150, 1_000_000  # of the corpus: it is in the repository for ever
CHANGES = 100  # of each seed


def test_the_corpus_is_small(corpus: Path) -> None:
    sizes = [path.stat().st_size for path in corpus.iterdir()]
    assert len(sizes) <= MOST_FILES and sum(sizes) <= MOST_BYTES


def test_no_file_makes_it_do_what_is_undefined(sanitized: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    sources = ("fuzz/fuzz.c", "fuzz/mutate.c", "fuzz/replay.c")
    program = sanitized("replay", *sources, flags=(f'-DGOOD_MODEL="{corpus / "seed-small"}"',))
    files = sorted(corpus.iterdir())
    done = subprocess.run([program, str(CHANGES), *files], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(\d+) inputs, (\d+) opened, (\d+) streams, (\d+) events\n", done.stdout)
    assert found, done.stdout
    inputs, opened, streams, events = map(int, found.groups())
    # Else the changes no longer reach what lies behind the loader, and the test shows nothing.
    seeds = sum(path.name.startswith("seed-") for path in files)
    assert inputs == len(files) + CHANGES * seeds
    assert opened > inputs / 4 and streams > opened and events > inputs / 4
