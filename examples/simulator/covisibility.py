"""How much two cameras see of the same surfaces, from the level's geometry alone.

Rays are marched through the height maps in steps of a cell, which gives each camera a depth map; a point is seen by
a camera when it is not behind that map. The engine's own depth buffer is not used: it has 8 bits, and its floors are
on another scale than its walls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.types import Pose
from examples.simulator.camera import Camera, yaw_rad
from examples.simulator.level import CELL_M, Heights

RAYS = 64, 48  # across, down
POINT_STRIDE = 3  # every how many rays, across and down, a point is compared
RANGE_M = 60.0
TOLERANCE_M = 0.3
MIN_OVERLAP = 0.05


@dataclass(frozen=True, eq=False)
class Sight:
    """What a camera sees: `depth_m` (48, 64) along the optical axis, and some `points` (N, 3) of it in the map frame.

    Depth is infinite where there is sky; there are no points in the sky.
    """

    pose: Pose
    depth_m: NDArray[np.float32]
    points: NDArray[np.float64]


def sight(heights: Heights, camera: Camera, pose: Pose) -> Sight:
    """What the camera sees of the level from a pose."""
    tan_left, tan_up = _tangents(camera)  # (W,), (H,)
    travel = np.arange(1, int(RANGE_M / CELL_M)) * CELL_M  # (T,) along the optical axis
    rays = _forward(pose) + tan_left[:, None] * _left(pose)  # (W, 2)
    xy = np.array(pose.position_m[:2]) + travel[:, None] * rays[:, None]  # (W, T, 2)
    cells = heights.cells(xy[..., 0], xy[..., 1])
    z = (pose.position_m[2] + tan_up[:, None] * travel).astype(np.float32)  # (H, T)
    is_above = z[:, None] >= heights.ceiling_m[cells]  # (H, W, T)
    is_hit = is_above | (z[:, None] <= heights.floor_m[cells])
    first = is_hit.argmax(axis=2)  # (H, W)
    row, column = np.indices(first.shape)
    is_sky = is_above[row, column, first] & heights.is_open_sky[cells][column, first]
    depth = np.where(is_sky | ~is_hit.any(axis=2), np.inf, travel[first])

    some = np.s_[POINT_STRIDE // 2 :: POINT_STRIDE, POINT_STRIDE // 2 :: POINT_STRIDE]
    row, column = row[some][np.isfinite(depth[some])], column[some][np.isfinite(depth[some])]
    offset = depth[row, column, None] * np.column_stack([rays[column], tan_up[row]])
    return Sight(pose, depth.astype(np.float32), offset + np.array(pose.position_m))


def overlaps(camera: Camera, a: Sight, b: Sight) -> tuple[float, float]:
    """The share of what one camera sees that the other sees too, the smaller and the larger of both directions; each
    in [0, 1]. A close look at a wall and a far one have a small smaller and a large larger share."""
    smaller, larger = sorted((_share_seen(camera, a, b.points), _share_seen(camera, b, a.points)))
    return smaller, larger


def covisible_pairs(
    camera: Camera, sights: Sequence[Sight], others: Sequence[Sight]
) -> Iterator[tuple[int, int, float]]:
    """Index of a sight, index of one of the others, and the smaller of their shares, where the larger is at least
    MIN_OVERLAP: two sights that do not come share nothing worth mentioning. When both sequences are the same one, each
    pair comes once.
    """
    for i, one in enumerate(sights):
        for j in range(i + 1 if sights is others else 0, len(others)):
            smaller, larger = overlaps(camera, one, others[j])
            if larger >= MIN_OVERLAP:
                yield i, j, smaller


def _share_seen(camera: Camera, by: Sight, points: NDArray[np.float64]) -> float:
    """Which share of the points (N, 3) is in the picture and not hidden; 0 when there are no points."""
    if not len(points):
        return 0.0
    offset = points - np.array(by.pose.position_m)
    depth = offset[:, :2] @ _forward(by.pose)
    offset, depth = offset[depth > CELL_M], depth[depth > CELL_M]
    across, down = RAYS
    column = np.floor((0.5 - offset[:, :2] @ _left(by.pose) / depth * camera.focal_px / camera.width_px) * across)
    row = np.floor((0.5 - offset[:, 2] / depth * camera.focal_px / camera.height_px) * down)
    is_inside = (column >= 0) & (column < across) & (row >= 0) & (row < down)
    column, row, depth = column[is_inside].astype(int), row[is_inside].astype(int), depth[is_inside]
    farthest = cv2.dilate(by.depth_m, np.ones((3, 3), np.uint8))
    return float((depth <= farthest[row, column] + TOLERANCE_M).sum() / len(points))


def _tangents(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    across, down = ((np.arange(count) + 0.5) / count - 0.5 for count in RAYS)
    return -across * camera.width_px / camera.focal_px, -down * camera.height_px / camera.focal_px


def _forward(pose: Pose) -> NDArray[np.float64]:
    return np.array([np.cos(yaw_rad(pose)), np.sin(yaw_rad(pose))])


def _left(pose: Pose) -> NDArray[np.float64]:
    return np.array([-np.sin(yaw_rad(pose)), np.cos(yaw_rad(pose))])
