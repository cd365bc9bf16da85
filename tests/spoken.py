"""Real speech from the examples, for tests of exports: what it says, and what a bundle hears in it."""

from __future__ import annotations

import json
from pathlib import Path

from kouling import audio, recognizer
from kouling.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
ORDERS = ["go", "left", "stop", "yes"]  # what is said in en-orders.ogg


def heard(folder: Path) -> list[str]:
    stream = recognizer.load(folder)
    samples = audio.read(EXAMPLES / "en-orders.ogg")
    return [command.name for command in stream.accept(samples) + stream.finish()]


def proven_export(target: str, scheme: str, least_db: float, folder: Path) -> None:
    """Export en-small with real speech to calibrate by; the bundle proves itself and hears what is said."""
    recordings, out = folder / "recordings", folder / "bundle"
    recordings.mkdir()
    copy_recordings(recordings)
    command = ["export", "en-small", "--target", target, "--scheme", scheme, "--recordings", str(recordings)]
    assert main([*command, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["parity"]["passed"] and report["parity"]["snr_db"] > least_db
    assert heard(out) == ORDERS


def copy_recordings(folder: Path) -> None:
    """Long enough to calibrate by and to verify with: the examples, several times."""
    for number in range(8):
        source = EXAMPLES / ("en-orders.ogg", "en-digits-in-noise.ogg")[number % 2]
        (folder / f"{number}.ogg").write_bytes(source.read_bytes())
