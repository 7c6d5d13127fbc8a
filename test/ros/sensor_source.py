"""A robot's sensors, 20 Hz: `python sensor_source.py` drives along x at 1 m/s until it is ended."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image

sys.path.insert(0, str(Path(__file__).parent.parent))
import sensor_messages as messages
from etr_ros.ros.conversions import to_image

PERIOD_NS = 50_000_000
START_NS = 1_700_000_000_000_000_000
RIGHT_GREY = 200


def x_at(stamp_ns: int) -> float:
    """Where the robot is, in metres: 1 m/s."""
    return (stamp_ns - START_NS) / 1e9


def picture(grey: int = 100) -> np.ndarray:
    return np.full((messages.HEIGHT, messages.WIDTH, 3), grey, np.uint8)


class SensorSource:
    """Publishers of everything that `Sensors` reads."""

    def __init__(self, node: Node) -> None:
        def publisher(kind: Any, topic: str) -> Any:
            return node.create_publisher(kind, topic, 20)

        self.image, self.info = publisher(Image, "/left/image"), publisher(CameraInfo, "/left/info")
        self.right, self.right_info = publisher(Image, "/right/image"), publisher(CameraInfo, "/right/info")
        self.depth, self.odometry = publisher(Image, "/depth"), publisher(Odometry, "/odom")
        self.publishers = (self.image, self.info, self.right, self.right_info, self.depth, self.odometry)
        try:
            self._tf_message = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            return
        self.tf = publisher(self._tf_message, "/tf")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf_static = node.create_publisher(self._tf_message, "/tf_static", latched)

    def tf_message(self, *transforms: Any) -> Any:
        return self._tf_message(transforms=transforms)

    def all_at(self, stamp_ns: int) -> None:
        """Image, intrinsics, right image and depth of this stamp; odometry of 10 ms later. The image comes first."""
        image = to_image(picture(), messages.header(stamp_ns))
        self.image.publish(image)
        self.info.publish(messages.info(stamp_ns))
        self.right.publish(to_image(picture(RIGHT_GREY), messages.header(stamp_ns)))
        self.right_info.publish(messages.info(stamp_ns))
        self.depth.publish(messages.flat_depth(1.0 + x_at(stamp_ns), stamp_ns))
        self.odometry.publish(messages.odometry(stamp_ns + 10_000_000, x_at(stamp_ns + 10_000_000)))


def main() -> None:
    rclpy.init()
    source = SensorSource(rclpy.create_node("sensor_source"))
    stamp_ns = START_NS
    while True:
        source.all_at(stamp_ns)
        stamp_ns += PERIOD_NS
        time.sleep(PERIOD_NS / 1e9)


if __name__ == "__main__":
    main()
