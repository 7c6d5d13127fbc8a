"""A robot that drives through the made-up world of test/landmarks.py and listens to a node in loop mode.

Odometry comes at 10 Hz before and after the image, depth and camera info before it. What the sensors say can be
replaced, one by one, by something bad.

Nothing here depends on how fast the machine is: an image is sent when the middleware has delivered what belongs to it,
the next one when it was answered, and `drive` returns when every loop that the node counts has come.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from robot import Robot
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Empty

import sensor_messages
from etr_ros.ros.conversions import from_pose_message, stamp_ns, to_pose_message
from etr_ros.transforms import between, error
from etr_ros.types import Pose
from etr_ros_msgs.msg import LoopClosure, PlaceMatch
from landmarks import CAMERA, Landmarks, picture

NODE = (sys.executable, str(Path(__file__).parent / "loop_node.py"))
HOUR_NS, ODOMETRY_NS = 3600 * 10**9, 10**8
START_S, ATTEMPTS, PATIENCE_S = 300.0, 80, 3.0
DELIVERY = Duration(seconds=120)
NEAR_MPS, FAR_MPS = 1.0, 5.0  # over a step from keyframe to keyframe, and over a longer one
DONE_WITH = (
    "images answered",
    "images dropped (node busy)",
    "images skipped (limits between queries, or no keyframe)",
    "images that could not be used",
)
DECIDED = "loops accepted", "loops rejected"
SENSORS: dict[str, Any] = {
    "node.autostart": True,
    "node.image_topic": "/camera",
    "sensor.camera_info_topic": "/info",
    "sensor.depth_topic": "/depth",
    "sensor.camera_mount": "'0.2 0.0 0.3 0.0 0.0 0.0'",
    "sensor.odom_topic": "/odom",
    "sensor.sync_ms": 400.0,  # less than the 0.6 s from picture to picture
    "geometry.candidates": 3,
    "retrieval.top_k": 10,
}
LOOPS = {"loop.enabled": True, "loop.exclusion_s": 5.0, "loop.exclusion_m": 3.0, "loop.first_support": 2}
STARTS = itertools.count(1_700_000_000 * 10**9, HOUR_NS)  # no two drives share a stamp


class Driver:
    """Drives a robot through the made-up world and listens to what the node says of it."""

    def __init__(self, robot: Robot, world: Landmarks) -> None:
        self.robot, self.world = robot, world
        self.true: dict[int, Pose] = {}
        self.loops: list[LoopClosure] = []
        self.info: Callable[[int], CameraInfo | None] = camera_info
        self.depth: Callable[[Pose, int], Image | None] = self.depth_image
        self.odometry: Callable[[Pose], Pose | None] = lambda true: true
        self.transforms: Callable[[Pose, int], list[TransformStamped]] = lambda true, stamp: []
        node = robot.node
        # a publisher whose history of one is full asks at once whether it was delivered, others every three seconds
        self._publishers: dict[str, Any] = {
            "info": node.create_publisher(CameraInfo, "/info", 1),
            "depth": node.create_publisher(Image, "/depth", 1),
        }
        self._trigger = node.create_publisher(Empty, "/etr/trigger", 10)
        self._statuses: list[DiagnosticStatus] = []
        self._subscriptions = [
            node.create_subscription(LoopClosure, "/etr/loop_closures", self.loops.append, 1000),
            node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self._statuses.extend(m.status), 100),
        ]
        with contextlib.suppress(ImportError):
            self._tf_message = importlib.import_module("tf2_msgs.msg").TFMessage
            self._publishers["tf"] = node.create_publisher(self._tf_message, "/tf", 100)
        self.now_ns = next(STARTS)
        self._at: Pose | None = None
        self._taken = 0  # images

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.robot.node.destroy_subscription(subscription)

    def ready(self, *topics: str) -> None:
        """Wait until the node listens to everything (or to image, trigger and these) and is heard."""
        wanted = [self._publishers[name] for name in topics or ("info", "depth")]
        wanted += [self.robot.camera, self._trigger, *([] if topics else [self.robot.odometry])]

        def listens() -> bool:
            is_heard = self.robot.node.count_publishers("/etr/loop_closures") > 0
            return is_heard and all(topic.get_subscription_count() for topic in wanted)

        self.robot.until(listens, "the node to listen", START_S)

    def move(self, true: Pose) -> Image:
        """Drive to a pose; the image that was published there."""
        start = self._at or true
        way_m = math.dist(start.position_m, true.position_m)
        seconds = max(0.6, way_m / (NEAR_MPS if way_m < 2.0 else FAR_MPS))
        begin_ns, self._at = self.now_ns, true
        self.now_ns += round(seconds * 1e9)
        steps = max(1, round(seconds * 1e9 / ODOMETRY_NS))
        for step in range(1, steps):
            share = step / steps
            self._send_odometry(_on_the_way(start, true, share), round(begin_ns + share * (self.now_ns - begin_ns)))
        return self._take_picture(true)

    def answered(self, true: Pose) -> PlaceMatch:
        """As `move`, waiting for the node's answer.

        Odometry is sent as best effort; an image that was taken while it got lost is no keyframe, and another is taken.
        """
        sent = []

        def found() -> PlaceMatch | None:
            return next((match for match in self.robot.matches if match.header in sent), None)

        for _ in range(ATTEMPTS):
            sent.append(self.move(true).header)
            with contextlib.suppress(AssertionError):
                return self.robot.until(found, "an answer", PATIENCE_S)
        raise AssertionError(f"no answer to {ATTEMPTS} images; last status: {self.robot.diagnostics[-1:]}")

    def drive(self, *poses: Pose) -> list[LoopClosure]:
        """Be answered at each pose; the loops that were decided meanwhile."""
        before = len(self.loops)
        for pose in poses:
            self.answered(pose)
        self.settle()
        return self.loops[before:]

    def settle(self) -> None:
        """Wait until the node is through with every image, and every loop that it decided was heard."""

        def is_through(status: DiagnosticStatus) -> bool:
            values = {pair.key: pair.value for pair in status.values}
            images, loops = (sum(int(values[key]) for key in keys) for keys in (DONE_WITH, DECIDED))
            return images == self._taken and loops <= len(self.loops)

        self.robot.status(is_through, f"the node to be through with {self._taken} images")

    def trigger(self) -> None:
        self._trigger.publish(Empty())

    def heed(self) -> None:
        """From now on `named` hears what diagnostics say."""
        self._statuses.clear()

    def named(self, words: str) -> DiagnosticStatus:
        """A warning, since `heed` was called, in which diagnostics name a problem in these words."""

        def names(status: DiagnosticStatus) -> bool:
            problems = {pair.key: pair.value for pair in status.values}["problems"]
            return status.level == DiagnosticStatus.WARN and words in problems

        return self.robot.until(lambda: next(filter(names, self._statuses), None), f"'{words}' in diagnostics")

    def off_m(self, loop: LoopClosure) -> float:
        """By how much the position of a metric loop is wrong."""
        query, match = (self.true[stamp_ns(stamp)] for stamp in (loop.query_stamp, loop.match_stamp))
        found = from_pose_message(loop.match_t_query.pose, "")
        return float(np.linalg.norm(error(found, between(match, query))[:3]))

    def depth_image(self, true: Pose, stamp: int) -> Image:
        return sensor_messages.depth(self.world.depth_m(true), stamp)

    def _take_picture(self, true: Pose) -> Image:
        stamp = self.now_ns
        self.true[stamp] = true
        self._send_odometry(true, stamp)
        self._send_odometry(true, stamp + ODOMETRY_NS // 2)
        self._send("info", self.info(stamp))
        self._send("depth", self.depth(true, stamp))
        for name, publisher in self._publishers.items():
            assert publisher.wait_for_all_acked(DELIVERY), f"{name} was not delivered"
        image = self.robot.image(picture(true), stamp)
        self.robot.camera.publish(image)
        self._taken += 1
        return image

    def _send_odometry(self, true: Pose, stamp: int) -> None:
        pose = self.odometry(true)
        if pose is not None:
            self.robot.odometry.publish(odometry(pose, stamp))
        transforms = self.transforms(true, stamp)
        if transforms:
            self._send("tf", self._tf_message(transforms=transforms))

    def _send(self, name: str, message: Any) -> None:
        if message is not None:
            self._publishers[name].publish(message)


def _on_the_way(start: Pose, end: Pose, share: float) -> Pose:
    x, y, z = ((1 - share) * a + share * b for a, b in zip(start.position_m, end.position_m, strict=True))
    return Pose((x, y, z), end.quat_xyzw)


def camera_info(stamp: int, **changed: Any) -> CameraInfo:
    message = CameraInfo(width=CAMERA.width, height=CAMERA.height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header = sensor_messages.header(stamp)
    message.k = CAMERA.matrix.ravel().tolist()
    for name, value in changed.items():
        setattr(message, name, value)
    return message


def odometry(pose: Pose, stamp: int) -> Odometry:
    message = Odometry(header=sensor_messages.header(stamp, "odom"), child_frame_id="base_link")
    message.pose.pose = to_pose_message(pose)
    return message


def along(start: float, end: float, y: float) -> list[Pose]:
    return [Pose((float(x), y, 0.0)) for x in np.arange(start, end, 0.6)]


LAP = along(1.0, 9.0, 0.0)
AWAY = [Pose((x, 50.0, 0.0)) for x in (9.0, 5.0, 1.0)]
AGAIN = along(1.1, 9.0, 0.3)
