"""Two ways to fit probabilities: logistic regression, and the isotonic (pool adjacent violators) on top of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ITERATIONS = 100


def logistic(rows: Array, right: NDArray[np.bool_], ridge: float = 1.0) -> tuple[Array, float]:
    """Weights (F,) and bias of the logistic regression of `right` (Q,) on `rows` (Q, F), by Newton's method.

    Minimises the summed log loss plus ridge / 2 times the squared weights (not the bias), as scikit-learn with
    C = 1 / ridge. Raises ValueError without both kinds of samples.
    """
    target = np.asarray(right, np.float64)
    if not 0 < target.sum() < len(target):
        raise ValueError("both right and wrong samples are needed")
    design = np.column_stack([rows, np.ones(len(rows))])
    penalty = np.diag([ridge] * rows.shape[1] + [0.0])
    found = np.zeros(design.shape[1])
    loss = _loss(design, target, found, penalty)
    for _ in range(ITERATIONS):
        p = _sigmoid(design @ found)
        gradient = design.T @ (p - target) + penalty @ found
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + penalty + 1e-12 * np.eye(len(found))
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (new := _loss(design, target, found - size * step, penalty)) > loss and size > 1e-6:
            size /= 2
        if new > loss:
            break
        found, is_done = found - size * step, loss - new < 1e-12 * max(1.0, abs(loss))
        loss = new
        if is_done:
            break
    return found[:-1], float(found[-1])


def isotonic(x: Array, right: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The rising steps closest to `right` (Q,) over `x` (Q,): the mean x and the share of each block, to interpolate.

    Equal x are one sample. Shares are smoothed by one right and one wrong sample (Laplace), so none is 0 or 1, and kept
    rising.
    """
    order = np.argsort(x, kind="stable")
    values, first = np.unique(x[order], return_index=True)
    count = np.diff(np.append(first, len(x))).astype(np.float64)
    hits = np.add.reduceat(np.asarray(right, np.float64)[order], first)
    blocks: list[list[float]] = []  # sum of x * count, hits, count
    for block in zip((values * count).tolist(), hits.tolist(), count.tolist(), strict=True):
        blocks.append(list(block))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    pooled = np.array(blocks)
    centres = pooled[:, 0] / pooled[:, 2]
    shares = (pooled[:, 1] + 1.0) / (pooled[:, 2] + 2.0)
    return centres, np.maximum.accumulate(shares)


def log_loss(probability: Array, right: NDArray[np.bool_]) -> float:
    """Mean negative logarithm of the probability given to what was; (Q,) each."""
    p = np.clip(np.where(right, probability, 1 - probability), 1e-12, 1.0)
    return float(-np.log(p).mean())


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60, 60))))


def _loss(design: Array, target: Array, weights: Array, penalty: Array) -> float:
    logits = design @ weights
    return float(np.sum(np.logaddexp(0.0, logits) - target * logits) + weights @ penalty @ weights / 2)
