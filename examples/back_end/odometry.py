"""The odometry of one drive, read at any stamp, and cut into keyframes."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import DataError
from etr_ros.poses import MAX_GAP_NS, to_pose
from etr_ros.transforms import Matrix, exp, inverse_matrix, rotation_vector, to_matrix
from etr_ros.types import Pose


class OdometryTrack:
    """Poses odom_t_body in the order of their stamps; every so often one is a keyframe, the first one is."""

    def __init__(self, keyframe_m: float, keyframe_deg: float) -> None:
        """A keyframe is made at least `keyframe_m` metres or `keyframe_deg` degrees from the last one."""
        self._keyframe_m, self._keyframe_rad = keyframe_m, math.radians(keyframe_deg)
        self._stamps: list[int] = []
        self._poses: list[Matrix] = []
        self._keyframes: list[int] = []  # rows of the two lists above
        self._keyframe_stamps: list[int] = []

    def add(self, stamp_ns: int, odom_t_body: Pose) -> bool:
        """Take the next pose; True when it became a keyframe.

        Raises DataError for numbers that are no pose, or a stamp that is not after the last one; nothing changes then.
        """
        pose = to_pose([*odom_t_body.position_m, *odom_t_body.quat_xyzw])
        if pose is None:
            raise DataError("this odometry is no pose: it has NaN, huge numbers, or no unit quaternion")
        if self._stamps and stamp_ns <= self._stamps[-1]:
            late_s = (self._stamps[-1] - stamp_ns) / 1e9
            raise DataError(f"odometry went {late_s:.3f} s back in time: start the back end anew for a new drive")
        self._stamps.append(stamp_ns)
        self._poses.append(to_matrix(pose))
        is_keyframe = not self._keyframes or self._has_moved()
        if is_keyframe:
            self._keyframes.append(len(self._stamps) - 1)
            self._keyframe_stamps.append(stamp_ns)
        return is_keyframe

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """(N,) of every pose."""
        return np.array(self._stamps, np.int64)

    @property
    def keyframe_stamps_ns(self) -> NDArray[np.int64]:
        """(K,) of the keyframes."""
        return np.array(self._keyframe_stamps, np.int64)

    @property
    def last_stamp_ns(self) -> int | None:
        """Of the newest pose; None before the first."""
        return self._stamps[-1] if self._stamps else None

    def keyframe(self, key: int) -> Matrix:
        """odom_t_body (4, 4) of one keyframe; negative keys count from the newest."""
        return self._poses[self._keyframes[key]]

    def since_keyframe(self) -> Matrix:
        """keyframe_t_body (4, 4) of the newest keyframe and the newest pose."""
        return inverse_matrix(self.keyframe(-1)) @ self._poses[-1]

    def corrected(self, map_t_keyframes: Matrix) -> Matrix:
        """map_t_body (N, 4, 4) of every pose: it hangs on the last keyframe before it, given as (K, 4, 4)."""
        poses = np.array(self._poses)
        base = np.searchsorted(self._keyframes, np.arange(len(poses)), side="right") - 1
        map_t_odom = map_t_keyframes @ np.linalg.inv(poses[self._keyframes])
        return np.asarray(map_t_odom[base] @ poses)

    def at(self, stamp_ns: int) -> Matrix | None:
        """odom_t_body (4, 4), between two poses at most 0.5 s apart; None where the odometry has a hole."""
        after = bisect_left(self._stamps, stamp_ns)
        if after == len(self._stamps):
            return None
        if self._stamps[after] == stamp_ns:
            return self._poses[after]
        if after == 0 or self._stamps[after] - self._stamps[after - 1] > MAX_GAP_NS:
            return None
        start, end = self._poses[after - 1], self._poses[after]
        share = (stamp_ns - self._stamps[after - 1]) / (self._stamps[after] - self._stamps[after - 1])
        pose = np.eye(4)
        pose[:3, :3] = start[:3, :3] @ exp(share * rotation_vector(start[:3, :3].T @ end[:3, :3]))
        pose[:3, 3] = (1 - share) * start[:3, 3] + share * end[:3, 3]
        return pose

    def nearest_keyframe(self, stamp_ns: int, odom_t_body: Matrix) -> tuple[int, Matrix]:
        """The key of the keyframe nearest in time, and keyframe_t_body (4, 4) by the odometry."""
        after = bisect_left(self._keyframe_stamps, stamp_ns)
        near = [key for key in (after - 1, after) if 0 <= key < len(self._keyframe_stamps)]
        nearest = min(near, key=lambda key: abs(self._keyframe_stamps[key] - stamp_ns))
        return nearest, inverse_matrix(self.keyframe(nearest)) @ odom_t_body

    def _has_moved(self) -> bool:
        step = self.since_keyframe()
        turn_rad = np.linalg.norm(rotation_vector(step[:3, :3]))
        return bool(np.linalg.norm(step[:3, 3]) >= self._keyframe_m or turn_rad >= self._keyframe_rad)
