"""Constants that batch normalisation hides from training, taken out of a model that is about to be saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kouling.config import EncoderConfig


def without_offsets(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Weights of an encoder with batch normalisation that hears the same, without what attention adds to every key and
    every value alike. A softmax does not see the first, and the normalisations behind see nothing of the second, so
    nothing holds them: they grew to hundreds, of which int8 and bfloat16 leave nothing of what differs.

    Of other encoders, and of linear attention, which sees them, the weights as they are.
    """
    result = dict(weights)
    if config.norm != "batch" or config.attention == "linear":
        return result
    for block in (f"blocks.{index}" for index in range(config.layers)):
        norm, projection = f"{block}.attention.norm", f"{block}.attention.query_key_value"
        added = result[f"{projection}.bias"] + result[f"{projection}.weight"] @ result[f"{norm}.bias"]
        query, key, value = added.chunk(3)
        result[f"{norm}.bias"] = torch.zeros_like(result[f"{norm}.bias"])
        result[f"{projection}.bias"] = torch.cat([query, torch.zeros_like(key), torch.zeros_like(value)])
        less = result[f"{block}.attention.output.weight"] @ value
        for behind in (f"{block}.convolution.norm", f"{block}.feed_forward_out.norm", f"{block}.norm"):
            result[f"{behind}.running_mean"] = result[f"{behind}.running_mean"] - less
    return result
