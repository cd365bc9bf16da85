"""The engine joined into two files: they build alone, hide what is theirs, and compute the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kouling import audio

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine"
FLAGS = ["-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
COMPILERS = {
    "GCC": ["cc"],
    "Clang": ["clang"],
    "Cortex-M55": ["arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
    "Cortex-M7": ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"],
    "aarch64": ["aarch64-linux-gnu-gcc"],
    "riscv64": ["riscv64-linux-gnu-gcc"],
}


def run(*command: str | Path, samples: bytes = b"") -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, input=samples, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amalgamated")
    run(sys.executable, ENGINE / "amalgamate.py", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["kouling.c", "kouling.h"]
    return folder


@pytest.mark.parametrize("compiler", COMPILERS)
def test_it_builds_alone_and_exports_the_interface_only(compiler: str, pair: Path, tmp_path: Path) -> None:
    program, *flags = COMPILERS[compiler]
    run(program, *flags, *FLAGS, "-c", pair / "kouling.c", "-o", tmp_path / "kouling.o")
    symbols = [line.split()[-2:] for line in run("nm", "--defined-only", tmp_path / "kouling.o").splitlines()]
    declared = re.findall(r"^[a-z][\w *]*?\b(kouling_\w+)\(", (pair / "kouling.h").read_text(), re.MULTILINE)
    assert len(declared) == 15
    assert {name for kind, name in symbols if kind.isupper()} == set(declared)
    assert not [name for kind, name in symbols if kind in "bBcC"], "the engine has no variables"


def test_the_header_is_one_for_c_plus_plus(pair: Path) -> None:
    run(
        "c++",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-fsyntax-only",
        "-include",
        pair / "kouling.h",
        "-x",
        "c++",
        "/dev/null",
    )


def test_it_computes_the_same_bits(pair: Path, tmp_path: Path) -> None:
    samples = np.ascontiguousarray(audio.read(ROOT / "examples" / "en-orders.ogg")[: 4 * 16000]).tobytes()
    model = ROOT / "src" / "kouling" / "models" / "en-small" / "model.kouling"
    build = ["cc", *FLAGS, "-D_DEFAULT_SOURCE", f"-I{ENGINE}", f"-I{ENGINE / 'src'}", ENGINE / "tests" / "levels.c"]
    run(*build, *sorted((ENGINE / "src").glob("*.c")), "-o", tmp_path / "apart", "-lm")
    run(*build, "-include", pair / "kouling.c", "-o", tmp_path / "joined", "-lm")
    joined = run(tmp_path / "joined", model, samples=samples)
    assert joined.startswith("portable features")
    assert joined == run(tmp_path / "apart", model, samples=samples)
