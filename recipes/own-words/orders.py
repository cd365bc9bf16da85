"""How many spoken orders are right, intent and every slot: random sentences of a grammar in voices of festival.

    kouling import rhino examples/coffee.yaml -o coffee.toml
    kouling teach coffee.toml -o coffee --voices espeak-ng,flite,pico
    apt-get install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
    python recipes/own-words/orders.py coffee.toml coffee

Clean, and in pink noise at 12 dB. They are no people, and not wholly new to the model: the encoder that teaching starts
from heard words, though no orders, in these voices, and the speakers kal and slt are among flite's.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio, grammar, recognizer
from kouling.config import read_toml
from kouling.measure import noise
from kouling.measure.stream import hear
from kouling.train.speak import NATURAL_WORDS_PER_MINUTE, Voice, speak

VOICES = ("cmu_us_slt_arctic_hts", "kal_diphone", "ked_diphone")
ORDERS = 240
NOISE_DB = 12.0
Samples = NDArray[np.int16]


def spoken(commands: grammar.GrammarSet) -> Iterator[tuple[str, str, Mapping[str, Any], Samples]]:
    """(voice, command, slots, sound) of each order; one in ten of the last command, the others of the first."""
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ORDERS):
            command = commands.commands[0] if number % 10 else commands.commands[-1]
            text, slots = command.sample(rng)
            voice, path = VOICES[number % 3], Path(folder) / f"{number}.wav"
            speak(text, Voice("festival", voice, NATURAL_WORDS_PER_MINUTE), path)
            silence = np.zeros(audio.SAMPLE_RATE_HZ // 2, dtype=np.int16)
            yield voice, command.name, slots, np.concatenate([silence, audio.read(path), silence, silence])


def in_noise(samples: Samples, seed: int) -> Samples:
    sound = samples.astype(np.float32)
    pink = noise.colored_noise(len(sound), 1.0, seed)
    loud = np.sqrt(np.mean(sound[sound != 0] ** 2))
    return noise.to_int16(sound + pink / np.sqrt(np.mean(pink**2)) * loud * 10 ** (-NOISE_DB / 20), 0.0)


def main(set_file: Path, model: str) -> None:
    listener = recognizer.load(model)
    right: Counter[tuple[str, str]] = Counter()
    intents: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number, (voice, command, slots, samples) in enumerate(spoken(grammar.read(read_toml(set_file), str(set_file)))):
        asked[voice] += 1
        for place, sound in (("clean", samples), (f"pink noise, {NOISE_DB:g} dB", in_noise(samples, number))):
            heard = hear(listener, sound)
            intent = len(heard) == 1 and heard[0].name == command
            intents[place] += intent
            right[place, voice] += intent and dict(heard[0].slots) == dict(slots)
    for place, count in intents.items():
        total = sum(right[place, voice] for voice in VOICES)
        print(
            f"{place}: of {ORDERS} orders {100 * total / ORDERS:.1f} % right, {100 * count / ORDERS:.1f} % the intent"
        )
        print(";  ".join(f"{voice} {100 * right[place, voice] / asked[voice]:.1f} %" for voice in VOICES))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
