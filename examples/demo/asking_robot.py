"""A robot that stands still and asks the node where it is, over DDS: pictures, depth, camera info, and ~/localize."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from etr_ros.errors import EtrError
from etr_ros.ros.conversions import from_pose_message, stamp_ns
from etr_ros.types import Frame, Pose
from etr_ros_msgs.srv import Localize
from examples.demo.sensor_robot import messages_of
from examples.simulator.bag import DEPTH_TOPIC, IMAGE_TOPIC, INFO_TOPIC

START_TIMEOUT_S, ANSWER_TIMEOUT_S, POSE_TIMEOUT_S = 300.0, 120.0, 30.0
POLL_S = 0.01


@dataclass(frozen=True)
class Told:
    """What the service said; `pose` is that of ~/pose for the same picture, None when not localized.

    `covariance` is that of the pose, 36 values, empty without it.
    """

    localized: bool
    elapsed_ms: float
    images: int
    message: str
    pose: Pose | None
    covariance: tuple[float, ...] = ()


class AskingRobot:
    """Use between `rclpy.init` and `rclpy.shutdown`; `require_alive` is called all the while."""

    def __init__(self, require_alive: Callable[[], None], camera_hz: float = 4.0) -> None:
        self._require_alive, self._period_s = require_alive, 1 / camera_hz
        self._node = rclpy.create_node("asking_robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        kinds = {INFO_TOPIC: CameraInfo, DEPTH_TOPIC: Image, IMAGE_TOPIC: CompressedImage}
        self._publishers = {topic: self._node.create_publisher(kind, topic, 10) for topic, kind in kinds.items()}
        self._poses: dict[int, tuple[Pose, tuple[float, ...]]] = {}
        self._node.create_subscription(PoseWithCovarianceStamped, "/etr/pose", self._on_pose, 10)
        self._client: Any = self._node.create_client(Localize, "/etr/localize")
        self._next_s = 0.0

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_node(self) -> None:
        """Raises EtrError when the node does not listen in time."""

        def listens() -> bool:
            return bool(
                self._client.service_is_ready()
                and all(each.get_subscription_count() for each in self._publishers.values())
                and self._node.count_publishers("/etr/pose")
            )

        self._spin(listens, START_TIMEOUT_S, "the node does not listen")

    def look(self, frame: Frame, seconds: float) -> None:
        """Publish what the robot sees for a while, asking nothing."""
        end_s = time.monotonic() + seconds
        self._spin(lambda: time.monotonic() > end_s, seconds + 1, "", frame)

    def ask(self, frame: Frame, timeout_s: float) -> Told:
        """Ask the service while `frame` is what the robot sees. Raises EtrError when there is no answer."""
        future = self._client.call_async(Localize.Request(timeout_s=timeout_s))
        self._spin(future.done, timeout_s + ANSWER_TIMEOUT_S, "~/localize does not answer", frame)
        answer = future.result()
        stamp = stamp_ns(answer.match.header.stamp)
        if answer.localized:
            self._spin(lambda: stamp in self._poses, POSE_TIMEOUT_S, "no ~/pose came for a localized picture")
        pose, covariance = self._poses[stamp] if answer.localized else (None, ())
        return Told(answer.localized, answer.elapsed_ms, answer.images, answer.message, pose, covariance)

    def _spin(self, until: Callable[[], bool], timeout_s: float, error: str, frame: Frame | None = None) -> None:
        end_s = time.monotonic() + timeout_s
        while not until():
            self._require_alive()
            now_s = time.monotonic()
            if now_s > end_s:
                raise EtrError(f"{error} within {timeout_s:.0f} s, see the log of the node")
            if frame is not None and now_s >= self._next_s:
                self._next_s = now_s + self._period_s
                for topic, message in messages_of(frame, time.time_ns()).items():
                    self._publishers[topic].publish(message)
            self._executor.spin_once(timeout_sec=POLL_S)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        pose = from_pose_message(message.pose.pose, message.header.frame_id)
        self._poses[stamp_ns(message.header.stamp)] = pose, tuple(message.pose.covariance)
