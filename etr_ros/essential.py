"""Rotation and direction of motion of two cameras from matched rays, with covariance, where no 3-D point is known.

Robust start: essential matrix by OpenCV's USAC with MAGSAC++ scores (benchmarks/geometry.py says why). Refinement:
Gauss-Newton on the Sampson distance over the rotation and the sphere of directions (Hartley and Zisserman, Multiple
View Geometry, 11.4.3). Where a simpler model explains the matches as well, an essential matrix does not tell the
direction: see `etr_ros.homography`.
"""

from __future__ import annotations

import cv2
import numpy as np

from etr_ros import homography
from etr_ros.homography import AMBIGUOUS, EXPLAINED, MAX_TRANSFER2, Fit, cross, tangents
from etr_ros.pnp import CONFIDENCE, CONVERGED, MIN_MATCHES, STEPS, CameraMotion, Mask, Side, invert
from etr_ros.transforms import Matrix, exp, rotation_vector

ITERATIONS = 500
MAX_DISTANCE2 = 4.0  # squared Sampson distance of an inlier in units of the keypoint noise
WIDE = 2.25  # refinement and noise estimate see squared distances this much larger: a too small sigma must show
EPIPOLE_SIGMAS = 5.0  # nearer to the epipole the noise of a distance is no longer of first order
MAX_PARALLAX = 2.0  # of the median
NEARLY_EXPLAINED = 0.7  # share below which a simpler model need not be refined
ONLY_TURNED = "the camera only turned, or what it sees is far away: the direction of motion is not known"
ONE_PLANE = "the inliers lie on one plane: the direction of motion is ambiguous"


def estimate(query: Side, match: Side) -> CameraMotion | None:
    """The motion up to scale that most matches agree with; None when fewer than `MIN_MATCHES` do. Deterministic.

    The position of `match_t_query` is the unit direction from the matched camera to the query's, in its optical frame.
    The covariance is multiplied by the reduced chi-square when that is above 1. Across the direction, its position
    block is what the residuals tell; along it, the mean of that. Then
    - after a pure rotation (it explains nearly all inliers) the direction is zero and its covariance that of a
      direction of which nothing is known, a third in every axis; that of the rotation grows by the outer product of its
      difference to the rotation of a moving camera, which is not ruled out;
    - on a plane (a homography explains nearly all inliers) the plane is estimated along; when it leaves a second
      solution, the covariance of that and the outer product of the difference to it are added.
    """
    if len(query.rays) < MIN_MATCHES:
        return None
    best = _essential(query, match)
    count = MIN_MATCHES if best is None else max(int(best.inliers.sum()), MIN_MATCHES)
    model = homography.robust(query, match)
    if model is None or homography.count(model, query, match) < NEARLY_EXPLAINED * count:
        return None if best is None else _motion(best, _whole(best))
    planes = homography.plane_motions(model, query, match)
    turned = homography.rotation(model, query, match)
    others = [*planes, *([] if best is None else [best])]
    if turned is not None and turned.inliers.sum() >= EXPLAINED * count and not _has_parallax(turned, others):
        covariance = turned.covariance.copy()
        for other in others:
            difference = _difference(other, turned)[3:]
            covariance[3:, 3:] += np.outer(difference, difference)
        return _motion(turned, covariance, ONLY_TURNED)
    if planes and planes[0].inliers.sum() >= EXPLAINED * count:
        covariance = _whole(planes[0])
        for other in planes[1:]:
            if other.cost < planes[0].cost + AMBIGUOUS:
                difference = _difference(other, planes[0])
                covariance += _whole(other) + np.outer(difference, difference)
        return _motion(planes[0], covariance, ONE_PLANE)
    return None if best is None else _motion(best, _whole(best))


def _has_parallax(turned: Fit, others: list[Fit]) -> bool:
    """Whether a moving camera leaves residuals that are smaller by more than chance (three sigma)."""
    limit = 1 + 3 * np.sqrt(3 / turned.used.sum())
    enough = EXPLAINED * turned.inliers.sum()
    return any(turned.noise > limit * other.noise for other in others if other.inliers.sum() > enough)


def _motion(fit: Fit, covariance: Matrix, degeneracy: str = "") -> CameraMotion | None:
    if fit.inliers.sum() < MIN_MATCHES or not np.isfinite(covariance).all():
        return None
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = fit.turn, fit.direction
    return CameraMotion(motion, covariance, fit.inliers, degeneracy=degeneracy)


def _essential(query: Side, match: Side) -> Fit | None:
    """The best essential matrix with the points in front of both cameras, refined."""
    scale = homography.pixels_per_ray(query, match)
    try:
        found, mask = cv2.findEssentialMat(
            query.rays * scale,
            match.rays * scale,
            np.diag([scale, scale, 1.0]),
            cv2.USAC_MAGSAC,
            CONFIDENCE,
            np.sqrt(MAX_DISTANCE2),
            ITERATIONS,
        )
        if found is None or found.shape != (3, 3) or not np.isfinite(found).all():
            return None
        turn_a, turn_b, direction = cv2.decomposeEssentialMat(found)
    except cv2.error:  # OpenCV asserts that it found a model when the points are degenerate
        return None
    rows, way = mask.ravel().astype(bool), np.asarray(direction, np.float64).ravel()
    seen_by_query, seen_by_match = query.rows(rows), match.rows(rows)
    motions = [(np.asarray(turn, np.float64), sign * way) for turn in (turn_a, turn_b) for sign in (1.0, -1.0)]
    start = max(motions, key=lambda motion: _in_front(motion[0], motion[1], seen_by_query, seen_by_match).sum())
    return _refine(start[0], start[1], query, match)


