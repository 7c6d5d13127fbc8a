"""Which images are worth a query: the least time and the least motion between two of them."""

from __future__ import annotations

import math

from etr_ros.config import NodeConfig
from etr_ros.keyframes import angle_deg
from etr_ros.types import Pose


class QueryGate:
    """Remembers the last image that passed."""

    def __init__(self) -> None:
        self._stamp_ns: int | None = None
        self._pose: Pose | None = None

    def admit(self, stamp_ns: int, pose: Pose | None, config: NodeConfig, *, always: bool = False) -> bool:
        """Whether to query the image taken at `stamp_ns`, the robot being at `pose` (odometry, None when unknown).

        A rule that cannot be judged lets the image pass: no pose, or a stamp that is not later than the last one.
        """
        if not always and (self._too_soon(stamp_ns, config) or self._too_close(pose, config)):
            return False
        self._stamp_ns, self._pose = stamp_ns, pose
        return True

    def _too_soon(self, stamp_ns: int, config: NodeConfig) -> bool:
        return self._stamp_ns is not None and 0 < stamp_ns - self._stamp_ns < config.min_period_s * 1e9

    def _too_close(self, pose: Pose | None, config: NodeConfig) -> bool:
        limits = (config.min_motion_m, config.min_motion_deg)
        if pose is None or self._pose is None or not any(limits):
            return False
        motion = (math.dist(pose.position_m, self._pose.position_m), angle_deg(pose, self._pose))
        return not any(limit > 0 and moved >= limit for moved, limit in zip(motion, limits, strict=True))
