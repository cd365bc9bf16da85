"""The exported step: the encoder as a flat function of named tensors, the form every runtime takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.deploy.grid import without_grids
from kouling.deploy.state_scales import without_scales
from kouling.encoder import BlockState, Encoder, EncoderState


def build(info: ModelInfo, weights: Mapping[str, NDArray[Any]]) -> Encoder:
    """The encoder of a checkpoint, for evaluation, float32; int4 grids, on which its weights lie, and the scales of an
    int8 state are of no use here.

    Raises: ValueError where weights do not fit the config.
    """
    encoder = Encoder(info.config, len(info.units))
    tensors = {
        key: torch.from_numpy(np.asarray(value, dtype=np.float32 if value.dtype == np.float16 else value.dtype))
        for key, value in without_scales(without_grids(weights)).items()
    }
    expected = {key: value for key, value in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    shapes = [{key: value.shape for key, value in each.items()} for each in (expected, tensors)]
    unfit = [key for key in {**expected, **tensors} if shapes[0].get(key) != shapes[1].get(key)]
    if unfit:
        raise ValueError(f"{info.name}: weights do not fit the configuration: {', '.join(unfit[:4])}")
    encoder.load_state_dict(tensors, strict=False)
    return encoder.eval()


def load(path: Path) -> tuple[ModelInfo, Encoder]:
    """Raises: ValueError where the checkpoint is unusable; FileNotFoundError."""
    info, weights = checkpoint.load(path)
    return info, build(info, weights)


def state_names(layers: int) -> list[str]:
    """Names of the state's tensors, in the order of `flatten`: the path of each one in `EncoderState`."""
    blocks = [f"blocks.{i}.{name}" for i in range(layers) for name in BlockState._fields]
    return ["stem", *blocks, "frames_seen"]


def flatten(state: EncoderState) -> list[Tensor]:
    return [state.stem, *(tensor for block in state.blocks for tensor in block), state.frames_seen]


def unflatten(tensors: tuple[Tensor, ...]) -> EncoderState:
    middle = tensors[1:-1]
    width = len(BlockState._fields)
    blocks = tuple(BlockState(*middle[i : i + width]) for i in range(0, len(middle), width))
    return EncoderState(tensors[0], blocks, tensors[-1])


class Step(nn.Module):
    """features, state tensors -> log-probabilities, next state tensors; no structure left, as exporters want it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        log_probs, following = self.encoder(features, unflatten(state))
        return log_probs, *flatten(following)
