"""The camera of the simulated robot, and the poses it moves through: level, turning about z only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from etr_ros import camera as intrinsics
from etr_ros.types import Pose


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels, without distortion, 90 degrees wide."""

    width_px: int = 640
    height_px: int = 480

    @property
    def focal_px(self) -> float:
        return self.width_px / 2

    @property
    def centre_px(self) -> tuple[float, float]:
        return (self.width_px - 1) / 2, (self.height_px - 1) / 2

    @property
    def intrinsics(self) -> intrinsics.Camera:
        """The same camera as a robot would know it."""
        x, y = self.centre_px
        matrix = (self.focal_px, 0.0, x, 0.0, self.focal_px, y, 0.0, 0.0, 1.0)
        return intrinsics.Camera.create(self.width_px, self.height_px, matrix, "plumb_bob", ())


def level_pose(x_m: float, y_m: float, z_m: float, yaw_rad: float) -> Pose:
    """A pose in frame "map" that is turned by yaw (counter-clockwise from x) and not tilted."""
    return Pose((x_m, y_m, z_m), (0.0, 0.0, math.sin(yaw_rad / 2), math.cos(yaw_rad / 2)))


def yaw_rad(pose: Pose) -> float:
    """The yaw of a pose that is not tilted, in [-pi, pi]."""
    _, _, z, w = pose.quat_xyzw
    return math.remainder(2 * math.atan2(z, w), 2 * math.pi)
