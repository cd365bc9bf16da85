"""Make the model that `kouling enrol` begins with: en-speech-small in 8 and 4 bits, in 404 KB.

python recipes/en-speech/enrol.py [OUT]     OUT: the folder of the model, src/kouling/models/en-speech if left out
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from kouling import checkpoint
from kouling.compress import quantize
from kouling.deploy import engine
from kouling.features import LogMel
from kouling.teach import background
from kouling.teach.lesson import STARTS
from kouling.teach.run import STATE

CLIPS, FRAMES = 120, 400  # of running speech, by which errors of rounding are weighed
MAX_BYTES = 404_000  # with an enrolled command of five recordings, and a stream, less than 500 KB


def main(out: Path) -> None:
    info, weights = checkpoint.load(STARTS["en"]["small"])
    speech = islice(background.speech(), CLIPS)
    log_mels = [LogMel(info.config.features).accept(samples)[:FRAMES] for samples in speech]
    features = np.stack([each for each in log_mels if len(each) == FRAMES]).astype(np.float32)
    rounded = quantize.quantize(quantize.Mixed(max_bytes=MAX_BYTES), info, weights, features)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "model.safetensors"
    checkpoint.save(partial, replace(info, name="en-speech"), rounded)
    engine.export(partial, out / "model.kouling", state=STATE["small"])
    partial.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src/kouling/models/en-speech"))
