"""A sentence in a voice of SVOX Pico, as a WAV file: a program of its own, as the other synthesisers are.

python pico.py en-GB RATE PITCH OUTPUT TEXT     both in percent of the voice's own

It imports nothing of kouling's, nor NumPy: that takes longer than to speak.
"""

from __future__ import annotations

import sys
import wave

SAMPLE_RATE_HZ = 16_000  # of its voices


def main(voice: str, rate: str, pitch: str, output: str, text: str) -> None:
    from ttspico import TtsEngine

    engine = TtsEngine(voice)
    engine.rate, engine.pitch = int(rate), int(pitch)
    pcm = engine.speak(text)
    if not pcm:
        raise SystemExit("nothing was said")
    with wave.open(output, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm)


if __name__ == "__main__":
    main(*sys.argv[1:])
