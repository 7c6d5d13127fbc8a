"""Exact depth pictures of a level, from its geometry (the engine's own depth buffer has 8 bits and is not used).

The camera is level, so everything that one picture column sees lies in one vertical plane: the plane crosses lines of
the level, and between two crossings there is one floor and one ceiling. Going outwards, floors and steps hide what is
below them and ceilings and lintels what is above them; each pixel shows the first of these that covers it.
Grilles and other see-through textures have no depth of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etr_ros.types import FloatArray, Pose
from examples.simulator.camera import Camera, yaw_rad
from examples.simulator.level import Level, Line, Sector

NEAR_M, FAR_M = 1e-3, 1e6
SIDE_M = 1e-4  # how far beside a line it is asked which sector lies there
SOLID = -1  # the sector where there is none; last in the tables

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class DepthCamera:
    """Sees how far the surfaces of a level are."""

    def __init__(self, level: Level, camera: Camera) -> None:
        self._camera = camera
        sides = _sides(level.sectors)
        self._ends = np.array(list(sides), np.float64).reshape(-1, 2, 2)  # (N, 2, 2) x, y of both ends
        self._sides = np.array(list(sides.values()), np.intp).reshape(-1, 2)  # (N, 2) sector to the left, to the right
        self._floor_m = np.array([*(sector.floor_m for sector in level.sectors), np.inf])
        self._ceiling_m = np.array([*(sector.ceiling_m for sector in level.sectors), -np.inf])
        self._is_sky = np.array([*(sector.is_open_sky for sector in level.sectors), False])

    def see(self, pose: Pose) -> FloatArray:
        """(H, W) metres along the optical axis from a level camera at `pose`; NaN where there is sky or nothing."""
        depth, before, after = self._crossings(pose)  # (W, K) each, nearest first
        eye, focal, (_, middle) = pose.position_m[2], self._camera.focal_px, self._camera.centre_px

        def horizon_rows(height_m: Floats) -> Floats:
            # (W, 2 K) picture row of the far edge of each plane, then of the far side of each crossing
            edges = np.stack([height_m[before], height_m[after]], axis=2) - eye
            rows: Floats = middle - focal * edges / depth[..., None]
            return rows.reshape(len(depth), -1)

        lowest_open = np.minimum.accumulate(horizon_rows(self._floor_m), axis=1)
        highest_open = np.maximum.accumulate(horizon_rows(self._ceiling_m), axis=1)
        rows = self._camera.height_px
        by_floor = lowest_open.shape[1] - _counts(np.floor(lowest_open) + 1, rows)  # (H, W) which edge covers first
        by_ceiling = _counts(np.floor(highest_open) + 1, rows)
        first = np.minimum(by_floor, by_ceiling)

        last = lowest_open.shape[1] - 1
        crossing = np.arange(len(depth)), np.minimum(first, last) // 2  # column, which crossing ends the view
        is_wall, is_up = first % 2 == 1, by_ceiling < by_floor
        here, beyond = before[crossing], after[crossing]
        rise = np.where(is_up, self._ceiling_m[here], self._floor_m[here]) - eye
        slope = (middle - np.arange(rows)[:, None]) / focal
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = np.where(is_wall, depth[crossing], rise / slope)
        is_sky = is_up & self._is_sky[here] & (~is_wall | self._is_sky[beyond])
        return np.where((first > last) | is_sky, np.nan, seen).astype(np.float32)

    def _crossings(self, pose: Pose) -> tuple[Floats, Integers, Integers]:
        """(W, K) for each column the depth of the lines that it crosses, and the sectors before and after each.

        Columns with fewer than K crossings are filled up with crossings at FAR_M.
        """
        width, focal, (middle, _) = self._camera.width_px, self._camera.focal_px, self._camera.centre_px
        yaw = yaw_rad(pose)
        offset = self._ends - np.array(pose.position_m[:2])
        ahead = offset @ [np.cos(yaw), np.sin(yaw)]  # (N, 2)
        right = offset @ [np.sin(yaw), -np.cos(yaw)]
        along, across = np.diff(ahead).ravel(), np.diff(right).ravel()
        area = ahead[:, 0] * across - right[:, 0] * along  # < 0 when the camera is to the left of the line

        near = np.maximum(ahead, NEAR_M)  # where an end is behind, the line is cut in front of the camera
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = right + (near - ahead) * (across / along)[:, None]
            column = np.ceil(middle + focal * np.where(near > ahead, cut, right) / near)
        is_ahead = ahead.max(axis=1) > NEAR_M
        first = np.where(is_ahead, column.min(axis=1), 0).clip(0, width).astype(np.intp)
        counts = np.where(is_ahead, column.max(axis=1), 0).clip(0, width).astype(np.intp) - first

        line = np.repeat(np.arange(len(counts)), counts)
        columns = np.arange(len(line)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        depth = area[line] / (across[line] - (columns - middle) / focal * along[line])
        order = np.lexsort((depth, columns))
        columns, line, depth = columns[order], line[order], depth[order]
        per_column = np.bincount(columns, minlength=width)
        place = columns, np.arange(len(line)) - np.repeat(np.cumsum(per_column) - per_column, per_column)

        shape = width, max(1, int(per_column.max()))
        depths, before, after = np.full(shape, FAR_M), np.full(shape, SOLID), np.full(shape, SOLID)
        is_left = (area < 0).astype(np.intp)[line]
        depths[place] = depth
        before[place], after[place] = self._sides[line, 1 - is_left], self._sides[line, is_left]
        return depths, before, after


def to_millimetres(depth_m: FloatArray) -> NDArray[np.uint16]:
    """Depth as cameras send and store it: whole millimetres, 0 where it is unknown or beyond 65.535 m (REP-118)."""
    millimetres = np.rint(np.nan_to_num(depth_m) * 1000)
    return np.where(millimetres <= np.iinfo(np.uint16).max, millimetres, 0).astype(np.uint16)


def _counts(first_rows: Floats, rows: int) -> Integers:
    """(H, W) for each pixel how many of its column's values (W, E) are at most its row."""
    width = len(first_rows)
    at = first_rows.clip(0, rows).astype(np.intp) + np.arange(width)[:, None] * (rows + 1)
    counts = np.bincount(at.ravel(), minlength=width * (rows + 1)).reshape(width, rows + 1)
    result: Integers = np.cumsum(counts, axis=1).T[:rows]
    return result


