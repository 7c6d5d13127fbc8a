"""The simulated robot with all its sensors, over DDS and in real time, and what it hears back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from etr_ros.errors import EtrError
from etr_ros.ros.conversions import from_pose_message, stamp_ns, to_pose_message, to_stamp
from etr_ros.transforms import between, compose, exp, quaternion, rotation, rotation_vector
from etr_ros.types import Frame, Geometry, LoopClosure, Place, Pose
from etr_ros_msgs.msg import LoopClosure as LoopClosureMessage
from etr_ros_msgs.msg import PlaceMatch
from examples.simulator.bag import (
    BODY_FRAME,
    CAMERA_FRAME,
    DEPTH_TOPIC,
    IMAGE_TOPIC,
    INFO_TOPIC,
    JPEG_QUALITY,
    POSE_TOPIC,
)
from examples.simulator.depth import to_millimetres
from examples.simulator.drive import SensedFrame

SAVE_SERVICE = "/isam2_back_end/save"
ODOMETRY_NS = 100_000_000
START_TIMEOUT_S, SAVE_TIMEOUT_S = 90.0, 15.0
POLL_NS, STANDING_NS, SETTLING_NS = 100_000_000, 1_000_000_000, 3_000_000_000
KINDS: dict[str, Any] = {
    POSE_TOPIC: Odometry,
    INFO_TOPIC: CameraInfo,
    DEPTH_TOPIC: Image,
    IMAGE_TOPIC: CompressedImage,
}


@dataclass
class Heard:
    """What was published and what came back; poses by the stamp of the published picture in nanoseconds."""

    true_poses: dict[int, Pose] = field(default_factory=dict)
    odometry: dict[int, Pose] = field(default_factory=dict)
    loops: list[LoopClosure] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)  # stamps
    dropped: int = 0


def drive_over_dds(frames: Iterable[SensedFrame], require_alive: Callable[[], None]) -> Heard:
    """Publish a drive and have the back end save its path. `require_alive` is called all the while.

    Raises EtrError when the nodes do not listen, answer no picture or save no path, and what `require_alive` raises.
    """
    rclpy.init()
    robot = _SensorRobot(require_alive)
    try:
        robot.wait_for_listeners()
        robot.drive(frames)
        robot.save_path()
        if not robot.heard.answered:
            raise EtrError("no image was answered, see the log of the node")
        return robot.heard
    finally:
        robot.close()
        rclpy.try_shutdown()


class _SensorRobot:
    def __init__(self, require_alive: Callable[[], None]) -> None:
        self.heard = Heard()
        self._require_alive = require_alive
        self._node = rclpy.create_node("simulated_robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publishers = {topic: self._node.create_publisher(kind, topic, 10) for topic, kind in KINDS.items()}
        self._node.create_subscription(LoopClosureMessage, "/etr/loop_closures", self._on_loop, 1000)
        self._node.create_subscription(PlaceMatch, "/etr/match", self._on_match, 1000)
        self._save: Any = self._node.create_client(Trigger, SAVE_SERVICE)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_listeners(self) -> None:
        """Both nodes listen to odometry, one of them to the rest."""
        needed = {topic: 2 if topic == POSE_TOPIC else 1 for topic in KINDS}
        end_s = time.monotonic() + START_TIMEOUT_S
        while not self._save.service_is_ready() or any(
            self._publishers[topic].get_subscription_count() < count for topic, count in needed.items()
        ):
            if time.monotonic() > end_s:
                raise EtrError(f"the nodes do not listen after {START_TIMEOUT_S:.0f} s, see their logs")
            self._spin_until(time.time_ns() + POLL_NS)

    def drive(self, frames: Iterable[SensedFrame]) -> None:
        """Stand for a moment, then play the frames as fast as they were taken, with stamps of now."""
        shift_ns: int | None = None
        for sensed in frames:
            pose = _odometry_of(sensed)
            if shift_ns is None:
                last_ns, last = time.time_ns(), pose
                shift_ns = last_ns + STANDING_NS - sensed.frame.stamp_ns
                first = messages_of(sensed.frame, last_ns)
                for topic in (INFO_TOPIC, DEPTH_TOPIC):
                    self._publishers[topic].publish(first[topic])
            now_ns = sensed.frame.stamp_ns + shift_ns
            messages = messages_of(sensed.frame, now_ns)
            for at_ns, moved in _odometry_between(last_ns, last, now_ns, pose):
                self._spin_until(at_ns)
                self._publishers[POSE_TOPIC].publish(_odometry(moved, at_ns))
            self.heard.true_poses[now_ns], self.heard.odometry[now_ns] = sensed.true_pose, pose
            for topic, message in messages.items():
                self._publishers[topic].publish(message)
            last_ns, last = now_ns, pose
        self._spin_until(time.time_ns() + SETTLING_NS)

    def save_path(self) -> None:
        """Have the back end write what it made of the odometry and the loops."""
        future = self._save.call_async(Trigger.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=SAVE_TIMEOUT_S)
        reply = future.result() if future.done() else None
        if reply is None or not reply.success:
            raise EtrError(f"the back end saved no path: {reply.message if reply else 'it does not answer'}")

    def _spin_until(self, end_ns: int) -> None:
        self._require_alive()
        while (left_ns := end_ns - time.time_ns()) > 0:
            self._executor.spin_once(timeout_sec=left_ns / 1e9)

    def _on_match(self, message: PlaceMatch) -> None:
        self.heard.answered.append(stamp_ns(message.header.stamp))
        self.heard.dropped = message.dropped

    def _on_loop(self, message: LoopClosureMessage) -> None:
        self.heard.loops.append(from_loop_message(message))


def _odometry_between(start_ns: int, start: Pose, end_ns: int, end: Pose) -> Iterator[tuple[int, Pose]]:
    """Stamps and poses after the start, about every ODOMETRY_NS, until the end."""
    steps = max(1, round((end_ns - start_ns) / ODOMETRY_NS))
    way = between(start, end)
    turn = rotation_vector(rotation(way.quat_xyzw))
    for step in range(1, steps):
        share = step / steps
        x, y, z = (share * np.array(way.position_m)).tolist()
        moved = Pose((x, y, z), quaternion(exp(share * turn)))
        yield start_ns + round(share * (end_ns - start_ns)), compose(start, moved)
    yield end_ns, end


def _odometry_of(sensed: SensedFrame) -> Pose:
    if sensed.frame.pose is None:
        raise EtrError(f"the frame {sensed.frame.name} has no odometry")
    return sensed.frame.pose


def _odometry(pose: Pose, at_ns: int) -> Odometry:
    message = Odometry(header=Header(stamp=to_stamp(at_ns), frame_id="odom"), child_frame_id=BODY_FRAME)
    message.pose.pose = to_pose_message(pose)
    return message


def messages_of(frame: Frame, at_ns: int) -> dict[str, Any]:
    """What the camera says at one moment, by topic; the image, which waits for the rest, is last."""
    if frame.camera is None or frame.depth_m is None:
        raise EtrError(f"the frame {frame.name} has no camera or no depth")
    header = Header(stamp=to_stamp(at_ns), frame_id=CAMERA_FRAME)
    height, width = frame.depth_m.shape
    info = CameraInfo(header=header, width=width, height=height, distortion_model=frame.camera.distortion_model)
    info.k, info.d = frame.camera.matrix.ravel().tolist(), list(frame.camera.distortion)
    millimetres = to_millimetres(frame.depth_m).astype("<u2").tobytes()
    depth = Image(header=header, height=height, width=width, encoding="16UC1", step=2 * width, data=millimetres)
    _, jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    image = CompressedImage(header=header, format="jpeg", data=jpeg.tobytes())
    return {INFO_TOPIC: info, DEPTH_TOPIC: depth, IMAGE_TOPIC: image}


def from_loop_message(message: LoopClosureMessage) -> LoopClosure:
    """A decided loop as the core's value; how many matches there were and what they covered is not in the message."""
    query = Place(message.query_id, "", message.query_session, stamp_ns(message.query_stamp))
    match = Place(message.match_id, "", message.match_session, stamp_ns(message.match_stamp))
    pose = from_pose_message(message.match_t_query.pose, "match")
    covariance = np.reshape(message.match_t_query.covariance, (6, 6))
    found = Geometry(
        message.inliers,
        -1,
        pose if _is_finite([*pose.position_m, *pose.quat_xyzw]) else None,
        covariance if _is_finite(covariance.ravel().tolist()) else None,
        message.is_metric,
        message.degeneracy,
    )
    return LoopClosure(query, match, found, message.probability, message.support, message.accepted, message.reason)


def _is_finite(values: Sequence[float]) -> bool:
    return bool(np.isfinite(values).all())
