"""How often commands that differ in one sound are taken for one another, in voices that were kept out of training.

    kouling teach recipes/own-words/pairs-en.toml -o pairs-en --voices espeak-ng,flite
    kouling teach recipes/own-words/pairs-zh.toml -o pairs-zh --voices espeak-ng
    apt-get install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
    python recipes/own-words/pairs.py pairs-en pairs-zh

They are no people. Held out: the voices of the clips that `teach` chose its thresholds on. Festival, which speaks English
alone: the encoder that teaching starts from heard other words in these voices.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio, recognizer
from kouling.commands import CommandSet
from kouling.measure.accuracy import UNKNOWN
from kouling.measure.recordings import labelled
from kouling.measure.stream import hear
from kouling.train.speak import Festival, Voice, speak

WORDS_PER_MINUTE = (110, 130, 150, 170, 200)
Clip = tuple[str, NDArray[np.int16]]  # command, sound


def held_out(model: Path) -> Iterator[Clip]:
    for label, name, file in labelled(model / "work" / "valid" / "clips"):
        if label != UNKNOWN:
            yield label, audio.read(file, name)


def festival(command_set: CommandSet) -> Iterator[Clip]:
    with tempfile.TemporaryDirectory() as folder:
        for command in command_set.commands:
            for voice in Festival().voices("en"):
                for speed in WORDS_PER_MINUTE:
                    path = Path(folder) / "said.wav"
                    speak(command.name.replace("_", " "), Voice("festival", voice, speed), path)
                    yield command.name, audio.read(path)


def main(models: list[Path]) -> None:
    for model in models:
        listener = recognizer.load(str(model))
        sources = {"held-out voices": held_out(model)}
        if listener.info.language == "en":
            sources["festival"] = festival(listener.command_set)
        for source, clips in sources.items():
            counts: Counter[str] = Counter()
            for command, samples in clips:
                silence = np.zeros(audio.SAMPLE_RATE_HZ, dtype=np.int16)
                heard = {event.name for event in hear(listener, np.concatenate([silence, samples, silence]))}
                counts["confused" if heard - {command} else "heard" if heard else "missed"] += 1
            said = ", ".join(f"{counts[kind]} {kind}" for kind in ("heard", "confused", "missed"))
            print(f"{model.name}, {source}: of {sum(counts.values())} clips {said}")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
