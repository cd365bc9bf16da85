"""The bare-metal example, on microcontrollers that QEMU imitates: it hears what it hears here, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "engine" / "examples" / "bare-metal"
TOOLS = ("make", "xxd", "cc", "arm-none-eabi-gcc", "qemu-system-arm")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
# In place of board.c: the same example, on this machine.
HERE = """
#include <stdio.h>
#include <stdlib.h>
#include "board.h"
void print(const char *text) { fputs(text, stdout); }
void print_bytes(const char *text, size_t count) { fwrite(text, 1, count, stdout); }
void print_number(uint32_t value, uint32_t base) { printf(base == 16 ? "%x" : "%u", (unsigned)value); }
void quit(int status) { exit(status); }
uint32_t ticks_since(uint32_t *then) { return *then = 0; }
uint32_t stack_used(void) { return 0; }
"""


def run(*command: str | Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
@pytest.mark.parametrize("optimize", ["-Os", "-O2"])
@pytest.mark.parametrize("machine", ["mps3-an547", "mps2-an500"])
def test_a_microcontroller_hears_the_same_with_the_same_bits(machine: str, optimize: str, tmp_path: Path) -> None:
    settings = [f"MACHINE={machine}", f"OPTIMIZE={optimize}", f"OUT={tmp_path}", f"PYTHON={sys.executable}"]
    heard = run("make", "-s", "-C", EXAMPLE, *settings, "run")
    (tmp_path / "here.c").write_text(HERE)
    sources = [EXAMPLE / "main.c", tmp_path / "here.c", tmp_path / "kouling.c"]
    flags = ["-std=c11", "-O2", "-ffp-contract=off", "-Wno-psabi", f"-I{tmp_path}", f"-I{EXAMPLE}"]
    run("cc", *flags, "-o", tmp_path / "here", *sources, "-lm")
    expected = run(tmp_path / "here")
    assert [line.split()[0] for line in heard] == ["go", "left", "stop", "ticks", "features", "stream"]
    assert heard[:3] + heard[4:5] == expected[:3] + expected[4:5]
    linked = (tmp_path / "firmware.map").read_text()
    assert "exp" in linked and not [name for name in ("malloc", "printf", "_sbrk") if name in linked]
