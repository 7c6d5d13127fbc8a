"""What a homography of matched rays may stand for: a camera that only turned, or one that moved in front of a plane.

Both are refined by Gauss-Newton on the transfer error, weighted by the noise of both keypoints: a rotation R, or
H = R + t a^T with the unit direction t and the plane a (its normal over its distance, in units of the way moved;
Hartley and Zisserman, Multiple View Geometry, 13.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from etr_ros.pnp import CONFIDENCE, CONVERGED, MIN_MATCHES, STEPS, Mask, Side, invert
from etr_ros.transforms import Matrix, exp

ITERATIONS = 500
MAX_TRANSFER2 = 9.21  # squared Mahalanobis distance of an inlier's transfer error: 0.99 of chi-square, 2 degrees
WIDE = 2.25  # refinement and noise estimate see squared distances this much larger: a too small sigma must show
MIN_Z = 0.1  # what is moved nearer than this, or behind the camera, fits nowhere
EXPLAINED = 0.9  # share of the essential matrix's inliers above which the simpler model explains them all
AMBIGUOUS = 9.0  # a second solution whose cost is higher by less than this cannot be ruled out


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A rotation and a unit direction (zero when it is not known) that a refinement ended in."""

    turn: Matrix
    direction: Matrix
    covariance: Matrix  # (6, 6)
    cost: float  # sum of squared distances, each cut where it is no longer used
    noise: float  # reduced chi-square: 1 when the residuals are as large as the keypoint noise explains
    inliers: Mask  # (M,)
    used: Mask  # (M,) what it was fitted to


def pixels_per_ray(query: Side, match: Side) -> float:
    """The focal length of a camera whose keypoint noise is about one pixel: OpenCV's thresholds suit pixels."""
    return 2 / (query.ray_sigma + match.ray_sigma)


def tangents(direction: Matrix) -> Matrix:
    """(3, 2) the plane that touches the unit sphere there."""
    return np.asarray(np.linalg.svd(direction[None])[2][1:].T, np.float64)


def cross(a: Matrix, b: Matrix) -> Matrix:
    """The cross product along the last axis of 3; numpy's own is several times slower on some hundred rows."""
    x = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    y = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    z = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return np.stack([x, y, z], axis=-1)


def robust(query: Side, match: Side) -> Matrix | None:
    """(3, 3) the homography of the rays that most matches agree with, with determinant 1; None when there is none."""
    scale = pixels_per_ray(query, match)
    threshold = np.sqrt(MAX_TRANSFER2)
    try:
        found, _ = cv2.findHomography(
            query.rays * scale, match.rays * scale, cv2.USAC_MAGSAC, threshold, None, ITERATIONS, CONFIDENCE
        )
    except cv2.error:  # OpenCV asserts that it found a model when the points are degenerate
        return None
    if found is None or not np.isfinite(found).all():
        return None
    model = np.diag([1.0, 1.0, scale]) @ found @ np.diag([1.0, 1.0, 1 / scale])
    determinant = np.linalg.det(model)
    return None if abs(determinant) < 1e-9 else np.asarray(model / np.cbrt(determinant), np.float64)


def count(model: Matrix, query: Side, match: Side) -> int:
    """How many matches agree with a homography."""
    return int((transfer(model, query, match)[3] < MAX_TRANSFER2).sum())


def rotation(model: Matrix, query: Side, match: Side) -> Fit | None:
    """The rotation next to a homography, refined; None when hardly any match agrees.

    Its direction is zero, with the covariance of a unit direction of which nothing is known: a third in every axis.
    """
    left, _, right = np.linalg.svd(model)
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    return _refine(turn, np.zeros(3), np.zeros(3), query, match)


