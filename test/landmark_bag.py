"""A bag of a drive of three laps through a made-up world, see `landmarks`: pictures, odometry, truth, intrinsics."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bag_maker import TYPES, header, pose_message, write_bag
from etr_ros.config import SensorConfig
from etr_ros.types import Pose
from landmarks import BODY_T_CAMERA, CAMERA, Landmarks, picture

S = 1_000_000_000
T0 = 1_700_000_000 * S
LAPS = [
    *(Pose((x, 0.0, 0.0)) for x in np.arange(1.0, 8.0, 0.6)),
    *(Pose((x, 50.0, 0.0), (0.0, 0.0, 1.0, 0.0)) for x in np.arange(8.0, 1.0, -2.0)),
    *(Pose((x + 0.13, 0.4, 0.0)) for x in np.arange(1.0, 8.0, 0.6)),
]

WORLD = Landmarks(seed=1)


def camera_info(stamp_ns: int) -> object:
    fx, cx, cy = CAMERA.fx, CAMERA.cx, CAMERA.cy
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([fx, 0, cx, 0, fx, cy, 0, 0, 1.0])
    p = np.array([fx, 0, cx, 0, 0, fx, cy, 0, 0, 0, 1.0, 0])
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(stamp_ns, "camera"), 480, 640, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, region
    )


def image(stamp_ns: int, pose: Pose) -> object:
    """As compressed PNG: the pose is in the first pixels."""
    data = cv2.imencode(".png", picture(pose))[1].ravel()
    return TYPES["sensor_msgs/msg/CompressedImage"](header(stamp_ns, "camera"), "png", data)


def posed(stamp_ns: int, pose: Pose, frame_id: str) -> object:
    message = pose_message("nav_msgs/msg/Odometry", stamp_ns, pose.position_m[0])
    at = message.pose.pose
    at.position.y = pose.position_m[1]
    at.orientation.z, at.orientation.w = pose.quat_xyzw[2:]
    message.header.frame_id = frame_id
    return message


x, y, z = BODY_T_CAMERA.position_m
SENSORS = SensorConfig(camera_info_topic="/info", camera_mount=f"{x} {y} {z} 0 0 0")


def write_laps(path: Path) -> Path:
    """Topics /camera, /info, /odom and /truth; one picture a second."""
    messages = []
    for number, pose in enumerate(LAPS):
        stamp = T0 + number * S
        messages += [
            ("/odom", stamp, posed(stamp, pose, "odom")),
            ("/truth", stamp, posed(stamp, pose, "map")),
            ("/info", stamp, camera_info(stamp)),
            ("/camera", stamp, image(stamp, pose)),
        ]
    return write_bag(path, "mcap", messages)
