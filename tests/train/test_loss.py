"""Losses, against brute force over all alignments."""

from __future__ import annotations

from itertools import groupby, product

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from kouling.train import loss as losses  # noqa: E402

TARGETS = torch.tensor([[2, 0], [1, 3], [0, 0]])
LENGTHS = torch.tensor([1, 2, 0])
ALLOWED = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)


def random_log_probs(rows: int, frames: int, units: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, frames, units, generator=generator)).log_softmax(dim=-1)


def by_hand(log_probs: Tensor, targets: list[int], allowed: list[bool]) -> Tensor:
    """-log of the summed probability of all alignments that say the targets, units in allowed frames only."""
    frames, units = log_probs.shape
    sums = []
    for path in product(range(units), repeat=frames):
        said = [unit for unit, _ in groupby(path) if unit]
        if said == targets and all(unit == 0 or allowed[n] for n, unit in enumerate(path)):
            sums.append(sum(log_probs[n, unit] for n, unit in enumerate(path)))
    return -torch.logsumexp(torch.stack(sums), dim=0)


@pytest.mark.parametrize("everywhere", [False, True], ids=["in their time", "anywhere"])
def test_ctc_sums_the_allowed_alignments_and_its_gradient_is_theirs(everywhere: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    allowed = torch.ones_like(ALLOWED) if everywhere else ALLOWED
    log_probs = logits.log_softmax(dim=-1)
    expected = torch.stack(
        [
            by_hand(row, targets[:length].tolist(), frames.tolist())
            for row, targets, length, frames in zip(log_probs, TARGETS, LENGTHS, allowed, strict=True)
        ]
    )
    loss = losses.ctc(log_probs, TARGETS, LENGTHS, allowed)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), logits)[0])


def test_a_word_may_be_said_from_its_end_to_a_bounded_delay_after_it() -> None:
    spans = torch.tensor([[[20, 50], [90, 93], [100, 220]], [[0, 0], [0, 0], [0, 0]]])
    allowed = losses.frames_in_time(spans, shift=7, subsampling=5, num_frames=60, delay=12)
    heard = [5 * (n + 1) - 7 for n in range(60)]  # feature frames of the scene that an encoder frame has heard
    # The third is longer than any word: its end is not known so well.
    assert allowed[0].tolist() == [45 < h <= 62 or 90 < h <= 105 or 185 < h <= 232 for h in heard]
    assert not allowed[1].any()


def test_a_word_always_has_a_frame_to_be_said_in() -> None:
    for first in range(40):
        spans = torch.tensor([[[first, first + 1]]])
        assert losses.frames_in_time(spans, shift=0, subsampling=5, num_frames=10, delay=0).any()


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_one_unit_scores_are_the_ctc_losses_of_single_units(frames: int) -> None:
    log_probs = random_log_probs(3, frames, 6)
    scores = losses.one_unit_scores(log_probs)
    assert scores.shape == (3, 6)
    lengths = torch.full((3,), frames)
    for unit in range(6):
        target = torch.full((3, 1), max(unit, 1))
        said = torch.full((3,), 1 if unit else 0)  # unit 0: nothing is said
        expected = -F.ctc_loss(log_probs.transpose(0, 1), target, lengths, said, blank=0, reduction="none")
        torch.testing.assert_close(scores[:, unit], expected, rtol=1e-5, atol=1e-5)


def test_no_command_is_the_loss_of_frames_that_are_all_blank_or_unknown() -> None:
    log_probs = random_log_probs(2, 5, 4)
    expected = [-sum(float(frame[:2].exp().sum().log()) for frame in row) for row in log_probs]
    torch.testing.assert_close(losses.no_command(log_probs), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    sure = torch.tensor([[[0.5, 0.5, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]]).clamp(min=1e-20).log()
    torch.testing.assert_close(losses.no_command(sure), torch.tensor([0.0, 45.358]), rtol=0, atol=1e-3)


def test_what_does_not_fit_into_the_frames_costs_nothing_rather_than_infinity() -> None:
    log_probs = random_log_probs(1, 2, 4).requires_grad_()
    per_row = losses.ctc(log_probs, torch.tensor([[1, 2, 3]]), torch.tensor([3]), torch.ones(1, 2, dtype=torch.bool))
    per_row.sum().backward()  # type: ignore[no-untyped-call]
    assert per_row.tolist() == [0.0] and log_probs.grad is not None and not log_probs.grad.any()
