"""3-D points of local features from neighbouring keyframes whose poses are known: for maps of a single camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etr_ros.camera import Camera
from etr_ros.errors import CameraError
from etr_ros.transforms import Matrix, inverse_matrix, skew, to_matrix
from etr_ros.types import Features, FloatArray, Pose, View
from etr_ros.verify import mutual_matches

MAX_ERROR_PX = 3.0  # from the epipolar line, and of the reprojection
MAX_DEPTH_SIGMA = 0.15  # of the depth
POSE_SIGMA_PX = 1.7  # what the odometry's errors between neighbours add, as measured on drives in the simulator
ITERATIONS = 4
NEAREST_M = 0.1
PULL_PX_PER_M = 1e-3  # of each point towards the camera, so weak that it only keeps parallel rays solvable


class Points(NamedTuple):
    """Where N locals are in the optical frame of their picture; both are NaN where that is not known well enough."""

    points_m: FloatArray  # (N, 3)
    depth_sigma_m: FloatArray  # (N,) one standard deviation along the optical axis


class _Rows(NamedTuple):
    """Linear equations that one view gives for the points p of the locals: coefficients @ p = constants.

    NaN for locals that this view does not show. An error of one unit is one focal length times the depth.
    """

    coefficients: NDArray[np.float64]  # (N, 2, 3)
    constants: NDArray[np.float64]  # (N, 2)
    axis: NDArray[np.float64]  # (4,) depth in this view = axis[:3] @ p + axis[3]
    focal_px: float


def triangulate(
    view: View, pose: Pose, neighbours: Sequence[tuple[View, Pose]], pixel_sigma: float, max_depth_m: float
) -> Points:
    """The 3-D points of a view's locals from their matches in neighbouring views.

    `pose` and those of the neighbours are body poses in one frame, as from odometry; an error of their scale is one of
    the points' scale. Matches have to lie on the epipolar line of these poses. Each point is the least-squares solution
    over all views that show it (iterated linear triangulation, Hartley & Sturm 1997), after leaving out those into
    which it does not project within `MAX_ERROR_PX`. It is NaN when half or more of its neighbours are left out, when it
    is behind a camera or beyond `max_depth_m`, or when the parallax is so small that its depth's standard deviation is
    above `MAX_DEPTH_SIGMA` of the depth, as ahead of a straight drive. A wrong match that happens to lie on the
    epipolar line of the only neighbour gives a wrong point: use the points with a robust estimator.
    The deviation is that of the inverse of the sum of J^T J / s^2 over the views, where J = d pixel / d point, and s^2
    is the sum of the squares of `pixel_sigma`, how far off a keypoint is, and `POSE_SIGMA_PX`. The latter stands for
    wheel odometry that turns by 0.3 degrees after 1 m; it hides neither wrong matches nor a wrong scale.
    Raises CameraError when a view has no camera or mount, or its pictures have another size than the camera's.
    """
    world_t_view = _optical_pose(view, pose)
    rays = _camera(view).rays(view.features.keypoints)
    views = [_rows(rays, np.eye(4), _camera(view))]
    for neighbour, neighbour_pose in neighbours:
        neighbour_t_view = inverse_matrix(_optical_pose(neighbour, neighbour_pose)) @ world_t_view
        seen = _matched_rays(view.features, rays, neighbour, neighbour_t_view)
        views.append(_rows(seen, neighbour_t_view, _camera(neighbour)))
    points_m, covariance, agree = _solve(views)
    z, sigma = points_m[:, 2], np.hypot(pixel_sigma, POSE_SIGMA_PX) * np.sqrt(covariance[:, 2, 2])
    known = agree & (z > 0) & (z <= max_depth_m) & (sigma <= MAX_DEPTH_SIGMA * z)
    return Points(
        np.where(known[:, None], points_m, np.nan).astype(np.float32), np.where(known, sigma, np.nan).astype(np.float32)
    )


def _camera(view: View) -> Camera:
    if view.camera is None:
        raise CameraError("pictures make no 3-D points without the camera's intrinsics: give its camera info")
    view.camera.require_size(*view.features.image_size)
    return view.camera


def _optical_pose(view: View, pose: Pose) -> Matrix:
    if view.body_t_camera is None:
        raise CameraError("where the camera sits on the robot is not known: give the transform of its optical frame")
    matrix: Matrix = to_matrix(pose) @ to_matrix(view.body_t_camera)
    return matrix


def _matched_rays(
    features: Features, rays: NDArray[np.float64], neighbour: View, neighbour_t_view: Matrix
) -> NDArray[np.float64]:
    """The neighbour's ray (N, 2) of each local that has a match near its epipolar line, else NaN."""
    matches = mutual_matches(features, neighbour.features)
    camera = _camera(neighbour)
    seen = camera.rays(neighbour.features.keypoints[matches[:, 1]])
    essential = skew(neighbour_t_view[:3, 3]) @ neighbour_t_view[:3, :3]
    lines = np.column_stack([rays[matches[:, 0]], np.ones(len(matches))]) @ essential.T
    length = np.maximum(np.hypot(lines[:, 0], lines[:, 1]), 1e-12)
    distance = np.abs((lines[:, :2] * seen).sum(axis=1) + lines[:, 2]) / length
    near = distance * camera.focal_px <= MAX_ERROR_PX
    result = np.full_like(rays, np.nan)
    result[matches[near, 0]] = seen[near]
    return result


def _rows(rays: NDArray[np.float64], camera_t_view: Matrix, camera: Camera) -> _Rows:
    """x (r3 p + t3) = r1 p + t1 and the same for y, where r and t are the rows of camera_t_view."""
    r, t = camera_t_view[:3, :3], camera_t_view[:3, 3]
    coefficients = r[:2] - rays[:, :, None] * r[2]
    return _Rows(coefficients, rays * t[2] - t[:2], camera_t_view[2], camera.focal_px)


def _solve(views: Sequence[_Rows]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Points (N, 3), their covariances (N, 3, 3) for keypoints that are 1 px off, and whether the views agree (N,).

    They do when the first view and most of the others that were matched are left.
    """
    a = np.stack([view.coefficients for view in views])  # (V, N, 2, 3)
    b = np.stack([view.constants for view in views])  # (V, N, 2)
    axes = np.stack([view.axis for view in views])  # (V, 4)
    focal_px = np.array([view.focal_px for view in views])[:, None]
    matched = np.isfinite(a).all(axis=(2, 3))
    shows = matched.copy()
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    depths = np.ones(shows.shape)
    for _ in range(ITERATIONS):
        weights = shows * (focal_px / depths) ** 2
        normal = np.einsum("vn,vnij,vnik->njk", weights, a, a) + PULL_PX_PER_M**2 * np.eye(3)
        points = np.linalg.solve(normal, np.einsum("vn,vnij,vni->nj", weights, a, b)[..., None])[..., 0]
        true_depths = axes[:, :3] @ points.T + axes[:, 3:]
        depths = np.maximum(true_depths, NEAREST_M)
        errors_px = np.linalg.norm(np.einsum("vnij,nj->vni", a, points) - b, axis=2) / depths * focal_px
        errors_px = np.where(shows & (true_depths > 0), errors_px, np.where(shows, np.inf, 0.0))
        worst = errors_px.argmax(axis=0), np.arange(len(points))
        agrees = errors_px[worst] <= MAX_ERROR_PX
        shows[worst] &= agrees
    most = 2 * shows[1:].sum(axis=0) > matched[1:].sum(axis=0)
    return points, np.linalg.inv(normal), agrees & shows[0] & most
