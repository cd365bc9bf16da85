"""A sentence in a voice of SVOX Pico, as a WAV file: a program of its own, as the other synthesisers are.

python -m kouling.train.pico en-GB RATE PITCH OUTPUT TEXT     both in percent of the voice's own
"""

from __future__ import annotations

import sys

import numpy as np

from kouling import audio


def main(voice: str, rate: str, pitch: str, output: str, text: str) -> None:
    from ttspico import TtsEngine

    engine = TtsEngine(voice)
    engine.rate, engine.pitch = int(rate), int(pitch)
    pcm = engine.speak(text)
    if not pcm:
        raise SystemExit("nothing was said")
    audio.write(output, np.frombuffer(pcm, dtype=np.int16))


if __name__ == "__main__":
    main(*sys.argv[1:])
