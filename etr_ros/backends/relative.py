"""The relative pose of a loop that may enter a pose graph, and its uncertainty as pose graphs want it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etr_ros import transforms
from etr_ros.errors import EtrError
from etr_ros.transforms import Matrix
from etr_ros.types import LoopClosure, Pose

Row = tuple[float, ...]


class UnsuitableLoopError(EtrError):
    """A loop that a back end cannot be told."""


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """The pose of body b in body a, in metres, and its covariance (6, 6) as in `etr_ros.transforms`."""

    a_t_b: Pose
    covariance: Matrix

    def inverse(self) -> RelativePose:
        """The pose of a in b."""
        covariance = transforms.inverse_covariance(self.covariance, self.a_t_b)
        return RelativePose(transforms.inverse(self.a_t_b), covariance)

    def between(self, c_t_a: Pose, b_t_d: Pose) -> RelativePose:
        """The pose of d in c; the two given poses count as exact."""
        pose = transforms.compose(transforms.compose(c_t_a, self.a_t_b), b_t_d)
        return RelativePose(pose, transforms.change_frames(self.covariance, c_t_a, self.a_t_b, b_t_d))

    def information(self) -> Matrix:
        """(6, 6) inverse of the covariance of the error e = (dx, dy, dz, rotX, rotY, rotZ) in a_t_b exp(e).

        That error is along and about the axes of b, in metres and radians: the one of GTSAM's BetweenFactor, of g2o's
        EdgeSE3 (there with half angles) and so of RTAB-Map.
        """
        to_b = np.kron(np.eye(2), transforms.rotation(self.a_t_b.quat_xyzw).T)
        information = np.linalg.inv(to_b @ self.covariance @ to_b.T)
        result: Matrix = (information + information.T) / 2
        return result


def metric_pose(loop: LoopClosure) -> RelativePose:
    """`match_t_query` of a loop, in metres and with a covariance that can be inverted.

    Raises UnsuitableLoopError when there is none.
    """
    geometry = loop.geometry
    if geometry.match_t_query is None:
        raise UnsuitableLoopError("no relative pose was computed")
    if not geometry.is_metric:
        raise UnsuitableLoopError("its translation is not in metres: depth, stereo or a map with 3-D points is needed")
    values = (*geometry.match_t_query.position_m, *geometry.match_t_query.quat_xyzw)
    if not np.isfinite(values).all():
        raise UnsuitableLoopError("its relative pose is not finite")
    if geometry.covariance is None or not _is_positive(geometry.covariance):
        raise UnsuitableLoopError("its covariance is missing or not positive definite")
    return RelativePose(geometry.match_t_query, geometry.covariance)


def row_major(matrix: Matrix) -> Row:
    """(6, 6) -> 36 values, as in the messages."""
    values: list[float] = matrix.ravel().tolist()
    return tuple(values)


def _is_positive(matrix: Matrix) -> bool:
    if matrix.shape != (6, 6) or not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T):
        return False
    sigmas = np.sqrt(np.clip(np.diag(matrix), 1e-30, None))  # correlations, so that units do not matter
    return bool((np.diag(matrix) > 0).all() and np.linalg.eigvalsh(matrix / np.outer(sigmas, sigmas))[0] > 1e-12)
