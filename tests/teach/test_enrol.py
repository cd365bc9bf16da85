"""Spellings of recordings: against all paths, counted one by one."""

import itertools
import math

import numpy as np
import pytest

from kouling.teach import enrol


def random_log_probs(frames: int, units: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((frames, units))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def by_counting(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of every string of units, as the sum over all its alignments."""
    total: dict[tuple[int, ...], float] = {}
    frames, units = log_probs.shape
    for path in itertools.product(range(units), repeat=frames):
        said = tuple(unit for unit, _ in itertools.groupby(path) if unit)
        total[said] = total.get(said, 0.0) + math.exp(sum(log_probs[i, unit] for i, unit in enumerate(path)))
    return total


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_spellings_are_those_of_counting_all_paths(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed)
    counted = by_counting(log_probs)
    for spelling, probability in counted.items():
        assert enrol.score(log_probs, spelling) == pytest.approx(math.log(probability), abs=1e-4)
    found = enrol.spellings(log_probs, beam=1000)
    assert dict(found) == pytest.approx({s: math.log(p) for s, p in counted.items()}, abs=1e-4)
    assert found[0][0] == max(counted, key=counted.__getitem__)


def test_a_repeated_unit_needs_a_blank_between() -> None:
    sure = np.full((3, 3), 0.01)
    sure[[0, 1, 2], [1, 0, 1]] = 0.98
    assert enrol.spellings(np.log(sure).astype(np.float32))[0][0] == (1, 1)
    without = np.full((3, 3), 0.01)
    without[:, 1] = 0.98
    assert enrol.spellings(np.log(without).astype(np.float32))[0][0] == (1,)


def test_few_spellings_are_chosen_that_explain_every_recording() -> None:
    def saying(spelling: tuple[int, ...]) -> np.ndarray:
        rows = np.full((2 * len(spelling) + 1, 6), 0.02)
        rows[::2, 0] = 0.9
        rows[range(1, len(rows), 2), spelling] = 0.9
        return np.log(rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)

    recordings = [saying((1, 2, 3)), saying((1, 2, 3)), saying((1, 4, 3)), saying((5, 2, 3, 4))]
    picked = [spelling for spelling, _ in enrol.chosen(recordings)]
    assert picked[0] == (1, 2, 3) and {(1, 4, 3), (5, 2, 3, 4)} <= set(picked)
    assert enrol.chosen([saying((1, 2))], most=3)[0][0][:2] != ()  # noisy spellings of three phones, or none
