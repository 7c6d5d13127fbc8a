"""The robot's side of the conversation: publish camera images over DDS, listen to the matches."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from tqdm import tqdm

from etr_ros.errors import EtrError
from etr_ros.ros.conversions import to_stamp
from etr_ros.types import Frame
from etr_ros_msgs.msg import PlaceMatch
from examples.demo.report import Answer
from examples.simulator.bag import CAMERA_FRAME, IMAGE_TOPIC, JPEG_QUALITY

START_TIMEOUT_S = 90.0
ANSWER_TIMEOUT_S = 10.0


def ask(frames: Iterator[Frame], rate_hz: float, total: int | None) -> list[Answer]:
    """Publish the frames at `rate_hz`; every answer with its frame. Raises EtrError when the node is silent."""
    rclpy.init()
    node = rclpy.create_node("simulated_robot")
    try:
        received: dict[int, PlaceMatch] = {}

        def on_match(message: PlaceMatch) -> None:
            received[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec] = message

        node.create_subscription(PlaceMatch, "/etr/match", on_match, 100)
        camera = node.create_publisher(CompressedImage, IMAGE_TOPIC, QoSProfile(depth=10))
        _wait(node, lambda: camera.get_subscription_count() > 0, START_TIMEOUT_S, "start listening to the camera")
        sent: dict[int, Frame] = {}
        started = time.monotonic()
        for number, frame in enumerate(tqdm(frames, "drive", total, unit="image")):
            due = started + number / rate_hz
            while time.monotonic() < due:
                rclpy.spin_once(node, timeout_sec=max(0.0, min(0.05, due - time.monotonic())))
            stamp_ns = time.time_ns()
            sent[stamp_ns] = frame
            camera.publish(_message(frame, stamp_ns))
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while sent and max(sent) not in received and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
        if not received:
            raise EtrError("the node answered no image, see node.log")
        return [Answer(frame, received.get(stamp_ns)) for stamp_ns, frame in sent.items()]
    finally:
        node.destroy_node()
        rclpy.shutdown()


def _message(frame: Frame, stamp_ns: int) -> CompressedImage:
    _, data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    message = CompressedImage(format="jpeg", data=data.tobytes())
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = CAMERA_FRAME
    return message


def _wait(node: rclpy.node.Node, condition, timeout_s: float, what: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise EtrError(f"the node did not {what} within {timeout_s:.0f} s, see node.log")
        rclpy.spin_once(node, timeout_sec=0.1)
