"""The whole node in a process of its own, over DDS: from the stamp of the camera image to the match that comes back."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from benchmarks.speed_stages import Row, row_of
from etr_ros.errors import EtrError
from etr_ros_msgs.msg import PlaceMatch
from examples.demo.node_process import ETR_NODE, running

CAMERA = "/benchmark/image"
AROUND = ("wait", "decode", "sensors", "message")  # stages that are the node's own, not the core's
PERIOD_S = 0.4  # between images: the node is asked again when it has rested, as by a slow camera
TIMEOUT_S = 60.0


def measure_node(data: Path, work: Path, count: int) -> list[Row]:
    """`count` raw images of 640x480, one at a time, with the node's default configuration. Raises EtrError."""
    files = sorted((data / "sf_streets" / "query").glob("*.jpg"))
    pictures = [cv2.resize(cv2.imread(str(file)), (640, 480), interpolation=cv2.INTER_AREA) for file in files]
    parameters = {
        "node.map": str((work / "speed-map").resolve()),
        "node.autostart": "true",
        "node.image_topic": CAMERA,
    }
    rclpy.init()
    camera = Camera()
    try:
        with running([ETR_NODE], parameters, work / "speed-node.log"):
            camera.wait_for_node()
            answers = [camera.show(pictures[i % len(pictures)]) for i in range(count + 3)][3:]
    finally:
        camera.close()
        rclpy.shutdown()
    ages, returns, arrivals, own, backs = [], [], [], [], []
    for match, back_ms in answers:
        stages = {stage.name: stage.duration_ms for stage in match.stages}
        ages.append(match.age_ms)
        returns.append(back_ms)
        arrivals.append(match.age_ms - sum(stages.values()))
        own.append(sum(stages.get(name, 0.0) for name in AROUND))
        backs.append(back_ms - match.age_ms)
    return [
        row_of("node", "stamp to match published, raw 640x480", ages),
        row_of("node", "stamp to match received, raw 640x480", returns),
        row_of("node", "of that: DDS and rclpy, until the image is in the node", arrivals),
        row_of("node", "of that: queue, convert, make the message", own),
        row_of("node", "of that: publish, DDS and rclpy, until the match is received", backs),
    ]


class Camera:
    """Publishes images, one at a time, and waits for the answers."""

    def __init__(self) -> None:
        self._node = rclpy.create_node("speed_camera")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publisher = self._node.create_publisher(Image, CAMERA, 2)
        self._matches: list[tuple[PlaceMatch, int]] = []
        self._node.create_subscription(PlaceMatch, "/etr/match", self._on_match, 10)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_node(self) -> None:
        """Raises EtrError when the node does not subscribe in time."""
        end_s = time.monotonic() + TIMEOUT_S
        while not self._publisher.get_subscription_count():
            if time.monotonic() > end_s:
                raise EtrError("the node did not subscribe to the camera, see its log")
            self._executor.spin_once(timeout_sec=0.1)

    def show(self, picture: NDArray[np.uint8]) -> tuple[PlaceMatch, float]:
        """The answer, and milliseconds from the stamp to its arrival. Raises EtrError when there is none in time."""
        time.sleep(PERIOD_S)
        height, width = picture.shape[:2]
        message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
        data = array("B")
        data.frombytes(picture.tobytes())
        message.data = data
        message.header.frame_id = "camera"
        message.header.stamp = self._node.get_clock().now().to_msg()
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._matches.clear()
        self._publisher.publish(message)
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.1)
            for match, at_ns in self._matches:
                if match.header.stamp == message.header.stamp:
                    return match, (at_ns - stamp_ns) / 1e6
        raise EtrError("the node did not answer, see its log")

    def _on_match(self, match: PlaceMatch) -> None:
        self._matches.append((match, self._node.get_clock().now().nanoseconds))
