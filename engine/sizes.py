"""Prints the tables of docs/engine.md: code on each processor whose compiler is here, flash and RAM of each model.

Code is the amalgamated pair, linked with a program that only listens; the linker's map says which bytes come from whom.
Stack and instructions are what examples/bare-metal says of itself in QEMU, whose clock ticks by instructions.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from amalgamate import ENGINE, amalgamate

MODELS = ENGINE.parent / "src" / "kouling" / "models"
EXAMPLE = ENGINE / "examples" / "bare-metal"
# Compiler and flags; where the example runs on it, the machine and how many instructions a tick is.
CORTEX_M = ["-mthumb", "-mfloat-abi=hard", "--specs=nano.specs"]
PROCESSORS = {
    "Cortex-M55": ("arm-none-eabi-gcc", ["-mcpu=cortex-m55", *CORTEX_M], "mps3-an547", 31.25),
    "Cortex-M7": ("arm-none-eabi-gcc", ["-mcpu=cortex-m7", "-mfpu=fpv5-d16", *CORTEX_M], "mps2-an500", 40.0),
    "riscv64": ("riscv64-linux-gnu-gcc", ["-no-pie", "-fno-pie"], None, 0.0),
    "aarch64": ("aarch64-linux-gnu-gcc", ["-no-pie", "-fno-pie"], None, 0.0),
    "x86-64": ("x86_64-linux-gnu-gcc", ["-no-pie", "-fno-pie"], None, 0.0),
}
LEVELS = ("-Os", "-O2", "-O3")
FLAGS = ["-std=c11", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections", "-Wno-psabi"]
LISTENER = """
#include "kouling.h"
const _Alignas(KOULING_ALIGN) uint8_t model_bytes[64];
_Alignas(KOULING_ALIGN) uint8_t memory[64];
int16_t samples[160];
kouling_event events[KOULING_MAX_EVENTS];
int main(void) {
    kouling_model model;
    kouling_stream *stream;
    size_t used, heard;
    if (kouling_model_open(&model, model_bytes, sizeof model_bytes) != KOULING_OK) return 1;
    if (kouling_stream_init(&stream, &model, NULL, KOULING_LIVE, memory, sizeof memory) != KOULING_OK) return 1;
    return kouling_accept(stream, samples, 160, &used, events, &heard);
}
"""
STREAM_SIZE = """
#include "board.h"
#include "kouling.h"
static const _Alignas(KOULING_ALIGN) uint8_t model_bytes[] = {
#include "model.inc"
};
int main(void) {
    kouling_model model;
    size_t size;
    if (kouling_model_open(&model, model_bytes, sizeof model_bytes) != KOULING_OK) return 1;
    if (kouling_stream_size(&model, NULL, KOULING_LIVE, &size) != KOULING_OK) return 1;
    print("stream "), print_number(size, 10);
    return 0;
}
"""
# One input section in the linker's map: its name, address, bytes, and the object or archive that it comes from.
SECTION = re.compile(r"^ \.(?:text|rodata|data|ARM)\S*\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S+)$", re.MULTILINE)


def code_bytes(compiler: str, flags: list[str], level: str) -> tuple[int, int]:
    """Of the engine, and of the C library's and compiler's functions that it calls, where these are linked in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        amalgamate(folder)
        (folder / "listener.c").write_text(LISTENER)
        build = [compiler, *flags, *FLAGS, level]
        for source in ("kouling", "listener"):
            subprocess.run([*build, "-c", f"{source}.c"], cwd=folder, check=True)
        link = ["-nostartfiles", "-Wl,-e,main,--gc-sections,-Map=map", "kouling.o", "listener.o", "-lm"]
        subprocess.run([*build, *link], cwd=folder, check=True)
        linked = (folder / "map").read_text().split("Linker script and memory map")[1]  # before it: what was left out
    engine = library = 0
    for bytes_, origin in SECTION.findall(linked):
        if origin == "kouling.o":
            engine += int(bytes_, 16)
        elif ".a(" in origin:
            library += int(bytes_, 16)
    return engine, library


def run_bare_metal(machine: str, *settings: str) -> dict[str, int]:
    """What the example, or another program in its place, says of itself; nothing where it does not fit in the flash."""
    flash = ["LINK_MORE=-Wl,--defsym=FLASH_BYTES=4M"] if machine == "mps2-an500" else []  # what that board has
    with tempfile.TemporaryDirectory() as name:
        variables = [f"OUT={name}", f"PYTHON={sys.executable}", f"MACHINE={machine}", *flash, *settings]
        done = subprocess.run(["make", "-s", "-C", EXAMPLE, *variables, "run"], check=False, capture_output=True)
    if b"region `flash' overflowed" in done.stderr:
        return {}
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    numbers = re.findall(r"(of a second|stream|stack) (\d+)", done.stdout.decode())
    return {name: int(number) for name, number in numbers}


def stream_bytes(model: Path) -> int:
    """RAM of a stream of the model, on a processor of 32 bits."""
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "stream_size.c"
        program.write_text(STREAM_SIZE)
        return run_bare_metal("mps2-an500", f"MAIN={program}", f"MODEL={model}")["stream"]


def table(header: list[str], rows: list[list[str]]) -> None:
    print(f"| {' | '.join(header)} |\n|---|{'--:|' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    simulated = shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")
    rows = []
    for processor, (compiler, flags, machine, tick) in PROCESSORS.items():
        for level in LEVELS if shutil.which(compiler) else ():
            engine, library = code_bytes(compiler, flags, level)
            row = [f"{processor} `{level}`", f"{engine:,}", "", "", ""]
            if machine:
                row[2] = f"{library:,}"
            if machine and simulated:
                said = run_bare_metal(machine, f"OPTIMIZE={level}")
                row[3:] = (
                    [f"{said['stack']:,}", f"{said['of a second'] * tick / 1e6:.0f} M"]
                    if said
                    else ["does not fit", ""]
                )
            rows.append(row)
    table(["processor", "engine", "libm, libc", "stack", "instructions a second, en-small"], rows)
    if simulated:
        files = sorted(MODELS.glob("*/model.kouling"))
        sizes = [[file.parent.name, f"{file.stat().st_size:,}", f"{stream_bytes(file):,}"] for file in files]
        table(["model", "flash", "RAM of a live stream"], sizes)


if __name__ == "__main__":
    main()
