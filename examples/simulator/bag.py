"""A drive as a rosbag2 (mcap), as a robot would have recorded it; written without ROS being installed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from etr_ros.errors import DataError
from etr_ros.types import Frame, Pose
from examples.simulator.camera import Camera

IMAGE_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
POSE_TOPIC = "/odom"
CAMERA_FRAME = "camera_optical_frame"
BODY_FRAME = "base_link"
KINDS = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    POSE_TOPIC: "nav_msgs/msg/Odometry",
}
JPEG_QUALITY = 92
BAG_VERSION: Literal[8] = 8  # the newest that Humble reads too


def write_bag(frames: Iterable[Frame], path: Path, camera: Camera) -> int:
    """Write the frames to a new bag, whole or not at all; give back how many.

    Topics: IMAGE_TOPIC (sensor_msgs/CompressedImage, JPEG), INFO_TOPIC (sensor_msgs/CameraInfo) and POSE_TOPIC
    (nav_msgs/Odometry, true pose of the camera's body axes, "map" to "base_link"). Raises DataError when `path` exists.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or write to another place")
    messages = _Messages(camera)
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with Writer(part, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            topics = {
                topic: writer.add_connection(topic, kind, typestore=messages.store) for topic, kind in KINDS.items()
            }
            for frame in frames:
                for topic, message in messages.of(frame).items():
                    data = messages.store.serialize_cdr(message, KINDS[topic])
                    writer.write(topics[topic], frame.stamp_ns, data)
                count += 1
        os.replace(part, path)
    return count


class _Messages:
    """ROS messages out of frames."""

    def __init__(self, camera: Camera) -> None:
        self.store = get_typestore(Stores.ROS2_HUMBLE)
        self._camera = camera

    def of(self, frame: Frame) -> dict[str, Any]:
        """One message per topic; no odometry for a frame without pose."""
        messages = {IMAGE_TOPIC: self._image(frame), INFO_TOPIC: self._info(frame)}
        if frame.pose is not None:
            messages[POSE_TOPIC] = self._odometry(frame.pose, frame.stamp_ns)
        return messages

    def _new(self, kind: str, *values: Any) -> Any:
        return self.store.types[kind](*values)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._new("builtin_interfaces/msg/Time", *divmod(stamp_ns, 10**9))
        return self._new("std_msgs/msg/Header", stamp, frame_id)

    def _image(self, frame: Frame) -> Any:
        _, jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        header = self._header(frame.stamp_ns, CAMERA_FRAME)
        return self._new("sensor_msgs/msg/CompressedImage", header, "jpeg", jpeg.ravel())

    def _info(self, frame: Frame) -> Any:
        camera, (x, y) = self._camera, self._camera.centre_px
        matrix = np.array([[camera.focal_px, 0, x], [0, camera.focal_px, y], [0, 0, 1]])
        return self._new(
            "sensor_msgs/msg/CameraInfo",
            self._header(frame.stamp_ns, CAMERA_FRAME),
            camera.height_px,
            camera.width_px,
            "plumb_bob",
            np.zeros(5),
            matrix.ravel(),
            np.eye(3).ravel(),
            np.column_stack([matrix, np.zeros(3)]).ravel(),
            0,
            0,
            self._new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False),
        )

    def _odometry(self, pose: Pose, stamp_ns: int) -> Any:
        position = self._new("geometry_msgs/msg/Point", *pose.position_m)
        orientation = self._new("geometry_msgs/msg/Quaternion", *pose.quat_xyzw)
        at = self._new("geometry_msgs/msg/Pose", position, orientation)
        zero = self._new("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        still = self._new("geometry_msgs/msg/Twist", zero, zero)
        return self._new(
            "nav_msgs/msg/Odometry",
            self._header(stamp_ns, pose.frame_id),
            BODY_FRAME,
            self._new("geometry_msgs/msg/PoseWithCovariance", at, np.zeros(36)),
            self._new("geometry_msgs/msg/TwistWithCovariance", still, np.zeros(36)),
        )
