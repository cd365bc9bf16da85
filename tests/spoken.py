"""Real speech from the examples, for tests of exports: what it says, and what a bundle hears in it."""

from __future__ import annotations

from pathlib import Path

from kouling import audio, recognizer

EXAMPLES = Path(__file__).parents[1] / "examples"
ORDERS = ["go", "left", "stop", "yes"]  # what is said in en-orders.ogg


def heard(folder: Path) -> list[str]:
    stream = recognizer.load(folder)
    samples = audio.read(EXAMPLES / "en-orders.ogg")
    return [command.name for command in stream.accept(samples) + stream.finish()]


def copy_recordings(folder: Path) -> None:
    """Long enough to calibrate by and to verify with: the examples, several times."""
    for number in range(8):
        source = EXAMPLES / ("en-orders.ogg", "en-digits-in-noise.ogg")[number % 2]
        (folder / f"{number}.ogg").write_bytes(source.read_bytes())
