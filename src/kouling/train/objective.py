"""What is asked of a model: the loss of scenes by what is said in them, and its accuracy on validation clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kouling.encoder import BlockState, Encoder, EncoderState
from kouling.train import loss as losses
from kouling.train import precision
from kouling.train.precision import put
from kouling.train.recipe import Recipe
from kouling.train.scenes import Batches

PRESENCE_S = 0.6  # running speech has a word at least this often


def of_labels(log_probs: Tensor, batches: Batches, rows: NDArray[np.int64], shift: int, recipe: Recipe) -> Tensor:
    """The loss of each scene (B,): CTC of its words, in time; no command in running speech.

    log_probs: (B, N, V). rows: (B,) of `batches`. shift: feature frames of silence before the scenes.
    """
    settings, config = recipe.training, recipe.config
    device, lengths = log_probs.device, torch.from_numpy(batches.lengths[rows])
    speech, spans, targets = (put(array[rows], device) for array in (batches.speech, batches.spans, batches.targets))
    num_frames = log_probs.shape[1]
    in_time = losses.frames_in_time(
        spans, shift, config.encoder.subsampling, num_frames, settings.delay_frames, settings.longest_word_s
    )
    said = losses.ctc(log_probs, targets, lengths, in_time)
    frames = min(max(round(PRESENCE_S / config.encoder_frame_s), 1), num_frames)
    present = losses.unknown_words_present(log_probs, frames) * settings.presence_weight
    running = (losses.no_command(log_probs) + present) * settings.speech_weight
    return torch.where(speech, running, said)


def per_word(each: Tensor, batches: Batches, rows: NDArray[np.int64]) -> Tensor:
    """The sum of the losses of scenes (B,), divided by the number of words in them."""
    words = np.maximum(batches.lengths[rows], 1)[~batches.speech[rows]].sum()
    return each.sum() / max(int(words), 1)


@torch.no_grad()
def accuracy(
    model: Encoder,
    features: NDArray[np.float16],
    targets: NDArray[np.int64],
    sayings: Sequence[tuple[int, ...]] = (),
) -> dict[str, float]:
    """Percent of clips right, by the likeliest of: nothing, one unknown word, one unit; or, where what is said in a
    clip may be several units, of what is said in any.

    features: (R, T, M), targets: (R,) unit or saying, 0 for nothing; both of `SceneMaker.validation`. sayings: what the
    targets stand for, of `Lexicon`.
    """
    asked = np.unique(np.append(targets, [0, 1]))
    several = max((len(sayings[target]) for target in asked), default=1) > 1 if sayings else False
    decided = []
    state: EncoderState | None = None
    device = model.head.weight.device
    with precision.mixed(device):
        for i in range(0, len(features), 256):
            batch = put(features[i : i + 256], device).float()
            # All but the first go on from what others left behind, as the middle of a stream does.
            begun = model.initial_state(len(batch)) if state is None else first_rows(state, len(batch))
            log_probs, state = model(batch, begun)
            state = carried(state)
            if several:
                scores = losses.saying_scores(log_probs, [sayings[target] for target in asked])
                decided.append(asked[scores.argmax(dim=1).cpu().numpy()])
            else:
                decided.append(losses.one_unit_scores(log_probs).argmax(dim=1).cpu().numpy())
    units = np.maximum(np.concatenate(decided), 1) if decided else np.zeros(0, dtype=np.int64)
    right = units == np.maximum(targets, 1)  # silence and unknown need not be told apart

    def percent(which: NDArray[np.bool_]) -> float:
        return float(100 * right[which].mean()) if which.any() else math.nan

    everything = np.ones(len(targets), dtype=bool)
    return {
        "accuracy": percent(everything),
        "words": percent(targets > 1),
        "unknown": percent(targets == 1),
        "noise": percent(targets == 0),
    }


def map_state(change: Callable[[Tensor], Tensor], state: EncoderState) -> EncoderState:
    blocks = tuple(BlockState(*(change(tensor) for tensor in block)) for block in state.blocks)
    return EncoderState(change(state.stem), blocks, change(state.frames_seen))


def first_rows(state: EncoderState, rows: int) -> EncoderState:
    return map_state(lambda tensor: tensor[:rows], state)


def carried(state: EncoderState) -> EncoderState:
    """The state to go on from. Autocast leaves halves in it; it is carried on in full."""
    return map_state(lambda tensor: tensor.detach().float() if tensor.is_floating_point() else tensor, state)
