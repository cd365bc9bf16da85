"""Words spoken by the speech synthesisers espeak-ng and flite, in many voices: unknown words to be rejected."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
ESPEAK_VOICES = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
FLITE_VOICES = ("slt", "kal16", "awb", "rms")


@dataclass(frozen=True)
class Voice:
    """One way to say something; drawn by `draw_voice`."""

    engine: str  # espeak-ng or flite
    name: str
    words_per_minute: int
    pitch: int  # 0 to 99, espeak-ng only


def draw_voice(rng: random.Random) -> Voice:
    if rng.random() < 0.3:
        return Voice("flite", rng.choice(FLITE_VOICES), rng.randint(130, 220), 50)
    return Voice(
        "espeak-ng", rng.choice(ESPEAK_ACCENTS) + rng.choice(ESPEAK_VOICES), rng.randint(110, 220), rng.randint(15, 85)
    )


def command_line(text: str, voice: Voice, output: Path) -> list[str]:
    if voice.engine == "flite":
        stretch = f"duration_stretch={170 / voice.words_per_minute:.2f}"
        return ["flite", "-voice", voice.name, "--setf", stretch, "-t", text, "-o", str(output)]
    speed, pitch = str(voice.words_per_minute), str(voice.pitch)
    return ["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(output), "--", text]


def speak_list(words: list[str], voices_per_word: int, seed: int) -> Iterator[tuple[str, str, io.BytesIO]]:
    """(word, name, WAV file) of every word in every drawn voice.

    Raises: ValueError where a synthesiser is not installed, saying how to install it.
    """
    missing = [engine for engine in ("espeak-ng", "flite") if shutil.which(engine) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not found; install with: apt-get install espeak-ng flite")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "spoken.wav"
        for word in words:
            for take in range(voices_per_word):
                subprocess.run(command_line(word, draw_voice(rng), output), check=True, capture_output=True)
                yield word, f"{word}/{take:03d}.wav", io.BytesIO(output.read_bytes())
