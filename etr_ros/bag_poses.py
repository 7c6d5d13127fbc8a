"""The poses of a topic of a recording: odometry, poses, or satellite fixes."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np

from etr_ros.bag_messages import Stream
from etr_ros.bag_storage import Bag
from etr_ros.gps import to_enu
from etr_ros.poses import PoseTrack
from etr_ros.sensor_conversions import frame_name
from etr_ros.track import jumps
from etr_ros.types import Pose

POSE_TYPES = ("nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")
FIX = "sensor_msgs/msg/NavSatFix"
NO_FIX = -1  # sensor_msgs/NavSatStatus


class BagPoses:
    """All poses of one topic, read at any stamp, see `PoseTrack.at`; but not within a jump."""

    def __init__(self, bag: Bag, topic: str, jump_m: float, *, with_fixes: bool = False) -> None:
        """Jumps are as in `etr_ros.track.Track`. `with_fixes`: NavSatFix will do, its frame being east, north, up.

        Raises DataError when the bag has no such topic.
        """
        types = (*POSE_TYPES, FIX) if with_fixes else POSE_TYPES
        self._stream, self._jump_m = Stream(bag, topic, types, "pose"), jump_m
        self._read = False

    @property
    def knows_rotation(self) -> bool:
        """Satellite fixes do not."""
        return self._stream.type != FIX

    @property
    def body_frame(self) -> str:
        """The frame whose poses they are; empty when no message names it."""
        self._read_all()
        return self._body_frame

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose at a stamp in nanoseconds, None where the track has a hole or a jump."""
        self._read_all()
        return None if self._in_jump(stamp_ns) else self._track.at(stamp_ns)

    def segment_at(self, stamp_ns: int) -> int:
        """How many jumps lie before a stamp."""
        self._read_all()
        return bisect.bisect_right(self._jumps, stamp_ns, key=lambda jump: jump[1])

    def notes(self) -> list[str]:
        """What was lost, a line each."""
        count = len(self._jumps) if self._read else 0
        jumped = [f"{self._stream.topic} jumps {count} times: nothing is carried across"] if count else []
        return self._stream.notes() + jumped

    def _in_jump(self, stamp_ns: int) -> bool:
        return any(before < stamp_ns < behind for before, behind in self._jumps)

    def _read_all(self) -> None:
        if self._read:
            return
        self._read, self._body_frame, frame_id = True, "", ""
        stamps: list[int] = []
        rows: list[tuple[float, ...]] = []
        for taken_ns, message in self._stream:
            row = self._row(message)
            if row is not None:
                frame_id = frame_id or message.header.frame_id
                self._body_frame = self._body_frame or frame_name(getattr(message, "child_frame_id", ""))
                stamps.append(taken_ns)
                rows.append(row)
        if not self.knows_rotation:
            enu = to_enu([row[:3] for row in rows])
            rows, frame_id = [(*position, 0.0, 0.0, 0.0, 1.0) for position in enu.tolist()], "enu"
        self._track = PoseTrack(stamps, np.array(rows).reshape(-1, 7), frame_id or "map")
        self._jumps = jumps(self._track, self._jump_m) if self.knows_rotation else []

    def _row(self, message: Any) -> tuple[float, ...] | None:
        if not self.knows_rotation:
            known = message.status.status > NO_FIX
            return (message.latitude, message.longitude, message.altitude) if known else None
        pose = message.pose if hasattr(message.pose, "position") else message.pose.pose
        position, quat = pose.position, pose.orientation
        return position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w
