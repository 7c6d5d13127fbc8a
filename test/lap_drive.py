"""A robot that drives laps around a square: where it was, what its odometry said, and loops between the laps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etr_ros.transforms import between, compose, exp, quaternion, rotation, to_matrix
from etr_ros.types import Pose

T0, TICK = 1_700_000_000_000_000_000, 100_000_000
SIGMAS = np.array([0.03] * 3 + [math.radians(0.5)] * 3)
COVARIANCE = np.diag(SIGMAS**2)


def planar(x_m: float, y_m: float, yaw_rad: float) -> Pose:
    return Pose((x_m, y_m, 0.0), (0.0, 0.0, math.sin(yaw_rad / 2), math.cos(yaw_rad / 2)), "odom")


@dataclass(frozen=True)
class MadeLoop:
    """Rows of the two ends, and what is claimed about them."""

    match: int
    query: int
    match_t_query: Pose
    is_true: bool


@dataclass(frozen=True, eq=False)
class LapDrive:
    truth: list[Pose]
    odometry: list[Pose]
    loops: list[MadeLoop]  # by query

    def stamp_ns(self, row: int) -> int:
        return T0 + row * TICK

    @property
    def matrices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """True poses and odometry, (N, 4, 4) each."""
        truth, odometry = (np.array([to_matrix(pose) for pose in poses]) for poses in (self.truth, self.odometry))
        return truth, odometry


def lap_drive(seed: int, laps: int = 3, false_share: float = 0.0, noise: float = 1.0) -> LapDrive:
    """Laps of 40 m, 10 poses each second; odometry with a heading bias of 0.3 degrees per metre and a random walk.

    From the second lap on there is a loop every 2 m, wrong for `false_share` of them: then it claims that two far
    places are one. `noise` scales the noise of the loops, which is that of COVARIANCE at 1.
    """
    rng = np.random.default_rng(seed)
    truth = [pose for _ in range(laps) for pose in _lap()]
    per_lap = len(truth) // laps
    loops = []
    for query in range(per_lap, len(truth), 8):
        is_true = bool(rng.random() >= false_share)
        match = query % per_lap if is_true else int(query - per_lap // 4 - rng.integers(per_lap // 2))
        relative = between(truth[match], truth[query]) if is_true else planar(0.0, 0.0, 0.0)
        loops.append(MadeLoop(match, query, _noisy(relative, noise * SIGMAS * rng.normal(size=6)), is_true))
    return LapDrive(truth, _drift(truth, rng), loops)


def _lap(side_m: float = 10.0, step_m: float = 0.25, turn_rad: float = math.pi / 8) -> list[Pose]:
    poses = []
    for corner, (x, y) in enumerate([(0.0, 0.0), (side_m, 0.0), (side_m, side_m), (0.0, side_m)]):
        yaw = corner * math.pi / 2
        ways = np.arange(0.0, side_m, step_m)
        poses += [planar(x + way * math.cos(yaw), y + way * math.sin(yaw), yaw) for way in ways]
        end_x, end_y = x + side_m * math.cos(yaw), y + side_m * math.sin(yaw)
        poses += [planar(end_x, end_y, yaw + turn) for turn in np.arange(0.0, math.pi / 2, turn_rad)]
    return poses


def _drift(truth: list[Pose], rng: np.random.Generator) -> list[Pose]:
    odometry = [planar(0.0, 0.0, 0.0)]
    for a, b in pairwise(truth):
        step = between(a, b)
        metres = math.dist(step.position_m, (0.0, 0.0, 0.0))
        x, y, turn = rng.normal(size=3) * math.sqrt(metres)
        slip = planar(0.01 * x, 0.01 * y, math.radians(0.3 * metres + 0.5 * turn))
        odometry.append(compose(odometry[-1], compose(step, slip)))
    return odometry


def _noisy(pose: Pose, error: NDArray[np.float64]) -> Pose:
    x, y, z = (np.array(pose.position_m) + error[:3]).tolist()
    return Pose((x, y, z), quaternion(exp(error[3:]) @ rotation(pose.quat_xyzw)))
