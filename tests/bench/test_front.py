"""The whole process of the C listener: what the engine's memory comes to where it runs."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from bench.front import process_bytes
from bench.workers import compile_program
from kouling import audio, recognizer

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="pages of other systems differ")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs cc")
def test_a_whole_process_stays_small(tmp_path: Path) -> None:
    try:
        listener = compile_program("listen", tmp_path)
    except RuntimeError as error:
        pytest.skip(f"no static C library: {error}")
    samples = audio.read(Path(__file__).parents[2] / "examples" / "en-orders.ogg")[: 5 * audio.SAMPLE_RATE_HZ]
    for name, most in (("en-small", 1.2 * MIB), ("en-base", 3.0 * MIB)):
        model = recognizer.MODELS / name / recognizer.ENGINE_FILE
        used = process_bytes(listener, model, samples)
        assert model.stat().st_size < used <= most
