"""What each kind of attention costs in the engine as its window grows: bytes of a stream, and time of a step.

    python -m bench.attention        -> a table; weights are random, which costs the same

The base preset, int8 weights, bfloat16 state, one core; kinds and windows by turns, the median of all turns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kouling.checkpoint import ModelInfo
from kouling.compress import cost
from kouling.config import PRESETS

WINDOWS = (50, 100, 500)  # feature frames
LOCAL_FRAMES = 30
ROUNDS = 7


def main() -> None:
    base = PRESETS["base"]
    units = ("<blank>", "<unknown>", *"abcdefghijklmno")
    shapes = {
        (kind, window): replace(base.encoder, attention=kind, max_cached_frames=window, local_frames=LOCAL_FRAMES)
        for kind in ("windowed", "local", "linear")
        for window in WINDOWS
    }
    found: dict[tuple[str, int], list[cost.Cost]] = {key: [] for key in shapes}
    for _ in range(ROUNDS):
        for key, encoder in shapes.items():
            info = ModelInfo("base", "en", replace(base, encoder=encoder), units)
            found[key].append(cost.of_shape(info, "int8", "bfloat16", 500, turns=5))
    print(f"| attention | {' | '.join(f'window {w}: stream KB, step µs' for w in WINDOWS)} |")
    print(f"|---|{'---|' * len(WINDOWS)}")
    for kind in ("windowed", "local", "linear"):
        cells = [
            f"{found[kind, w][0].variable_bytes / 1000:.0f}, {np.median([c.step_us for c in found[kind, w]]):.1f}"
            for w in WINDOWS
        ]
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
