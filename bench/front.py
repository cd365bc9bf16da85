"""The tables in README.md of what a model takes and what it hears.

    python -m bench.front EN ZH [MODEL ...]

EN, ZH: what `kouling train RECIPE --validation DIR` writes for the recipes of en-commands and zh-commands. MODEL:
installed names or paths; all that are shipped with commands if left out. Needs Linux and `cc`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.workers import compile_program
from kouling import audio, recognizer, show
from kouling.measure import accuracy, datasheet, hearing, runtimes
from kouling.measure.datasheet import Datasheet
from kouling.measure.runtimes import Subject

ROOT = Path(__file__).parents[1]
EIGHT = ROOT / "examples" / "eight.toml"  # the orders of Speech Commands' usual test
LONG = ("300", "500")  # feature frames of a call, beside a step
TAKES = ("", "parameters", "model KB", "variables KB", "total KB", "process KB", "step µs", "300 ms", "500 ms")
HEARS = ("", "all words", "eight orders", "at 10 dB, pink", "recorded", "missed at 0.5 false alarms an hour")


def process_bytes(program: Path, model: Path, samples: NDArray[np.int16]) -> int:
    """The most that the C listener had resident while it heard the samples: model, features and decoder, all of it."""
    with subprocess.Popen([program, model], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as listening:
        assert listening.stdin is not None
        listening.stdin.write(samples.tobytes())
        listening.stdin.flush()  # returns when all is heard but what a pipe holds, the last two seconds
        status = Path(f"/proc/{listening.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def five_seconds(speech: Path) -> NDArray[np.int16]:
    longest = max(speech.rglob("*.wav"), key=lambda file: file.stat().st_size)
    return audio.read(longest)[: 5 * audio.SAMPLE_RATE_HZ]


def taken(sheet: Datasheet, subject: Subject, listener: Path, samples: NDArray[np.int16]) -> list[str]:
    """Cells but for the name: memory planned for a step, the whole process, and times in turns with all the others."""
    plan = sheet.plans["step"]
    whole = process_bytes(listener, subject.path, samples)
    sizes = (plan.model_bytes, plan.variable_bytes, plan.total_bytes, whole)
    cells = [f"{subject.info.provenance['parameters'] / 1000:,.0f} K"]
    cells += [f"{size / 1000:,.0f}" for size in sizes]
    return [*cells, f"{1000 * sheet.latency['step'].median:.1f}", *(f"{sheet.latency[n].median:.2f}" for n in LONG)]


def heard(subject: Subject, held: Path) -> list[str]:
    """Cells but for the name. held: the folder with clips, speech and noise of the model's language."""
    english = subject.info.language == "en"
    commands = EIGHT if english else None
    clips, speech, noise = (held / name for name in ("clips", "speech", "noise"))
    quiet = hearing.measure(subject.opened, commands, clips, speech)
    words = hearing.measure(subject.opened, None, clips) if english else quiet
    cells = [f"{words.accuracy:.2%}", f"{quiet.accuracy:.2%}" if english else "–"]
    chosen = recognizer.chosen_commands(subject.info, commands)
    for noises in (None, noise):
        disturb = accuracy.disturbance(snr_db=10.0, noises=noises)
        figures = accuracy.evaluate(recognizer.recognizer_of(subject.opened, chosen), clips, disturb)
        cells.append(f"{figures.accuracy:.2%}")
    return [*cells, f"{quiet.misses:.2%}"]


def line(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main(english: str, mandarin: str, *models: str) -> None:
    names = models or recognizer.model_names()
    subjects = [runtimes.open_subject(*runtimes.find(name)) for name in names]
    sheets = [datasheet.begin(subject) for subject in subjects]
    datasheet.fill_footprint(sheets, subjects, show.progress)
    samples = five_seconds(Path(english, "speech"))
    line(TAKES)
    line(["---"] * len(TAKES))
    with tempfile.TemporaryDirectory() as folder:
        listener = compile_program("listen", Path(folder))
        for name, sheet, subject in zip(names, sheets, subjects, strict=True):
            line([Path(name).stem, *taken(sheet, subject, listener, samples)])
    print()
    line(HEARS)
    line(["---"] * len(HEARS))
    for name, subject in zip(names, subjects, strict=True):
        line([Path(name).stem, *heard(subject, Path(english if subject.info.language == "en" else mandarin))])


if __name__ == "__main__":
    main(*sys.argv[1:])
