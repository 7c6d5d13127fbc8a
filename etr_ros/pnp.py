"""The metric relative pose of two cameras from matched locals of which some have a 3-D point, and its covariance.

Robust start: P3P in OpenCV's USAC with MSAC scores (benchmarks/geometry.py says why). Refinement: Gauss-Newton on the
reprojections of the 3-D points of both sides, and on the depth where both sides know it. Every residual is weighted by
the covariance S that follows from the noise of both keypoints and both depths (first-order propagation, Hartley and
Zisserman, Multiple View Geometry, 5.2), so that the inverse of the information sum J^T S^-1 J is the covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.transforms import Matrix, exp, inverse_matrix

Mask = NDArray[np.bool_]

MIN_MATCHES = 6
REPROJECTION_SIGMAS = 3.0  # an inlier's reprojection is nearer than this times the keypoint noise, with exact depth
MAX_DISTANCE2 = REPROJECTION_SIGMAS**2 / 2  # the same as squared Mahalanobis distance: both keypoints are noisy
WIDE = 2.25  # refinement and noise estimate see squared distances this much larger: a too small sigma must show
MAX_DEPTH_DISTANCE2 = 36.0
MIN_DEPTH_M = 0.05
ITERATIONS, CONFIDENCE = 1000, 0.999
STEPS = 10
CONVERGED = 1e-6  # metres (or the length of the direction) and radians
MIN_CONDITION = 1e-10  # smallest eigenvalue of a scaled information matrix that is more than rounding
UNKNOWN = 1e6  # metres squared


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The matched locals of one view, M of them, in its optical frame. Unknown points are NaN."""

    rays: Matrix  # (M, 2) undistorted x / z, y / z
    spread: Matrix  # (M, 2, 2) covariance of the rays
    points: Matrix  # (M, 3) metres
    depth_sigma: Matrix  # (M,) standard deviation of the points along the optical axis in metres
    ray_sigma: float  # standard deviation of a ray near the optical axis

    @property
    def known(self) -> Mask:
        """(M,) which locals have a 3-D point."""
        return np.asarray(np.isfinite(self.points[:, 2]), bool)

    @property
    def homogeneous(self) -> Matrix:
        """(M, 3) rays with z = 1."""
        return np.column_stack([self.rays, np.ones(len(self.rays))])

    def rows(self, index: Mask | NDArray[np.int64]) -> Side:
        """The same view with some of its locals."""
        return Side(self.rays[index], self.spread[index], self.points[index], self.depth_sigma[index], self.ray_sigma)

    def point_covariance(self) -> Matrix:
        """(M, 3, 3) of the 3-D points in square metres: keypoint noise across the ray, depth noise along it."""
        z, along = self.points[:, 2], self.homogeneous
        covariance = self.depth_sigma[:, None, None] ** 2 * (along[:, :, None] * along[:, None, :])
        covariance[:, :2, :2] += z[:, None, None] ** 2 * self.spread
        return covariance


@dataclass(frozen=True, slots=True, eq=False)
class CameraMotion:
    """`match_t_query` (4, 4) between the optical frames; `covariance` (6, 6) as `etr_ros.transforms` describes it.

    `inliers` (M,) says which matches agree, `depth_m` how far their points are (median; 0 without a scale).
    `degeneracy` is empty or says why the covariance was inflated.
    """

    match_t_query: Matrix
    covariance: Matrix
    inliers: Mask
    depth_m: float = 0.0
    degeneracy: str = ""


def estimate(query: Side, match: Side) -> CameraMotion | None:
    """The motion that most matches with a 3-D point agree with; None when fewer than `MIN_MATCHES` do.

    The covariance is multiplied by the reduced chi-square of the residuals when that is above 1. Deterministic.
    """
    start = _robust(query, match)
    return None if start is None else _refine(start, query, match)


def _robust(query: Side, match: Side) -> Matrix | None:
    """(4, 4) match_t_query from the 3-D points of the side that knows more of them."""
    from_match = match.known.sum() >= query.known.sum()
    source, target = (match, query) if from_match else (query, match)
    rows = source.known
    if rows.sum() < MIN_MATCHES:
        return None
    params = cv2.UsacParams()
    params.confidence, params.maxIterations = CONFIDENCE, ITERATIONS
    params.threshold = REPROJECTION_SIGMAS
    params.sampler, params.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MSAC
    params.loMethod = cv2.LOCAL_OPTIM_NULL
    if hasattr(cv2, "NONE_POLISHER"):  # from OpenCV 4.7 on, which polishes otherwise
        params.final_polisher = cv2.NONE_POLISHER
    focal = 1 / target.ray_sigma  # of a pinhole camera whose keypoint noise is one pixel
    camera = np.diag([focal, focal, 1.0])
    try:
        found, _, turn, position, _ = cv2.solvePnPRansac(
            source.points[rows], target.rays[rows] * focal, camera, np.zeros(4), params=params
        )
    except cv2.error:  # OpenCV asserts that it found a model when the points are degenerate
        return None
    if not found or not (np.isfinite(turn).all() and np.isfinite(position).all()):
        return None
    target_t_source = np.eye(4)
    target_t_source[:3, :3], target_t_source[:3, 3] = exp(turn), np.ravel(position)
    return inverse_matrix(target_t_source) if from_match else target_t_source


