"""Small rosbag2 recordings for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES: Any = STORE.types
PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
Storage = Literal["mcap", "sqlite3"]

START_NS = 1_700_000_000 * 10**9
TENTH_S = 10**8
CAMERA_FRAME = "camera"


def header(stamp_ns: int, frame_id: str = "odom") -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def picture(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(60, 80, 3) noise that JPEG cannot shrink, so that bags have some length."""
    return np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)


def raw_image(stamp_ns: int, number: int) -> Any:
    return TYPES["sensor_msgs/msg/Image"](
        header=header(stamp_ns, CAMERA_FRAME),
        height=60,
        width=80,
        encoding="bgr8",
        is_bigendian=0,
        step=240,
        data=picture(number).reshape(-1),
    )


def compressed_image(stamp_ns: int, number: int) -> Any:
    data = np.asarray(cv2.imencode(".png", picture(number))[1], np.uint8).reshape(-1)
    return TYPES["sensor_msgs/msg/CompressedImage"](header=header(stamp_ns, CAMERA_FRAME), format="png", data=data)


def pose_message(kind: str, stamp_ns: int, x_m: float) -> Any:
    pose = TYPES["geometry_msgs/msg/Pose"](
        position=TYPES["geometry_msgs/msg/Point"](x=x_m, y=0.0, z=0.0),
        orientation=TYPES["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    if kind == "geometry_msgs/msg/PoseStamped":
        return TYPES[kind](header=header(stamp_ns), pose=pose)
    with_covariance = TYPES["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
    if kind == "geometry_msgs/msg/PoseWithCovarianceStamped":
        return TYPES[kind](header=header(stamp_ns), pose=with_covariance)
    zero = TYPES["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    twist = TYPES["geometry_msgs/msg/TwistWithCovariance"](
        twist=TYPES["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
    )
    return TYPES[kind](header=header(stamp_ns), child_frame_id="base", pose=with_covariance, twist=twist)


def camera_info(stamp_ns: int, width: int = 80, height: int = 60, focal_px: float = 50.0) -> Any:
    """Intrinsics K, and a P with a focal length that is 5 px longer."""
    k, p = np.zeros(9), np.zeros(12)
    if focal_px:
        k[[0, 2, 4, 5, 8]] = focal_px, (width - 1) / 2, focal_px, (height - 1) / 2, 1
        p[[0, 2, 5, 6, 10]] = focal_px + 5, (width - 1) / 2, focal_px + 5, (height - 1) / 2, 1
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=header(stamp_ns, CAMERA_FRAME),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def depth_image(stamp_ns: int, millimetres: np.ndarray[Any, Any], compressed: bool = False) -> Any:
    """16UC1 depth, raw or as the PNG of compressed_depth_image_transport."""
    height, width = millimetres.shape
    pixels = millimetres.astype("<u2")
    if compressed:
        png = bytes(12) + cv2.imencode(".png", pixels)[1].tobytes()
        return TYPES["sensor_msgs/msg/CompressedImage"](
            header=header(stamp_ns, CAMERA_FRAME),
            format="16UC1; compressedDepth png",
            data=np.frombuffer(png, np.uint8),
        )
    return TYPES["sensor_msgs/msg/Image"](
        header=header(stamp_ns, CAMERA_FRAME),
        height=height,
        width=width,
        encoding="16UC1",
        is_bigendian=0,
        step=2 * width,
        data=pixels.view(np.uint8).ravel(),
    )


def static_transforms(*edges: tuple[str, str, float]) -> Any:
    """Each `child` at x metres in its `parent`, not turned."""
    transforms = [
        TYPES["geometry_msgs/msg/TransformStamped"](
            header=header(START_NS, parent),
            child_frame_id=child,
            transform=TYPES["geometry_msgs/msg/Transform"](
                translation=TYPES["geometry_msgs/msg/Vector3"](x=x_m, y=0.0, z=0.0),
                rotation=TYPES["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
            ),
        )
        for parent, child, x_m in edges
    ]
    return TYPES["tf2_msgs/msg/TFMessage"](transforms=transforms)


def write_bag(path: Path, storage: Storage, messages: list[tuple[str, int, Any]]) -> Path:
    """A bag of (topic, received at in nanoseconds, message), in this order."""
    with Writer(path, version=9, storage_plugin=PLUGINS[storage]) as writer:
        connections: dict[str, Any] = {}
        for topic, received_ns, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], received_ns, STORE.serialize_cdr(message, kind))
    return path


def drive(
    path: Path,
    storage: Storage,
    pictures: int = 10,
    pose_type: str = "nav_msgs/msg/Odometry",
    compressed: bool = False,
    first: int = 0,
) -> Path:
    """One picture each 0.1 s on /camera, poses on /odom half way between; the robot moves along x at 1 m/s."""
    messages: list[tuple[str, int, Any]] = []
    for number in range(first, first + pictures):
        stamp = START_NS + number * TENTH_S
        image = compressed_image(stamp, number) if compressed else raw_image(stamp, number)
        before = stamp - TENTH_S // 2
        messages.append(("/odom", before, pose_message(pose_type, before, (number - 0.5) / 10)))
        messages.append(("/camera", stamp + 1000, image))
    end = START_NS + (first + pictures) * TENTH_S - TENTH_S // 2
    messages.append(("/odom", end, pose_message(pose_type, end, (first + pictures - 0.5) / 10)))
    return write_bag(path, storage, messages)
