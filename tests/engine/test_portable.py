"""The engine in plain C, compiled here for this and other processors: the same bits everywhere, and no complaint of
compilers or sanitizers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from kouling import audio, recognizer
from kouling.deploy import engine, model_file
from tests.shapes import SHAPES

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine"
SOURCES = sorted((ENGINE / "src").glob("*.c"))
FLAGS = ["-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-D_DEFAULT_SOURCE"]
FLAGS += [f"-I{ENGINE}", f"-I{ENGINE / 'src'}"]
BRIEF_BYTES = 32000  # a second of audio, for models of which there are many
# Compiler, its flags, and what runs the result.
PROCESSORS = {
    "here": ("cc", [], []),
    "here, by Clang": ("clang", [], []),
    "sanitized": ("cc", ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], []),
    "aarch64": ("aarch64-linux-gnu-gcc", ["-static"], ["qemu-aarch64", "-cpu", "max"]),
    "aarch64 without dot products": ("aarch64-linux-gnu-gcc", ["-static"], ["qemu-aarch64", "-cpu", "cortex-a53"]),
    "armv7": ("arm-linux-gnueabihf-gcc", ["-static", "-mfpu=neon"], ["qemu-arm", "-cpu", "max"]),
    "armv7 without NEON": ("arm-linux-gnueabihf-gcc", ["-static", "-mfpu=vfpv3-d16"], ["qemu-arm", "-cpu", "max"]),
    "riscv64": ("riscv64-linux-gnu-gcc", ["-static"], ["qemu-riscv64"]),
}
BARE = {
    "Cortex-M55": ["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
    "Cortex-M7": ["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"],
}


def compile_with(compiler: str, flags: list[str], output: Path, *sources: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    done = subprocess.run([compiler, *FLAGS, *flags, "-o", output, *sources], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") or done.stderr.endswith("-lm\n"), done.stderr


def run(command: list[str | Path], samples: bytes) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the program ends with its memory
    done = subprocess.run(command, input=samples, capture_output=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def samples() -> bytes:
    orders = audio.read(ROOT / "examples" / "en-orders.ogg")
    return bytes(np.ascontiguousarray(orders[: 4 * 16000]).tobytes())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """en-small as it ships, and in int4 with a state in bfloat16: both hear three commands."""
    small = recognizer.MODELS / "en-small"
    halved = tmp_path_factory.mktemp("models") / "int4.kouling"
    engine.export(small / "model.safetensors", halved, "int4", state="bfloat16")
    return [small / recognizer.ENGINE_FILE, halved]


@pytest.fixture(scope="module")
def shaped_models(tmp_path_factory: pytest.TempPathFactory, shaped_model: Callable[..., Path]) -> list[Path]:
    """Blocks of any shape and every kind of attention, with weights and states stored in every way."""
    folder = tmp_path_factory.mktemp("shaped")
    made = []
    for shape, scheme, state in product(SHAPES, model_file.SCHEMES, model_file.STATES):
        made.append(folder / f"{shape}-{scheme}-{state}.kouling")
        engine.export(shaped_model(shape), made[-1], scheme, state=state)
    return made


@pytest.fixture(scope="module")
def expected(
    models: list[Path], shaped_models: list[Path], samples: bytes, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Hashes of the portable kernels, here, for each model."""
    program = tmp_path_factory.mktemp("levels") / "levels"
    compile_with("cc", [], program, ENGINE / "tests" / "levels.c", *SOURCES, Path("-lm"))
    lines = [run([program, model], samples).splitlines()[0] for model in models]
    lines += [run([program, model], samples[:BRIEF_BYTES]).splitlines()[0] for model in shaped_models]
    assert all(line.startswith("portable ") for line in lines)
    assert all(line.endswith(" events 3") for line in lines[: len(models)])
    assert len(set(lines)) == len(lines)
    return [line.removeprefix("portable ") for line in lines]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_kernel_of_every_processor_computes_the_same_bits(
    processor: str,
    models: list[Path],
    shaped_models: list[Path],
    samples: bytes,
    expected: list[str],
    tmp_path: Path,
) -> None:
    compiler, flags, runner = PROCESSORS[processor]
    compile_with(compiler, flags, tmp_path / "levels", ENGINE / "tests" / "levels.c", *SOURCES, Path("-lm"))
    for model, hashes in zip([*models, *shaped_models], expected, strict=True):
        output = run([*runner, tmp_path / "levels", model], samples if model in models else samples[:BRIEF_BYTES])
        assert {line.split(" ", 1)[1] for line in output.splitlines()} == {hashes}


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs zig: pip install ziglang")
def test_webassembly_computes_the_same_bits(
    models: list[Path], shaped_models: list[Path], samples: bytes, expected: list[str], tmp_path: Path
) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-msimd128"]
    program = tmp_path / "levels.wasm"
    command = [*zig, *FLAGS, "-o", program, ENGINE / "tests" / "levels.c", *SOURCES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runner: list[str | Path] = ["node", "--no-warnings", ENGINE / "tests" / "wasi.mjs"]
    for model, hashes in zip([*models, *shaped_models], expected, strict=True):
        lines = run([*runner, program, model], samples if model in models else samples[:BRIEF_BYTES]).splitlines()
        assert [line.split(" ", 1)[0] for line in lines] == ["portable", "wasm-simd"]
        assert {line.split(" ", 1)[1] for line in lines} == {hashes}


@pytest.mark.parametrize("processor", BARE)
def test_it_compiles_for_microcontrollers(processor: str, tmp_path: Path) -> None:
    for source in SOURCES:
        compile_with("arm-none-eabi-gcc", [*BARE[processor], "-c"], tmp_path / f"{source.stem}.o", source)


def test_the_example_hears_commands(samples: bytes, tmp_path: Path) -> None:
    program = tmp_path / "listen"
    compile_with("cc", [], program, ENGINE / "examples" / "listen.c", *SOURCES, Path("-lm"))
    output = run([program, recognizer.MODELS / "en-commands" / "model.kouling"], samples)
    assert [line.split()[-1] for line in output.splitlines()] == ["go", "left", "stop"]
    done = subprocess.run([program, __file__], input=b"", capture_output=True, text=False)
    assert done.returncode == 2 and b"this is no model of kouling" in done.stderr
