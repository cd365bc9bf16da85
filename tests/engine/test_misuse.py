"""Whoever calls the engine wrongly is told so, with the error that kouling.h names; see engine/tests/misuse.c."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path


def test_every_misuse_is_answered_with_its_error(sanitized: Callable[..., Path], corpus: Path) -> None:
    program = sanitized("misuse", "tests/misuse.c", "tests/misuse_streams.c")
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the program ends with its memory
    command = [program, corpus / "seed-deep", corpus / "seed-set-words", corpus / "seed-set-slots"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
