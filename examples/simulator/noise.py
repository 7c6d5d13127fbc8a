"""What the sensors of the simulated robot get wrong; all of the noise model is here.

Depth is that of an active stereo camera: its error grows with the square of the distance, it sees nothing too near or
too far, and it fails at the edges of things. Odometry is that of wheels: the wheel's diameter is not quite known
(scale), nor the distance between the wheels (turns), the wheels differ a little (a steady turn), and they slip (a
random walk). The sizes are those of a small robot whose wheels were calibrated once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

from etr_ros.transforms import between, compose
from etr_ros.types import FloatArray, Pose
from examples.simulator.camera import level_pose, yaw_rad

DEPTH_SIGMA_PER_M = 0.0025  # metres of standard deviation at 1 m, times the square of the distance
DEPTH_RANGE_M = 0.3, 10.0
DEPTH_PATCH_PX = 4  # side of the squares that share one error, as stereo matching makes them
EDGE_RATIO = 1.1  # depth that changes by more from pixel to pixel is an edge

SCALE_BIAS = 0.005  # per run, too long or too short
TURN_BIAS = 0.01  # per run, turned too far or not far enough
HEADING_BIAS_DEG_PER_M = 0.1  # per run, to the left or to the right
HEADING_WALK_DEG = 0.5  # standard deviation after 1 m, growing with the root of the distance
POSITION_WALK_M = 0.01  # the same for each of x, y and z


def noisy_depth(depth_m: FloatArray, seed: tuple[int, ...]) -> FloatArray:
    """What a depth camera reports of the true depth (H, W) in metres, NaN where it sees nothing. Same seed, same noise.

    Errors are Gaussian without bias; what a wrong calibration does to a real sensor is not modelled.
    """
    height, width = depth_m.shape
    solid = np.nan_to_num(depth_m, nan=1e6)
    around = np.ones((3, 3), np.uint8)
    nearest, farthest = cv2.erode(solid, around), cv2.dilate(solid, around)
    low, high = DEPTH_RANGE_M
    is_seen = (solid >= low) & (solid <= high) & (farthest < EDGE_RATIO * nearest)
    patches = -(-height // DEPTH_PATCH_PX), -(-width // DEPTH_PATCH_PX)
    error = np.random.default_rng(seed).standard_normal(patches, np.float32)
    error = error.repeat(DEPTH_PATCH_PX, axis=0).repeat(DEPTH_PATCH_PX, axis=1)[:height, :width]
    return np.where(is_seen, depth_m + DEPTH_SIGMA_PER_M * depth_m**2 * error, np.nan).astype(np.float32, copy=False)


class Odometry:
    """Dead reckoning that drifts. Which way, and how the wheels slip, follows from the seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        scale_sign, heading_sign, turn_sign = self._rng.choice([-1.0, 1.0], 3)
        self._scale = 1.0 + scale_sign * SCALE_BIAS
        self._turn = 1.0 + turn_sign * TURN_BIAS
        self._heading_bias = heading_sign * math.radians(HEADING_BIAS_DEG_PER_M)
        self._pose = Pose((0.0, 0.0, 0.0), frame_id="odom")
        self._last_true: Pose | None = None

    def move(self, true_pose: Pose) -> Pose:
        """The robot's pose in frame "odom", which is where it was first asked, when it is truly at `true_pose`."""
        step = between(self._last_true or true_pose, true_pose)
        self._last_true = true_pose
        metres = math.dist(step.position_m, (0.0, 0.0, 0.0))
        walk = math.sqrt(metres)
        moved = self._scale * np.array(step.position_m) + POSITION_WALK_M * walk * self._rng.standard_normal(3)
        turned = self._turn * yaw_rad(step) + self._heading_bias * metres
        turned += math.radians(HEADING_WALK_DEG) * walk * self._rng.standard_normal()
        x, y, z = moved.tolist()
        self._pose = compose(self._pose, level_pose(x, y, z, turned))
        return self._pose


def odometry_track(true_poses: Iterable[Pose], seed: int) -> list[Pose]:
    """What the odometry says at each of the true poses of a drive, in frame "odom", starting at the identity."""
    odometry = Odometry(seed)
    return [odometry.move(pose) for pose in true_poses]
