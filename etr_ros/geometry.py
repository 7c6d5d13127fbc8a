"""How the robot stood at the query to how it stood at the matched place: relative pose with an honest covariance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from etr_ros import essential, layout, pnp, verify
from etr_ros.camera import Camera
from etr_ros.config import GeometryConfig
from etr_ros.pnp import MIN_MATCHES, CameraMotion, Side
from etr_ros.transforms import Matrix, change_frames, compose, from_matrix, inverse
from etr_ros.types import Features, FloatArray, Geometry, Pose, View

MIN_COVERAGE = 0.05
MAX_WEAKNESS = 0.05  # standard deviation in rad, or in the scene's depth
REFERENCE_SIDE_PX = 640  # keypoints of larger pictures are found in pictures shrunk to this
MAX_RAY = 10.0  # 84 degrees off the axis
MIN_SPREAD = 0.05  # of the keypoint noise on the optical axis; below it the distortion model folds the picture
NOT_MOUNTED = "where the camera sits on the robot is not known"
FEW_DEPTHS = f"fewer than {MIN_MATCHES} local matches have a known depth"
NOT_CALIBRATED = "the intrinsics of the camera are not known"


def estimate(query: View, match: View, config: GeometryConfig, matches: NDArray[np.int64] | None = None) -> Geometry:
    """The relative pose of two views from those mutual matches of their locals that agree with one motion; `matches`
    (M, 2) are those of `verify.mutual_matches` where they are known.

    With intrinsics in both views and 3-D points of at least 6 matches in either (closer than `config.max_depth_m`), the
    pose is metric (`etr_ros.pnp`). With fewer points it comes from the essential matrix (`etr_ros.essential`) and is
    not: its position is the unit direction in which the camera moved, in axes of the matched body; the body moved in
    that direction too when it did not turn or the camera sits at its origin. Without intrinsics only the inliers of a
    fundamental matrix are counted. There is no pose with fewer than 6 inliers, or without `body_t_camera`.

    `config.pixel_sigma` is meant for pictures up to 640 px wide or high and grows with larger ones, as local features
    are found in pictures shrunk to that. The covariance is larger than what follows from the noise
    - by `config.inflation`, as neighbouring locals lie on one surface and share its errors;
    - by the reduced chi-square, when the residuals are larger than the noise explains;
    - by `MIN_COVERAGE` / coverage, when the inliers spread over less than that share of the picture, as one object that
      moved or stands there twice may hold them all (coverage: the rectangle with evenly spread points of the same
      scatter as share of the picture, the smaller of both pictures);
    - by (s / `MAX_WEAKNESS`)^2, when the weakest direction of a metric pose has the standard deviation s, in radians or
      in median depths of the scene, beyond which the first-order propagation no longer holds;
    - as `etr_ros.essential` says, on planes and in pure rotation.
    """
    pairs = verify.mutual_matches(query.features, match.features) if matches is None else matches
    if query.camera is None or match.camera is None:
        return _count_only(query.features, match.features, pairs)
    sides = (
        _side(query.features, query.camera, pairs[:, 0], config),
        _side(match.features, match.camera, pairs[:, 1], config),
    )
    usable = np.logical_and.reduce([np.isfinite(side.rays).all(axis=1) for side in sides])
    seen_by_query, seen_by_match = (side.rows(usable) for side in sides)
    is_metric = bool((seen_by_query.known | seen_by_match.known).sum() >= MIN_MATCHES)
    solve = pnp.estimate if is_metric else essential.estimate
    motion = solve(seen_by_query, seen_by_match)
    if motion is None:
        return Geometry(0, len(pairs), degeneracy=f"fewer than {MIN_MATCHES} local matches agree with one motion")
    inliers = pairs[usable][motion.inliers]
    coverage = _coverage(query.features, match.features, inliers)
    factor, reasons = _weakness(motion, coverage, is_metric)
    if not is_metric and any(_has_depth(view.features) for view in (query, match)):
        reasons.append(FEW_DEPTHS)
    if query.body_t_camera is None or match.body_t_camera is None:
        reasons = [NOT_MOUNTED, *reasons]
        return Geometry(len(inliers), len(pairs), degeneracy="; ".join(reasons), coverage=coverage)
    pose, covariance = _between_bodies(motion, query.body_t_camera, match.body_t_camera, is_metric)
    covariance *= factor * config.inflation
    agreement = layout.agreement(query, match, motion.match_t_query) if is_metric else math.nan
    return Geometry(len(inliers), len(pairs), pose, covariance, is_metric, "; ".join(reasons), coverage, agreement)


def _count_only(query: Features, match: Features, pairs: NDArray[np.int64]) -> Geometry:
    inliers = pairs[verify.epipolar_inliers(query.keypoints[pairs[:, 0]], match.keypoints[pairs[:, 1]])]
    return Geometry(len(inliers), len(pairs), degeneracy=NOT_CALIBRATED, coverage=_coverage(query, match, inliers))


def _has_depth(features: Features) -> bool:
    return features.points_m is not None and bool(np.isfinite(features.points_m).any())


def _side(features: Features, camera: Camera, rows: NDArray[np.int64], config: GeometryConfig) -> Side:
    """The matched locals as rays with their noise; what the distortion model cannot undistort becomes NaN."""
    pixels = features.keypoints[rows]
    sigma_px = config.pixel_sigma * max(1.0, max(features.image_size) / REFERENCE_SIDE_PX)
    rays = camera.rays(pixels)
    right, down = (camera.rays(pixels + np.asarray(step, np.float32)) - rays for step in ([1, 0], [0, 1]))
    ray_per_pixel = np.stack([right, down], axis=2)  # (M, 2, 2)
    spread = sigma_px**2 * ray_per_pixel @ np.swapaxes(ray_per_pixel, 1, 2)
    is_regular = np.linalg.det(spread) > (MIN_SPREAD * sigma_px / camera.focal_px) ** 4
    rays[~((np.abs(rays) < MAX_RAY).all(axis=1) & is_regular)] = np.nan
    points = np.full((len(rows), 3), np.nan)
    if features.points_m is not None:
        points = features.points_m[rows].astype(np.float64)
        z = points[:, 2]
        points[~(np.isfinite(points).all(axis=1) & (z > pnp.MIN_DEPTH_M) & (z <= config.max_depth_m))] = np.nan
    depth_sigma = config.depth_sigma * points[:, 2] ** 2
    if features.depth_sigma_m is not None:
        told = features.depth_sigma_m[rows].astype(np.float64)
        depth_sigma = np.where(np.isfinite(told), told, depth_sigma)
    return Side(rays, spread, points, depth_sigma, sigma_px / camera.focal_px)


def _coverage(query: Features, match: Features, inliers: NDArray[np.int64]) -> float:
    """The share of the picture that the inliers (I, 2) spread over, in [0, 1]: the smaller of both pictures."""
    if len(inliers) < 3:
        return 0.0
    shares = (
        _spread_area(features.keypoints[rows]) / (features.image_size[0] * features.image_size[1])
        for features, rows in zip((query, match), inliers.T, strict=True)
    )
    return float(min(1.0, *shares))


def _spread_area(pixels: FloatArray) -> float:
    """The area in which evenly spread points would have the scatter of these, in square pixels."""
    return 12 * float(np.sqrt(max(np.linalg.det(np.cov(pixels.T.astype(np.float64))), 0.0)))


def _weakness(motion: CameraMotion, coverage: float, is_metric: bool) -> tuple[float, list[str]]:
    """What the covariance is to be multiplied by, and why."""
    reasons = [motion.degeneracy] if motion.degeneracy else []
    factor = 1.0
    if coverage < MIN_COVERAGE:
        factor *= MIN_COVERAGE / max(coverage, 1e-4)
        reasons.append(f"the inliers spread over {100 * coverage:.1f} % of the picture only")
    if is_metric:
        scale = np.repeat([1 / motion.depth_m, 1.0], 3)
        weakest = float(np.sqrt(np.linalg.eigvalsh(motion.covariance * np.outer(scale, scale))[-1]))
        if weakest > MAX_WEAKNESS:
            factor *= (weakest / MAX_WEAKNESS) ** 2
            reasons.append(f"the inliers hardly fix the pose (standard deviation {100 * weakest:.0f} % of the depth)")
    return factor, reasons


def _between_bodies(motion: CameraMotion, query: Pose, match: Pose, is_metric: bool) -> tuple[Pose, Matrix]:
    """The motion of the cameras as that of the bodies which carry them, by body_t_camera of both."""
    between_cameras = from_matrix(motion.match_t_query, "")
    camera_t_query = inverse(query)
    pose = compose(compose(match, between_cameras), camera_t_query)
    if not is_metric:  # without a scale the lever arms cannot be taken off: the direction is only turned
        match, camera_t_query = Pose((0.0, 0.0, 0.0), match.quat_xyzw), Pose((0.0, 0.0, 0.0))
        pose = Pose(compose(match, between_cameras).position_m, pose.quat_xyzw)
    return Pose(pose.position_m, pose.quat_xyzw, ""), change_frames(
        motion.covariance, match, between_cameras, camera_t_query
    )
