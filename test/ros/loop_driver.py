"""A robot that drives through the made-up world of test/landmarks.py and listens to a node in loop mode."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from robot import Robot
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Empty

from etr_ros.ros.conversions import to_pose_message, to_stamp
from etr_ros.types import Pose
from etr_ros_msgs.msg import LoopClosure, PlaceMatch
from landmarks import CAMERA, picture

NODE = (sys.executable, str(Path(__file__).parent / "loop_node.py"))
HOUR_NS = 3600 * 10**9
SENSORS: dict[str, Any] = {
    "node.autostart": True,
    "node.image_topic": "/camera",
    "sensor.camera_info_topic": "/info",
    "sensor.camera_mount": "'0.2 0.0 0.3 0.0 0.0 0.0'",
    "sensor.odom_topic": "/odom",
    "geometry.candidates": 3,
    "retrieval.top_k": 10,
}
LOOPS = {"loop.enabled": True, "loop.exclusion_s": 5.0, "loop.exclusion_m": 3.0, "loop.min_support": 2}


STARTS = itertools.count(1_700_000_000 * 10**9, HOUR_NS)  # no two drives share a stamp


class Driver:
    """Drives a robot through the made-up world and listens to what the node says of it."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self.true, self.loops = robot, {}, []  # type: ignore[var-annotated]
        node = robot.node
        self._info = node.create_publisher(CameraInfo, "/info", 10)
        self._trigger = node.create_publisher(Empty, "/etr/trigger", 10)
        self._subscription = node.create_subscription(LoopClosure, "/etr/loop_closures", self.loops.append, 1000)
        self.now_ns = next(STARTS)

    def close(self) -> None:
        self.robot.node.destroy_subscription(self._subscription)

    def ready(self) -> None:
        topics = self.robot.camera, self.robot.odometry, self._info, self._trigger
        self.robot.until(lambda: all(topic.get_subscription_count() for topic in topics), "the node to listen")
        self.robot.until(lambda: self.robot.node.count_publishers("/etr/loop_closures"), "loops to be published")
        self.robot.spin(0.5)

    def move(self, true: Pose, odom: Pose | None = None, *, info: bool = True) -> Any:
        """Be at a pose one second later; the image that was published."""
        self.now_ns += 10**9
        stamp = self.now_ns
        self.true[stamp] = true
        if info:
            self._info.publish(camera_info(stamp))
        self.robot.odometry.publish(odometry(odom or true, stamp))
        image = self.robot.image(picture(true), stamp)
        self.robot.camera.publish(image)
        return image

    def answered(self, true: Pose, odom: Pose | None = None, **what: bool) -> PlaceMatch:
        """As `move`, waiting for the node's answer."""
        return self.robot.match_of(self.move(true, odom, **what))

    def trigger(self) -> None:
        self._trigger.publish(Empty())


def camera_info(stamp: int) -> CameraInfo:
    message = CameraInfo(width=CAMERA.width, height=CAMERA.height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = CAMERA.matrix.ravel().tolist()
    message.header.stamp, message.header.frame_id = to_stamp(stamp), "camera_optical"
    return message


def odometry(pose: Pose, stamp: int) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.stamp, message.header.frame_id = to_stamp(stamp), "odom"
    message.pose.pose = to_pose_message(pose)
    return message


def along(start: float, end: float, y: float) -> list[Pose]:
    return [Pose((float(x), y, 0.0)) for x in np.arange(start, end, 0.6)]


LAP = along(1.0, 9.0, 0.0)
AWAY = [Pose((x, 50.0, 0.0), (0.0, 0.0, 1.0, 0.0)) for x in (9.0, 5.0, 1.0)]
AGAIN = along(1.1, 9.0, 0.3)
