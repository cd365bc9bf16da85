"""What a run looked like, epoch by epoch: the one that is kept, and a picture."""

from __future__ import annotations

import os
from pathlib import Path


def best_of(history: list[dict[str, float]]) -> int:
    """The epoch whose averaged weights are the model: the last of those that decide most validation clips rightly.
    Training goes on learning its own recordings by heart when it has learnt all that is of use for others. Accuracy
    without validation clips, NaN, is never worse."""
    best = 0
    for number, row in enumerate(history, start=1):
        if not best or not row["accuracy"] < history[best - 1]["accuracy"]:
            best = number
    return best


def plot(history: list[dict[str, float]], path: Path, name: str) -> None:
    """Loss and accuracy over the epochs, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:blue")
    left.set(title=f"{name}: training loss", xlabel="epoch", yscale="log", ylabel="nats per word")
    for key, color in (
        ("words", "tab:green"),
        ("unknown", "tab:orange"),
        ("noise", "tab:purple"),
        ("accuracy", "black"),
    ):
        right.plot(epochs, [row[key] for row in history], label=key, color=color)
    best = best_of(history)
    lowest = min(90, history[best - 1]["accuracy"] - 5)
    right.axvline(epochs[best - 1], color="gray", linestyle=":", label="kept")
    right.set(title="validation, averaged weights", xlabel="epoch", ylabel="% right", ylim=(lowest, 100))
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    os.replace(temporary, path)
