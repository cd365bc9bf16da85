"""Which numbers training computes with on this processor."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

# Processors without instructions for bfloat16 emulate it: a step then takes twice as long as in float32.
HAS_BFLOAT16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def mixed() -> AbstractContextManager[Any]:
    """Products in bfloat16 where the processor has them, else everything in float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16)
