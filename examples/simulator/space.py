"""Where a robot can be in a level."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import DataError
from examples.simulator.level import CELL_M, Heights

MIN_CLEARANCE_M = 0.6
MIN_AREA_M2 = 10.0

Points = NDArray[np.float64]  # (N, 2) x, y in metres


class FreeSpace:
    """The part of a level that is at least MIN_CLEARANCE_M from everything a robot cannot cross.

    `is_free` is (H, W) bool on the grid of the height maps.
    """

    def __init__(self, heights: Heights, is_free: NDArray[np.bool_] | None = None) -> None:
        """All areas of MIN_AREA_M2 and more, or the given cells. Raises DataError when there are none."""
        self.heights = heights
        self.is_free = _areas(heights.clearance_m >= MIN_CLEARANCE_M) if is_free is None else is_free
        if not self.is_free.any():
            raise DataError(f"the level has nowhere {MIN_AREA_M2:g} square metres for a robot")

    def largest_area(self) -> FreeSpace:
        """Only the largest area in which every point can be reached from every other."""
        _, labels, stats, _ = cv2.connectedComponentsWithStats(self.is_free.astype(np.uint8), connectivity=4)
        biggest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        return FreeSpace(self.heights, labels == biggest)

    @property
    def area_m2(self) -> float:
        return float(self.is_free.sum()) * CELL_M**2

    def contains(self, points: Points) -> NDArray[np.bool_]:
        """(N,) which points are free."""
        return self.is_free[self.heights.cells(points[:, 0], points[:, 1])]

    def clearance_m(self, points: Points) -> NDArray[np.float32]:
        """(N,) distance of each point to the next wall."""
        return self.heights.clearance_m[self.heights.cells(points[:, 0], points[:, 1])]

    def is_straight_way_free(self, start: Points, end: Points) -> bool:
        """Whether a robot can drive the straight line from (2,) to (2,)."""
        steps = int(np.linalg.norm(end - start) / CELL_M) + 2
        return bool(self.contains(start + np.linspace(0, 1, steps)[:, None] * (end - start)).all())

    def spread_points(self, count: int, rng: np.random.Generator) -> Points:
        """(count, 2) free points far from each other: each next one is the farthest from those before."""
        free = np.argwhere(self.is_free)[:, ::-1]
        some = rng.choice(len(free), size=min(len(free), 50 * count), replace=False)
        points: Points = free[some] * CELL_M + np.array(self.heights.origin_m)
        chosen = [0]
        distance = np.linalg.norm(points - points[0], axis=1)
        while len(chosen) < min(count, len(points)):
            chosen.append(int(distance.argmax()))
            distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        return points[chosen]


def _areas(is_free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_free.astype(np.uint8), connectivity=4)
    is_kept = stats[:, cv2.CC_STAT_AREA] * CELL_M**2 >= MIN_AREA_M2
    is_kept[0] = False
    return is_kept[labels]  # type: ignore[no-any-return]
