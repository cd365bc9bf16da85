"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): weights rounded one input after the other, each time changing those
still to come so that the layer's outputs, on inputs as they are, change least."""

from __future__ import annotations

import numpy as np

from kouling.deploy import grid
from kouling.deploy.grid import GROUP, HIGHEST, LOWEST, Floats, Grid

DAMPING = 0.01  # added to the variances, of their mean; the paper's


def gptq(matrix: Floats, covariance: Floats, damping: float = DAMPING) -> tuple[Grid, Floats]:
    """A grid for a layer's weights, and the weights on it, both (O, 32 G). covariance: of the layer's inputs (32 G,
    32 G), which stands for the paper's Hessian: the mean of the inputs is left to the bias.

    The multipliers of a group are chosen when its turn comes, for weights that made up for the groups before.
    """
    variance = max(float(np.diag(covariance).mean()), 1e-12)
    inverse = np.linalg.inv(covariance + damping * variance * np.eye(len(covariance)))
    upper = np.linalg.cholesky(inverse).T  # U with inverse = U^T U, section 3.3, step 3
    importance = np.diag(upper) ** -2  # what the square of an input's rounding error costs, eq. 2
    scale = grid.fit_scale(matrix, importance)
    left, snapped = matrix.copy(), np.zeros_like(matrix)
    multipliers = []
    for start in range(0, matrix.shape[1], GROUP):
        group = slice(start, start + GROUP)
        multipliers.append(grid.fit_multipliers(left[:, group], scale, importance[group]))
        steps = multipliers[-1][:, 0] * scale.astype(np.float64)
        errors = np.zeros((len(matrix), GROUP))
        for i in range(start, start + GROUP):
            snapped[:, i] = np.rint(left[:, i] / steps).clip(LOWEST, HIGHEST) * steps
            errors[:, i - start] = (left[:, i] - snapped[:, i]) / upper[i, i]
            left[:, i + 1 : group.stop] -= np.outer(errors[:, i - start], upper[i, i + 1 : group.stop])
        left[:, group.stop :] -= errors @ upper[group, group.stop :]
    return Grid(scale, np.concatenate(multipliers, axis=1)), snapped
