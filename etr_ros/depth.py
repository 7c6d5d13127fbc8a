"""3-D points of local features from a depth image that is registered to the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from etr_ros.camera import Camera
from etr_ros.errors import CameraError
from etr_ros.types import FloatArray, View

WINDOW_RADIUS_PX = 2  # a local is a pixel or so off, and depth sensors smear edges about as far
MIN_KNOWN = 0.5  # share of the window
MAX_SPREAD = 0.1  # of the depth; beyond it the window lies across an edge


def attach(view: View, depth_m: FloatArray, max_depth_m: float) -> View:
    """The view with `features.points_m` read from its depth image, see `points_at`.

    Raises CameraError when the view has no camera, or its pictures or the depth have another size than the camera's.
    """
    if view.camera is None:
        raise CameraError("depth makes no 3-D points without the camera's intrinsics: give its camera info")
    view.camera.require_size(*view.features.image_size)
    points_m = points_at(view.features.keypoints, view.camera, depth_m, max_depth_m)
    return replace(view, features=replace(view.features, points_m=points_m))


def points_at(keypoints: FloatArray, camera: Camera, depth_m: FloatArray, max_depth_m: float) -> FloatArray:
    """Pixels (N, 2) -> (N, 3) float32 metres in the optical frame, NaN where the depth is unknown or not to be trusted.

    `depth_m` (H, W) is the distance along the optical axis, unknown where it is not finite or not above zero. A pixel's
    depth is the median of the window around it. It is not trusted at depth edges, where the window's values differ by
    more than `MAX_SPREAD` of the depth, nor beyond `max_depth_m`.
    Raises CameraError when the depth has another size than the camera's pictures.
    """
    if depth_m.shape != (camera.height, camera.width):
        size = " x ".join(map(str, depth_m.shape[::-1]))
        raise CameraError(
            f"the depth image has {size} pixels, the camera {camera.width} x {camera.height}: "
            "take the depth that is registered to this camera"
        )
    points_m = np.full((len(keypoints), 3), np.nan, np.float32)
    inside = np.flatnonzero(((keypoints > -0.5) & (keypoints < [camera.width - 0.5, camera.height - 0.5])).all(axis=1))
    z, trusted = _median(depth_m, np.rint(keypoints[inside]).astype(np.int64))
    known = trusted & (z <= max_depth_m)
    rays = camera.rays(keypoints[inside[known]])
    points_m[inside[known]] = np.column_stack([rays, np.ones(len(rays))]) * z[known, None]
    points_m[np.isnan(points_m).any(axis=1)] = np.nan
    return points_m


def _median(depth_m: FloatArray, pixels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The median depth (N,) around whole pixels (N, 2), and whether the window knows enough and is free of edges."""
    height, width = depth_m.shape
    offsets = np.arange(-WINDOW_RADIUS_PX, WINDOW_RADIUS_PX + 1)
    x = np.clip(pixels[:, 0, None, None] + offsets, 0, width - 1)  # (N, 1, W)
    y = np.clip(pixels[:, 1, None, None] + offsets[:, None], 0, height - 1)  # (N, W, 1)
    window = depth_m[y, x].reshape(len(pixels), len(offsets) ** 2).astype(np.float64)
    known = np.isfinite(window) & (window > 0)
    window = np.sort(np.where(known, window, np.inf), axis=1)
    count, rows = known.sum(axis=1), np.arange(len(pixels))
    median = window[rows, np.maximum(count - 1, 0) // 2]
    enough = count >= MIN_KNOWN * window.shape[1]
    spread = np.full(len(pixels), np.inf)
    spread[enough] = window[rows[enough], count[enough] - 1] - window[enough, 0]
    return median, enough & (spread <= MAX_SPREAD * median)