def _refine(start: Matrix, query: Side, match: Side) -> CameraMotion | None:
    pose = start.copy()
    groups = [(True, np.flatnonzero(match.known)), (False, np.flatnonzero(query.known & ~match.known))]
    sides = [(from_match, query.rows(rows), match.rows(rows)) for from_match, rows in groups if len(rows)]
    rows = np.concatenate([rows for _, rows in groups])
    for step in range(STEPS + 1):
        parts = [_linearise(pose, *side) for side in sides]
        residual, jacobian, weight, distance2, near = (np.concatenate(part) for part in zip(*parts, strict=True))
        used = near & (distance2 < WIDE * MAX_DISTANCE2)
        if used.sum() < MIN_MATCHES:
            return None
        weighted = np.swapaxes(jacobian[used], 1, 2) @ weight[used]
        information = np.einsum("mij,mjk->ik", weighted, jacobian[used])
        covariance = invert(information)
        if covariance is None:
            return None
        change = -covariance @ np.einsum("mij,mj->i", weighted, residual[used])
        if step == STEPS or np.abs(change).max() < CONVERGED:
            break
        pose[:3, 3] += change[:3]
        pose[:3, :3] = exp(change[3:]) @ pose[:3, :3]
    inliers = np.zeros(len(query.rays), bool)
    inliers[rows[near & (distance2 < MAX_DISTANCE2)]] = True
    if inliers.sum() < MIN_MATCHES:
        return None
    both = (query.known & match.known)[rows][used].sum()
    chi2 = float(np.einsum("mi,mij,mj->", residual[used], weight[used], residual[used]))
    covariance *= max(1.0, chi2 / max(2 * used.sum() + both - 6, 1))
    depth_m = float(np.median(np.where(match.known, match.points[:, 2], query.points[:, 2])[inliers]))
    return CameraMotion(pose, covariance, inliers, depth_m)


def invert(information: Matrix) -> Matrix | None:
    """The covariance (K, K) that belongs to an information matrix; None when some direction is hardly known at all."""
    scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if not values[0] > MIN_CONDITION:
        return None
    return np.asarray((vectors / values) @ vectors.T / np.outer(scale, scale), np.float64)


def _linearise(pose: Matrix, from_match: bool, query: Side, match: Side) -> tuple[Matrix, Matrix, Matrix, Matrix, Mask]:
    """Where the 3-D points of one side lie in the other: rays and depth, compared with what that side measured.

    Residuals (M, 3), their Jacobian by the errors (dt, w) of match_t_query (M, 3, 6), inverse covariance (M, 3, 3),
    the squared Mahalanobis distance of the two ray residuals (M,), and which points are in front and fit in depth (M,).
    """
    turn, position = pose[:3, :3], pose[:3, 3]
    if from_match:
        source, target, target_r_source, sign = match, query, turn.T, -turn.T
        lever = source.points - position
        there = lever @ turn
    else:
        source, target, target_r_source, sign = query, match, turn, np.eye(3)
        lever = source.points @ turn.T
        there = lever + position
    in_front = there[:, 2] > MIN_DEPTH_M
    there = np.where(in_front[:, None], there, [0.0, 0.0, 1.0])
    z = there[:, 2]
    projection = np.zeros((len(z), 3, 3))
    projection[:, 0, 0] = projection[:, 1, 1] = 1 / z
    projection[:, :2, 2] = -there[:, :2] / z[:, None] ** 2
    projection[:, 2, 2] = 1.0
    jacobian = np.empty((len(z), 3, 6))
    jacobian[:, :, :3] = projection @ sign
    jacobian[:, :, 3:] = -jacobian[:, :, :3] @ _skew(lever)

    moved = projection @ target_r_source
    covariance = moved @ source.point_covariance() @ np.swapaxes(moved, 1, 2)
    covariance[:, :2, :2] += target.spread
    measured = np.where(target.known, target.points[:, 2], z)
    covariance[:, 2, 2] += np.where(target.known, target.depth_sigma**2, UNKNOWN)
    residual = np.column_stack([there[:, :2] / z[:, None] - target.rays, z - measured])
    across = residual[:, :2]
    distance2 = np.einsum("mi,mij,mj->m", across, np.linalg.inv(covariance[:, :2, :2]), across)
    near = in_front & (residual[:, 2] ** 2 < MAX_DEPTH_DISTANCE2 * covariance[:, 2, 2])
    return residual, jacobian, np.linalg.inv(covariance), distance2, near


def _skew(vectors: Matrix) -> Matrix:
    """(M, 3) -> (M, 3, 3) cross product matrices."""
    result = np.zeros((len(vectors), 3, 3))
    result[:, [2, 0, 1], [1, 2, 0]] = vectors
    result[:, [1, 2, 0], [2, 0, 1]] = -vectors
    return result
