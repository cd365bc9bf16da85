"""Losses over CTC log-probabilities (B, N, V), unit 0 blank, unit 1 unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

EARLY = 5  # feature frames before the end of a word from which it may be said
LONGEST_S = 0.9  # of a word, usually; a longer span is one whose background was taken for speech


def ctc(log_probs: Tensor, targets: Tensor, lengths: Tensor, allowed: Tensor) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), per row (B,), over the alignments that say units only
    in allowed frames, which bounds the delay of a word (Sak et al. 2015, arXiv:1507.06947, section 4).

    targets: (B, S), lengths: (B,) in the processor's memory, where `ctc_loss` wants them; allowed: (B, N) bool.
    """
    # All other frames must be blank. They enter `ctc_loss` as constants: its gradient is right only for normalised
    # log-probabilities, so none may be masked.
    forced = -log_probs[..., 0].masked_fill(allowed, 0.0).sum(dim=1)
    blank = log_probs.new_full((log_probs.shape[2],), -1e4)
    blank[0] = 0.0
    free = torch.where(allowed[..., None], log_probs, blank)
    frames = torch.full((len(log_probs),), log_probs.shape[1], dtype=torch.int64)  # as `lengths`, not on a GPU
    said = F.ctc_loss(free.transpose(0, 1), targets, frames, lengths, reduction="none", zero_infinity=True)
    return forced + said


def frames_in_time(
    spans: Tensor, shift: int, subsampling: int, num_frames: int, delay: int, longest_s: float = LONGEST_S
) -> Tensor:
    """(B, N) whether an encoder frame may say a unit: it is made when the word is over, or nearly, and at most `delay`
    feature frames after its end. CTC left to itself settles early, on what it has heard of a word so far.

    spans: (B, S, 2) first and last feature frame of each word, moved by `shift`; an empty one, (0, 0), allows nothing.
    """
    made = (torch.arange(num_frames, device=spans.device) + 1) * subsampling - shift  # feature frames heard by then
    first, last = spans[..., 0, None], spans[..., 1, None]  # (B, S, 1)
    over = torch.minimum(last, first + round(100 * longest_s)) - EARLY
    after_beginning = made > torch.maximum(first, over)
    return (after_beginning & (made <= last + max(delay, subsampling)) & (last > first)).any(dim=1)


def no_command(log_probs: Tensor) -> Tensor:
    """-log of the probability that every frame is blank or unknown, per row (B,): for running speech, whose words are
    not known, only that none of them is meant as a command."""
    return -log_probs[..., :2].logsumexp(dim=-1).sum(dim=1)


def unknown_words_present(log_probs: Tensor, window: int) -> Tensor:
    """-log of the probability that every `window` frames hold an unknown word, per row (B,): for running speech, so
    that the decoder can tell a word in its midst from one that stands alone."""
    absent = torch.log1p(-log_probs[..., 1].exp().clamp(max=1 - 1e-6))
    windows = absent[:, : absent.shape[1] // window * window].reshape(len(absent), -1, window).sum(dim=2)
    return -torch.log(-torch.expm1(windows.clamp(max=-1e-4))).sum(dim=1)


def one_unit_scores(log_probs: Tensor) -> Tensor:
    """(B, V) log-probability that a row says exactly the unit v, once; for v = 0, that it says nothing.

    The CTC forward recursion for all one-unit targets at once.
    """
    blank = log_probs[..., 0]
    before = torch.zeros_like(log_probs[:, 0])
    inside = torch.full_like(before, -1e9)
    after = torch.full_like(before, -1e9)
    for n in range(log_probs.shape[1]):
        after = torch.logaddexp(after, inside) + blank[:, n, None]
        inside = torch.logaddexp(inside, before) + log_probs[:, n]
        before = before + blank[:, n, None]
    scores = torch.logaddexp(inside, after)
    scores[:, 0] = before[:, 0]
    return scores


def saying_scores(log_probs: Tensor, sayings: Sequence[tuple[int, ...]]) -> Tensor:
    """(B, len(sayings)) log-probability that a row says exactly the units of a saying. log_probs: (B, N, V)."""
    longest = max(map(len, sayings))
    padded = [[*saying, *[0] * (longest - len(saying))] for saying in sayings]
    targets = torch.tensor(padded, dtype=torch.int64, device=log_probs.device)
    lengths = torch.tensor([len(saying) for saying in sayings])
    frames = torch.full((len(sayings),), log_probs.shape[1], dtype=torch.int64)
    rows = [
        -F.ctc_loss(row[:, None].expand(-1, len(sayings), -1), targets, frames, lengths, reduction="none")
        for row in log_probs.float()
    ]
    return torch.stack(rows)
