"""A drive as a rosbag2 (mcap), as a robot would have recorded it; written without ROS being installed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from etr_ros.errors import DataError
from etr_ros.types import FloatArray, Frame, Pose
from examples.simulator.camera import Camera
from examples.simulator.depth import to_millimetres
from examples.simulator.drive import SensedFrame

IMAGE_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
POSE_TOPIC = "/odom"
TRUTH_TOPIC = "/ground_truth"
MOUNT_TOPIC = "/tf_static"
CAMERA_FRAME = "camera_optical_frame"
BODY_FRAME = "base_link"
KINDS = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    DEPTH_TOPIC: "sensor_msgs/msg/Image",
    POSE_TOPIC: "nav_msgs/msg/Odometry",
    TRUTH_TOPIC: "nav_msgs/msg/Odometry",
    MOUNT_TOPIC: "tf2_msgs/msg/TFMessage",
}
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0),
    QosTime(0, 0),
    QosLiveliness.AUTOMATIC,
    QosTime(0, 0),
    False,
)
JPEG_QUALITY = 92
BAG_VERSION: Literal[8] = 8  # the newest that Humble reads too


def write_bag(frames: Iterable[Frame | SensedFrame], path: Path, camera: Camera) -> int:
    """Write the frames to a new bag, whole or not at all; give back how many.

    Topics: IMAGE_TOPIC (sensor_msgs/CompressedImage, JPEG) and INFO_TOPIC (sensor_msgs/CameraInfo), and for frames that
    have them DEPTH_TOPIC (sensor_msgs/Image, 16UC1, millimetres, 0 where unknown), POSE_TOPIC (nav_msgs/Odometry, from
    the pose's frame to "base_link"); for sensed frames TRUTH_TOPIC (nav_msgs/Odometry, their true poses); and once,
    before the rest, MOUNT_TOPIC (tf2_msgs/TFMessage, from "base_link" to the camera's optical frame).
    Raises DataError when `path` exists.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or write to another place")
    messages = _Messages(camera)
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with Writer(part, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            topics: dict[str, Connection] = {}
            for each in frames:
                frame, truth = (each.frame, each.true_pose) if isinstance(each, SensedFrame) else (each, None)
                for topic, message in messages.of(frame, truth, is_first=not count):
                    if topic not in topics:
                        qos = [LATCHED] if topic == MOUNT_TOPIC else []
                        topics[topic] = writer.add_connection(
                            topic, KINDS[topic], typestore=messages.store, offered_qos_profiles=qos
                        )
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

    def of(self, frame: Frame, truth: Pose | None, is_first: bool) -> Iterator[tuple[str, Any]]:
        """Topics and messages of what the frame has."""
        if is_first and frame.body_t_camera is not None:
            yield MOUNT_TOPIC, self._mount(frame.body_t_camera, frame.stamp_ns)
        yield IMAGE_TOPIC, self._image(frame)
        yield INFO_TOPIC, self._info(frame)
        if frame.depth_m is not None:
            yield DEPTH_TOPIC, self._depth(frame.depth_m, frame.stamp_ns)
        if frame.pose is not None:
            yield POSE_TOPIC, self._odometry(frame.pose, frame.stamp_ns)
        if truth is not None:
            yield TRUTH_TOPIC, self._odometry(truth, frame.stamp_ns)

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

    def _depth(self, depth_m: FloatArray, stamp_ns: int) -> Any:
        millimetres = to_millimetres(depth_m)
        height, width = millimetres.shape
        data = np.frombuffer(millimetres.astype("<u2").tobytes(), np.uint8)
        header = self._header(stamp_ns, CAMERA_FRAME)
        return self._new("sensor_msgs/msg/Image", header, height, width, "16UC1", 0, 2 * width, data)

    def _mount(self, body_t_camera: Pose, stamp_ns: int) -> Any:
        shift = self._new("geometry_msgs/msg/Vector3", *body_t_camera.position_m)
        turn = self._new("geometry_msgs/msg/Quaternion", *body_t_camera.quat_xyzw)
        transform = self._new("geometry_msgs/msg/Transform", shift, turn)
        header = self._header(stamp_ns, BODY_FRAME)
        stamped = self._new("geometry_msgs/msg/TransformStamped", header, CAMERA_FRAME, transform)
        return self._new("tf2_msgs/msg/TFMessage", [stamped])

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