def _refine(turn: Matrix, direction: Matrix, query: Side, match: Side) -> Fit | None:
    for step in range(STEPS + 1):
        distance, by_motion = _sampson(turn, direction, query, match)
        free = np.zeros((6, 5))
        free[:3, :2], free[3:, 2:] = tangents(direction), np.eye(3)
        in_front = _in_front(turn, direction, query, match)
        used = in_front & (distance**2 < WIDE * MAX_DISTANCE2)
        if used.sum() < MIN_MATCHES:
            return None
        jacobian = by_motion[used] @ free
        weighted = jacobian.T * _trust(turn, query.rows(used), match.rows(used))
        inverse = invert(weighted @ jacobian)
        if inverse is None:
            return None
        covariance = inverse
        change = free @ (-covariance @ (weighted @ distance[used]))
        if step == STEPS or np.abs(change).max() < CONVERGED:
            break
        direction = direction + change[:3]
        direction /= np.linalg.norm(direction)
        turn = exp(change[3:]) @ turn
    distance2 = distance**2
    noise = float(distance2[used].sum() / max(used.sum() - 5, 1))
    inliers = in_front & (distance2 < MAX_DISTANCE2)
    cost = float(np.where(used, distance2, WIDE * MAX_DISTANCE2).sum())
    return Fit(turn, direction, max(1.0, noise) * free @ covariance @ free.T, cost, noise, inliers, used)


def _sampson(turn: Matrix, direction: Matrix, query: Side, match: Side) -> tuple[Matrix, Matrix]:
    """Signed Sampson distances (M,) in units of their noise, and their derivatives by the errors (dt, w) (M, 6)."""
    there, seen = query.homogeneous @ turn.T, match.homogeneous  # (M, 3), in axes of the match
    normal = cross(direction, there)  # of the epipolar plane
    value = (seen * normal).sum(axis=1)
    back = cross(seen, direction)
    noise_match = _times(match.spread, normal)
    noise_query = _times(query.spread, back @ turn) @ turn.T
    variance = (normal * noise_match).sum(axis=1) + (back * noise_query).sum(axis=1)
    variance += (EPIPOLE_SIGMAS * query.ray_sigma * match.ray_sigma) ** 2
    by_motion = np.hstack([cross(there, seen), cross(there, back)])
    half_variance_by_motion = np.hstack(
        [
            cross(there, noise_match) + cross(noise_query, seen),
            cross(there, cross(noise_match, direction)) - cross(back, noise_query),
        ]
    )
    by_motion -= (value / variance)[:, None] * half_variance_by_motion
    scale = 1 / np.sqrt(variance)
    return value * scale, by_motion * scale[:, None]


def _times(spread: Matrix, normals: Matrix) -> Matrix:
    """Ray covariances (M, 2, 2) times the first two of (M, 3), as (M, 3) with a zero."""
    product = (spread @ normals[:, :2, None])[:, :, 0]
    return np.column_stack([product, np.zeros(len(product))])


def _trust(turn: Matrix, query: Side, match: Side) -> Matrix:
    """(M,) weights that bound the leverage of a match: below 1 when its parallax is beyond that of most others.

    A wrong match that lies on its epipolar line by chance mostly has a large parallax.
    """
    there = query.homogeneous @ turn.T
    parallax = np.linalg.norm(cross(there, match.homogeneous), axis=1)
    trust = np.minimum(1.0, MAX_PARALLAX * np.median(parallax) / np.maximum(parallax, 1e-12)) ** 2
    return np.asarray(trust, np.float64)


def _in_front(turn: Matrix, direction: Matrix, query: Side, match: Side) -> Mask:
    """(M,) which points lie in front of both cameras, or so far that their rays are parallel within the noise."""
    there, seen = query.homogeneous @ turn.T, match.homogeneous
    parallax = cross(seen, there)
    depth_query = -(cross(seen, direction) * parallax).sum(axis=1)  # times |parallax|^2
    depth_match = -(cross(there, direction) * parallax).sum(axis=1)
    is_far = (parallax**2).sum(axis=1) < MAX_TRANSFER2 * (query.ray_sigma**2 + match.ray_sigma**2)
    return np.asarray(is_far | ((depth_query > 0) & (depth_match > 0)), bool)


def _whole(fit: Fit) -> Matrix:
    """The covariance of a fit, along its direction as large as across on average: its length tells nothing."""
    covariance = fit.covariance.copy()
    covariance[:3, :3] += np.trace(covariance[:3, :3]) / 2 * np.outer(fit.direction, fit.direction)
    return covariance


def _difference(a: Fit, b: Fit) -> Matrix:
    """(6,) the errors (dt, w) by which a differs from b."""
    return np.concatenate([a.direction - b.direction, rotation_vector(a.turn @ b.turn.T)])
