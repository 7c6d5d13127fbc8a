"""The shape of a level: sectors between lines, and the same as height maps; all in metres.

Coordinates follow REP-103: x east, y north, z up. One engine unit is 25 mm. The engine draws heights 1.2 times too
tall for its picture width; `HEIGHT_STRETCH` puts that into the metres, so that the camera has square pixels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

METRES_PER_UNIT = 0.025
HEIGHT_STRETCH = 1.2
MAX_STEP_M = 24 * METRES_PER_UNIT * HEIGHT_STRETCH + 1e-6
MIN_HEADROOM_M = 56 * METRES_PER_UNIT * HEIGHT_STRETCH - 1e-6
CELL_M = 0.125

Line = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclass(frozen=True)
class Sector:
    """A region with one floor height and one ceiling height; `lines` close around it."""

    floor_m: float
    ceiling_m: float
    lines: tuple[Line, ...]
    blocking: tuple[bool, ...]  # per line: nothing may pass, whatever the heights
    is_liquid: bool = False
    is_open_sky: bool = False

    @property
    def is_drivable(self) -> bool:
        return not self.is_liquid and self.ceiling_m - self.floor_m >= MIN_HEADROOM_M


@dataclass(frozen=True, eq=False)
class Heights:
    """A level on a grid of CELL_M; row 0 has the lowest y. In solid rock the floor is at +inf, the ceiling at -inf.

    `clearance_m` is the distance to the next thing that a robot cannot cross, 0 where it cannot be.
    """

    floor_m: NDArray[np.float32]  # (H, W)
    ceiling_m: NDArray[np.float32]  # (H, W)
    is_open_sky: NDArray[np.bool_]  # (H, W)
    clearance_m: NDArray[np.float32]  # (H, W)
    origin_m: tuple[float, float]  # x, y of the centre of cell (0, 0)

    def cells(self, x_m: NDArray[np.float64], y_m: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of points; points outside of the grid get the nearest border cell, which is solid."""
        row = np.rint((y_m - self.origin_m[1]) / CELL_M).astype(np.intp)
        column = np.rint((x_m - self.origin_m[0]) / CELL_M).astype(np.intp)
        height, width = self.floor_m.shape
        return row.clip(0, height - 1), column.clip(0, width - 1)

    def is_inside(self, x_m: float, y_m: float) -> bool:
        """Whether a point lies in some sector, not in solid rock."""
        return bool(np.isfinite(self.floor_m[self.cells(np.array(x_m), np.array(y_m))]))


@dataclass(frozen=True)
class Level:
    """All sectors of a level."""

    name: str
    sectors: tuple[Sector, ...]

    def walls(self) -> NDArray[np.float64]:
        """(N, 4) lines that a robot cannot cross: the level's edge, barriers, high steps, low openings, shores."""
        walls = [line for line, sides in self._sides.items() if self._is_blocking[line] or not _is_passable(sides)]
        return np.array(walls, np.float64).reshape(-1, 4)

    @cached_property
    def heights(self) -> Heights:
        """The level on a grid."""
        points = np.array(list(self._sides), np.float64).reshape(-1, 2)
        origin = points.min(axis=0) - 2 * CELL_M
        width, height = np.ceil((points.max(axis=0) - origin) / CELL_M).astype(int) + 3
        floor = np.full((height, width), np.inf, np.float32)
        ceiling = np.full((height, width), -np.inf, np.float32)
        is_open_sky = np.zeros((height, width), bool)
        is_drivable = np.zeros((height, width), bool)
        for sector in self.sectors:
            rows, columns, inside = _fill(self._outline(sector), origin)
            window = slice(rows, rows + inside.shape[0]), slice(columns, columns + inside.shape[1])
            floor[window][inside] = sector.floor_m
            ceiling[window][inside] = sector.ceiling_m
            is_open_sky[window][inside] = sector.is_open_sky
            is_drivable[window][inside] = sector.is_drivable
        clearance = np.where(is_drivable, _distance(self.walls(), origin, (height, width)), 0).astype(np.float32)
        return Heights(floor, ceiling, is_open_sky, clearance, (float(origin[0]), float(origin[1])))

    @cached_property
    def _sides(self) -> dict[Line, list[Sector]]:
        sides: dict[Line, list[Sector]] = defaultdict(list)
        for sector in self.sectors:
            for line in sector.lines:
                sides[line].append(sector)
        return sides

    @cached_property
    def _is_blocking(self) -> dict[Line, bool]:
        return {
            line: blocking
            for sector in self.sectors
            for line, blocking in zip(sector.lines, sector.blocking, strict=True)
        }

    def _outline(self, sector: Sector) -> NDArray[np.float64]:
        # a line that nothing blocks and that no other sector shares has this sector on both sides
        edges = [line for line in sector.lines if len(self._sides[line]) > 1 or self._is_blocking[line]]
        return np.array(edges, np.float64).reshape(-1, 4)


def _is_passable(sides: list[Sector]) -> bool:
    step = max(side.floor_m for side in sides) - min(side.floor_m for side in sides)
    headroom = min(side.ceiling_m for side in sides) - max(side.floor_m for side in sides)
    return step <= MAX_STEP_M and headroom >= MIN_HEADROOM_M and all(side.is_drivable for side in sides)


def _fill(outline: NDArray[np.float64], origin: NDArray[np.float64]) -> tuple[int, int, NDArray[np.bool_]]:
    """First row, first column, and which cells from there lie inside of the outline (even-odd rule)."""
    if not len(outline):
        return 0, 0, np.zeros((0, 0), bool)
    ends = (outline.reshape(-1, 2, 2) - origin) / CELL_M  # (K, 2, 2) in cells
    first = np.floor(ends.min(axis=(0, 1))).astype(int)
    width, height = np.ceil(ends.max(axis=(0, 1))).astype(int) - first + 1
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x1, y1), (x2, y2) in ends:  # not relative to `first`: rounding must be the same for both sides of a line
        rows = np.arange(math.ceil(min(y1, y2)), math.ceil(max(y1, y2)))
        if len(rows):
            columns = np.ceil(x1 + (rows - y1) / (y2 - y1) * (x2 - x1)).astype(int)
            toggles[rows - first[1], columns - first[0]] ^= 1
    inside = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1].astype(bool)
    return int(first[1]), int(first[0]), inside


def _distance(walls: NDArray[np.float64], origin: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Distance in metres from every cell to the nearest wall."""
    fraction_bits = 8
    ends = np.rint((walls.reshape(-1, 2, 2) - origin) / CELL_M * 2**fraction_bits).astype(np.int32)
    canvas = np.full(shape, 255, np.uint8)
    cv2.polylines(canvas, list(ends), False, (0,), 1, cv2.LINE_8, fraction_bits)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32) * np.float32(CELL_M)
