"""How far an estimated trajectory is from the true one: absolute trajectory error and relative pose error.

Sturm, Engelhard, Endres, Burgard, Cremers: A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012, section V.
Estimate and truth are rows of the same moments; each may be in a frame of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


class RelativeError(NamedTuple):
    """Root mean squares over pairs of poses, and how many pairs there were."""

    position_m: float
    rotation_deg: float
    pairs: int


def align(estimate: ArrayLike, truth: ArrayLike) -> tuple[Matrix, Matrix]:
    """The rigid motion that brings the estimated positions (N, 3) closest to the true ones (N, 3), in metres.

    Gives R (3, 3) and t (3,) so that the sum of |R estimate + t - truth|^2 is least (Umeyama: Least-squares estimation
    of transformation parameters between two point patterns, PAMI 1991, equations 38 to 43, without scale). Where the
    positions lie on one line, any turn about it is as good, and one of them is given.
    Raises ValueError for shapes that differ, no positions, or numbers that are not finite.
    """
    a, b = _pair(estimate, truth, (3,))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    u, _, v = np.linalg.svd((b - mean_b).T @ (a - mean_a))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation: Matrix = u @ flip @ v
    return rotation, mean_b - rotation @ mean_a


def position_errors_m(estimate: ArrayLike, truth: ArrayLike) -> Matrix:
    """(N,) metres between estimated (N, 3) and true (N, 3) positions after `align`. Raises ValueError as it does."""
    rotation, translation = align(estimate, truth)
    moved = np.asarray(estimate, np.float64) @ rotation.T + translation
    return np.asarray(np.linalg.norm(moved - np.asarray(truth, np.float64), axis=1))


def ate_m(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Absolute trajectory error: the root mean square of `position_errors_m`, in metres."""
    return _rms(position_errors_m(estimate, truth))


def start_aligned_errors_m(estimate: ArrayLike, truth: ArrayLike) -> Matrix:
    """(N,) metres between estimated and true positions when only the first poses are laid on each other.

    Both are poses (N, 4, 4). This is what a robot that knows where it started is off by.
    Raises ValueError for shapes that differ, no poses, or numbers that are not finite.
    """
    a, b = _pair(estimate, truth, (4, 4))
    moved = b[0] @ np.linalg.inv(a[0]) @ a
    return np.asarray(np.linalg.norm(moved[:, :3, 3] - b[:, :3, 3], axis=1))


def start_aligned_ate_m(estimate: ArrayLike, truth: ArrayLike) -> float:
    """The root mean square of `start_aligned_errors_m`, in metres."""
    return _rms(start_aligned_errors_m(estimate, truth))


def rpe(estimate: ArrayLike, truth: ArrayLike, delta_m: float = 1.0) -> RelativeError:
    """Relative pose error of poses (N, 4, 4) over stretches of the true path of at least `delta_m` metres.

    The stretches follow each other; each counts by E = (a_i^-1 a_j)^-1 (b_i^-1 b_j), b being the estimate and a the
    truth (Sturm 2012, equation 1). NaN when the path is shorter than one stretch.
    Raises ValueError for shapes that differ, no poses, numbers that are not finite, or a `delta_m` of 0 or less.
    """
    b, a = _pair(estimate, truth, (4, 4))
    if not delta_m > 0:
        raise ValueError(f"the stretch must be longer than 0 m, not {delta_m}")
    ends = _ends_of_stretches(a[:, :3, 3], delta_m)
    if len(ends) < 2:
        return RelativeError(np.nan, np.nan, 0)
    true_step = np.linalg.inv(a[ends[:-1]]) @ a[ends[1:]]
    step = np.linalg.inv(b[ends[:-1]]) @ b[ends[1:]]
    error = np.linalg.inv(true_step) @ step
    turns = np.degrees(_angles(error[:, :3, :3]))
    return RelativeError(_rms(np.linalg.norm(error[:, :3, 3], axis=1)), _rms(turns), len(error))


def _ends_of_stretches(positions: Matrix, delta_m: float) -> list[int]:
    """Indices that cut the path (N, 3) into stretches, each ending at the first pose that makes it long enough."""
    ends, length = [0], 0.0
    for index, step in enumerate(np.linalg.norm(np.diff(positions, axis=0), axis=1).tolist(), start=1):
        length += step
        if length >= delta_m:
            ends.append(index)
            length = 0.0
    return ends


def _angles(rotations: Matrix) -> Matrix:
    """(N, 3, 3) -> (N,) radians in [0, pi], also exact for tiny turns."""
    skew = rotations - rotations.transpose(0, 2, 1)
    sine = np.linalg.norm(skew, axis=(1, 2)) / np.sqrt(8.0)
    cosine = (np.trace(rotations, axis1=1, axis2=2) - 1.0) / 2.0
    return np.asarray(np.arctan2(sine, cosine))


def _rms(errors: Matrix) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _pair(estimate: ArrayLike, truth: ArrayLike, shape: tuple[int, ...]) -> tuple[Matrix, Matrix]:
    a, b = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape or a.shape[1:] != shape or not len(a):
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"the shapes of estimate {a.shape} and truth {b.shape} must both be ({expected})")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a trajectory must hold finite numbers only")
    return a, b
