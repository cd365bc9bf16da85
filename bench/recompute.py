"""What `training.recompute` saves: peak memory and time of training steps, each way in a process of its own (Linux).

    python -m bench.recompute [PRESET [SECONDS ...]]      -> a table; SECONDS of audio in a batch, 150 and 600

The steps are those of `Trainer`: scenes of 5 s, bfloat16, CTC, AdamW; the features are noise. PyTorch alone is taken
off: what is told is what the process took at its highest above what it had before the model was there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

SCENE_S = 5.0
STEPS = 3
UNITS = 17


def measure(preset: str, seconds: float, recompute: bool) -> str:
    """MB above what the process had before, and processor seconds of the fastest step."""
    import torch

    from kouling.config import PRESETS
    from kouling.encoder import Encoder
    from kouling.train.loop import parameter_groups
    from kouling.train.loss import ctc
    from kouling.train.recompute import recompute_blocks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = PRESETS[preset]
    model = Encoder(config, UNITS, dropout=0.1).train()
    if recompute:
        recompute_blocks(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.03), lr=1e-3)
    rows, subsampling = round(seconds / SCENE_S), config.encoder.subsampling
    frames = round(SCENE_S * 100) // subsampling
    features = torch.rand(rows, frames * subsampling, config.features.num_mels)
    targets = torch.randint(2, UNITS, (rows, 5))
    times = []
    for _ in range(STEPS):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            log_probs, _ = model(features, model.initial_state(rows))
        allowed = torch.ones(rows, frames, dtype=torch.bool)
        loss = ctc(log_probs, targets, torch.full((rows,), 5), allowed).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.process_time() - began)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{(after - before) / 1024:.0f} MB, {min(times):.2f} s of a processor a step"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--measure"]:
        preset, seconds, recompute = arguments[1:]
        print(measure(preset, float(seconds), recompute == "True"))
        return
    preset, *lengths = arguments or ["base"]
    for seconds in lengths or ["150", "600"]:
        for recompute in (False, True):
            program = [sys.executable, "-m", "bench.recompute", "--measure", preset, seconds, str(recompute)]
            done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
            kind = "recomputed" if recompute else "kept"
            print(f"{preset}, {seconds} s of audio, activations {kind}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
