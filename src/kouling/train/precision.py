"""Where training computes, and with which numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DEVICES = ("auto", "cpu", "cuda")
# Processors without instructions for bfloat16 emulate it: a step then takes twice as long as in float32.
HAS_BFLOAT16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def device_called(name: str) -> torch.device:
    """auto: a GPU, where PyTorch finds one. Raises: ValueError for another name, or where there is no GPU."""
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; allowed: {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device is 'cuda' and PyTorch finds no GPU here; allowed: auto, cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def mixed(device: torch.device) -> AbstractContextManager[Any]:
    """Products in bfloat16 where the device has them, else everything in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or HAS_BFLOAT16)


def put(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """On the device, where it is not; nothing waits for it, and what was on its way there before goes on."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(device, non_blocking=True)
