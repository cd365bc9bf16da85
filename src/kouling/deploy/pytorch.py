"""The step in PyTorch, in float32, on one thread: what every other runtime is compared with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling.encoder import EncoderState


class TorchRunner:
    """A streaming step in PyTorch. PyTorch's threads are those of the process: set them to one before measuring."""

    def __init__(self, path: Path) -> None:
        """Raises: ValueError where the checkpoint is unusable; FileNotFoundError."""
        from kouling.deploy import step

        self.info, self._encoder = step.load(path)

    def initial_state(self) -> EncoderState:
        return self._encoder.initial_state(1)

    def step(self, features: NDArray[np.float32], state: EncoderState) -> tuple[NDArray[np.float32], EncoderState]:
        """features: (T, M), T a multiple of the step -> log-probabilities (N, V), next state."""
        import torch

        with torch.inference_mode():
            log_probs, following = self._encoder(torch.from_numpy(np.ascontiguousarray(features))[None], state)
        result: NDArray[np.float32] = log_probs[0].numpy()
        return result, following


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, where it is loaded, computes on one thread meanwhile; the other runtimes always do."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)
