"""The table in README.md of what a model takes and what it hears.

    python -m bench.front EN ZH [MODEL ...]

EN, ZH: what `kouling train RECIPE --validation DIR` writes for the recipes of en-commands and zh-commands. MODEL:
installed names or paths; all that are shipped, and take commands of these languages, if left out. Needs Linux and `cc`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.workers import compile_program
from kouling import audio, recognizer, show
from kouling.measure import accuracy, datasheet, hearing, runtimes
from kouling.measure.datasheet import Datasheet
from kouling.measure.runtimes import Subject

ROOT = Path(__file__).parents[1]
SHIPPED = ("en-base", "en-small", "en-small-npu", "en-commands", "en-commands-500kb", "en-commands-250kb")
SHIPPED += ("en-commands-tiny", "zh-commands", "zh-commands-500kb", "zh-commands-tiny")
EIGHT = ROOT / "examples" / "eight.toml"  # the orders of Speech Commands' usual test
HEAD = ("", "parameters", "model KB", "variables KB", "total KB", "process KB", "step µs", "300 ms", "500 ms")
HEAD += ("all words", "eight orders", "10 dB pink", "10 dB recorded", "missed")


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


def row(sheet: Datasheet, subject: Subject, held: Path, listener: Path) -> list[str]:
    """held: the folder with clips, speech and noise of the model's language."""
    plan, english = sheet.plans["step"], subject.info.language == "en"
    commands = EIGHT if english else None
    clips, speech, noise = (held / name for name in ("clips", "speech", "noise"))
    heard = hearing.measure(subject.opened, commands, clips, speech)
    words = hearing.measure(subject.opened, None, clips) if english else heard
    chosen = recognizer.chosen_commands(subject.info, commands)
    cells = [sheet.model, f"{subject.info.provenance['parameters'] / 1000:,.0f} K"]
    cells += [f"{size / 1000:,.0f}" for size in (plan.model_bytes, plan.variable_bytes, plan.total_bytes)]
    cells += [
        f"{process_bytes(listener, subject.path, five_seconds(speech)) / 1000:,.0f}",
        f"{1000 * sheet.latency['step'].median:.1f}",
    ]
    cells += [f"{sheet.latency[size].median:.2f}" for size in ("300", "500")]
    cells += [f"{words.accuracy:.2%}", f"{heard.accuracy:.2%}" if english else "–"]
    for noises in (None, noise):
        disturb = accuracy.disturbance(snr_db=10.0, noises=noises)
        figures = accuracy.evaluate(recognizer.recognizer_of(subject.opened, chosen), clips, disturb)
        cells.append(f"{figures.accuracy:.2%}")
    return [*cells, f"{heard.misses:.2%}"]


def main(english: str, mandarin: str, *models: str) -> None:
    subjects = [runtimes.open_subject(*runtimes.find(name)) for name in models or SHIPPED]
    sheets = [datasheet.begin(subject) for subject in subjects]
    datasheet.fill_footprint(sheets, subjects, show.progress)
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    with tempfile.TemporaryDirectory() as folder:
        listener = compile_program("listen", Path(folder))
        for sheet, subject in zip(sheets, subjects, strict=True):
            held = Path(english if subject.info.language == "en" else mandarin)
            print("| " + " | ".join(row(sheet, subject, held, listener)) + " |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