def _sides(sectors: tuple[Sector, ...]) -> dict[Line, list[int]]:
    """The sector to the left and to the right of every line between two of them, or at the edge of the level."""
    sides: dict[Line, list[int]] = {}
    shared: dict[Line, int] = {}
    for sector in sectors:
        for line in sector.lines:
            shared[line] = shared.get(line, 0) + 1
    for number, sector in enumerate(sectors):
        pairs = zip(sector.lines, sector.blocking, strict=True)
        edges = np.array([line for line, blocking in pairs if shared[line] > 1 or blocking], np.float64).reshape(-1, 4)
        start, end = edges[:, :2], edges[:, 2:]
        normal = (end - start)[:, ::-1] * [-1, 1] / np.linalg.norm(end - start, axis=1, keepdims=True)
        for side, sign in enumerate((1, -1)):
            inside = _are_inside((start + end) / 2 + sign * SIDE_M * normal, edges)
            for line in map(tuple, edges[inside].tolist()):
                sides.setdefault(line, [SOLID, SOLID])[side] = number
    return {line: pair for line, pair in sides.items() if pair[0] != pair[1]}


def _are_inside(points: Floats, edges: Floats) -> NDArray[np.bool_]:
    """(P,) which points (P, 2) lie inside of the edges (E, 4) (even-odd rule)."""
    x, y = points.T[..., None]
    x1, y1, x2, y2 = edges.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    crosses = ((y1 > y) != (y2 > y)) & (at > x)
    return np.asarray(crosses.sum(axis=1) % 2 == 1)