def plane_motions(model: Matrix, query: Side, match: Side) -> list[Fit]:
    """The at most two motions in front of a plane that a homography may stand for, refined, best first."""
    _, turns, positions, normals = cv2.decomposeHomographyMat(model, np.eye(3))
    used = transfer(model, query, match)[3] < MAX_TRANSFER2
    if used.sum() < MIN_MATCHES:
        return []
    fits = []
    for turn, position, normal in zip(turns, positions, normals, strict=True):
        way = float(np.linalg.norm(position))
        if way > 1e-9 and (query.homogeneous[used] @ normal > 0).mean() > EXPLAINED:
            direction, plane = np.ravel(position) / way, np.ravel(normal) * way
            fits.append(_refine(np.asarray(turn, np.float64), direction, plane, query, match))
    return sorted((fit for fit in fits if fit is not None), key=lambda fit: fit.cost)


def transfer(model: Matrix, query: Side, match: Side) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Query rays moved by a (3, 3) model against those of the match.

    Residuals (M, 2), derivatives of the rays by the moved point (M, 2, 3), inverse covariance of the residuals
    (M, 2, 2), squared Mahalanobis distances (M,).
    """
    moved = query.homogeneous @ model.T
    in_front = moved[:, 2] > MIN_Z
    moved = np.where(in_front[:, None], moved, [0.0, 0.0, 1.0])
    z = moved[:, 2]
    projection = np.zeros((len(z), 2, 3))
    projection[:, 0, 0] = projection[:, 1, 1] = 1 / z
    projection[:, :, 2] = -moved[:, :2] / z[:, None] ** 2
    by_query = projection @ model[:, :2]
    weight = np.linalg.inv(match.spread + by_query @ query.spread @ np.swapaxes(by_query, 1, 2))
    residual = moved[:, :2] / z[:, None] - match.rays
    distance2 = np.einsum("mi,mij,mj->m", residual, weight, residual)
    return residual, projection, weight, np.where(in_front, distance2, np.inf)


def _refine(turn: Matrix, direction: Matrix, plane: Matrix, query: Side, match: Side) -> Fit | None:
    """Rotation, direction and plane; with a zero direction the rotation alone."""
    is_turn = not direction.any()
    rays = query.homogeneous
    for step in range(STEPS + 1):
        residual, projection, weight, distance2 = transfer(turn + np.outer(direction, plane), query, match)
        used = distance2 < WIDE * MAX_TRANSFER2
        if used.sum() < MIN_MATCHES:
            return None
        seen, by_moved = rays[used], projection[used]
        jacobian = cross((seen @ turn.T)[:, None, :], by_moved)  # (I, 2, 3) by w
        if not is_turn:
            across = tangents(direction)
            by_direction = (by_moved @ across) * (seen @ plane)[:, None, None]
            by_plane = (by_moved @ direction)[:, :, None] * seen[:, None, :]
            jacobian = np.concatenate([jacobian, by_direction, by_plane], axis=2)  # (I, 2, 8)
        weighted = np.swapaxes(jacobian, 1, 2) @ weight[used]
        inverse = invert(np.einsum("mij,mjk->ik", weighted, jacobian))
        if inverse is None:
            return None
        covariance = inverse
        change = -covariance @ np.einsum("mij,mj->i", weighted, residual[used])
        if step == STEPS or np.abs(change).max() < CONVERGED:
            break
        turn = exp(change[:3]) @ turn
        if not is_turn:
            direction = direction + across @ change[3:5]
            direction /= np.linalg.norm(direction)
            plane = plane + change[5:]
    noise = float(distance2[used].sum() / max(2 * used.sum() - len(covariance), 1))
    covariance *= max(1.0, noise)
    whole = np.zeros((6, 6))
    whole[3:, 3:] = covariance[:3, :3]
    whole[:3, :3] = np.eye(3) / 3
    if not is_turn:
        whole[:3, :3] = across @ covariance[3:5, 3:5] @ across.T
        whole[:3, 3:] = across @ covariance[3:5, :3]
        whole[3:, :3] = whole[:3, 3:].T
    cost = float(np.where(used, distance2, WIDE * MAX_TRANSFER2).sum())
    return Fit(turn, direction, whole, cost, noise, distance2 < MAX_TRANSFER2, used)
