"""Nav2 AMCL and slam_toolbox: where on the floor of the map to start from."""

from __future__ import annotations

import math

import numpy as np

from etr_ros import transforms
from etr_ros.backends.relative import Row, row_major
from etr_ros.errors import EtrError
from etr_ros.transforms import Matrix
from etr_ros.types import Pose

FLOOR = [0, 1, 5]  # x, y and the rotation about z


class UnsuitablePoseError(EtrError):
    """A pose that a localizer cannot start from."""


def to_floor(pose: Pose, covariance: Matrix) -> tuple[Pose, Row]:
    """The pose with z, roll and pitch set to zero, and its covariance where all but x, y and yaw are zero.

    Raises UnsuitablePoseError when the pose has no frame, or x, y or yaw no positive finite variance: particles that
    all start on one point never spread.
    """
    if not pose.frame_id:
        raise UnsuitablePoseError("the pose has no frame: the map's poses must name theirs")
    values = (*pose.position_m, *pose.quat_xyzw)
    block = covariance[np.ix_(FLOOR, FLOOR)]
    if not np.isfinite(values).all() or not np.isfinite(block).all() or np.linalg.eigvalsh(block)[0] <= 0:
        raise UnsuitablePoseError("the pose or its covariance in x, y and yaw is not usable")
    forward = transforms.rotation(pose.quat_xyzw)[:, 0]
    yaw = math.atan2(forward[1], forward[0])
    planar = np.zeros((6, 6))
    planar[np.ix_(FLOOR, FLOOR)] = block
    x, y, _ = pose.position_m
    return Pose((x, y, 0.0), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)), pose.frame_id), row_major(planar)
