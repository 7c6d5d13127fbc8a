"""Which matches of a pair agree with one motion, by geometric verification: what the gates of ETR learn from."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import verify
from etr_ros.tokens import Locals, Matches, take

MIN_INLIERS = 15  # fewer agree by chance
HALF_SIDE_PX = 320.0  # of the picture size that the verifier's threshold is meant for


def gate_targets(a: Locals, b: Locals, of_a: Matches, of_b: Matches, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Targets (2B, T) in {0, 1} for the gates of all tokens, a's pictures first, and weights (2B, T).

    In pairs whose label (B,) is 0, no match is right. In the others a mutual match is right when it agrees with the
    fundamental matrix that MAGSAC++ finds among a's mutual matches; pairs in which it finds none weigh nothing.
    """
    targets = torch.zeros(2 * len(labels), of_a.rows.shape[1])
    weights = torch.cat([of_a.mask, of_b.mask]).float()
    points = [
        (HALF_SIDE_PX * torch.cat([take(own.xy, m.rows), take(other.xy, m.partners)], dim=2)).numpy()  # (B, T, 4)
        for own, other, m in ((a, b, of_a), (b, a, of_b))
    ]
    for k in torch.nonzero(labels > 0).flatten().tolist():
        mutual_a, mutual_b = (m.mutual[k].numpy() for m in (of_a, of_b))
        found = _fundamental(points[0][k][mutual_a])
        for side, points_of, mutual in ((k, points[0][k], mutual_a), (k + len(labels), points[1][k], mutual_b)):
            if found is None:
                weights[side] = 0.0
            else:
                matrix = found if side == k else found.T
                right = mutual & (_sampson_px(points_of, matrix) < verify.THRESHOLD_PX)
                targets[side] = torch.from_numpy(right.astype(np.float32))
    return targets, weights


def _fundamental(points: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The matrix (3, 3) of matched pixels (M, 4), or None without MIN_INLIERS that agree."""
    if len(points) < MIN_INLIERS:
        return None
    try:
        matrix, mask = cv2.findFundamentalMat(
            points[:, :2],
            points[:, 2:],
            cv2.USAC_MAGSAC,
            verify.THRESHOLD_PX,
            verify.CONFIDENCE,
            verify.MAX_ITERATIONS,
        )
    except cv2.error:  # OpenCV asserts that it found a model when the points are degenerate
        return None
    if matrix is None or mask is None or matrix.shape != (3, 3) or mask.sum() < MIN_INLIERS:
        return None
    return matrix.astype(np.float64)


def _sampson_px(points: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of matches (T, 4) to the epipolar geometry, to first order (Hartley & Zisserman, equation 11.9)."""
    first, second = (np.column_stack([points[:, side], np.ones(len(points))]) for side in (np.s_[:2], np.s_[2:]))
    line_in_second, line_in_first = first @ matrix.T, second @ matrix
    off = np.einsum("ti,ti->t", second, line_in_second)
    slope = (line_in_second[:, :2] ** 2).sum(axis=1) + (line_in_first[:, :2] ** 2).sum(axis=1)
    distance: NDArray[np.float64] = np.abs(off) / np.sqrt(np.maximum(slope, 1e-12))
    return distance
