"""Messages of a small robot's sensors; its camera looks along x, 0.2 m before and 0.5 m above the body."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from etr_ros.ros.conversions import to_stamp

WIDTH, HEIGHT = 64, 48
CAMERA_FRAME = "camera_optical"
FOCAL_PX = 60.0


def header(stamp_ns: int, frame: str = CAMERA_FRAME) -> Header:
    return Header(stamp=to_stamp(stamp_ns), frame_id=frame)


def info(stamp_ns: int = 0, **changed: Any) -> CameraInfo:
    """Intrinsics K with a distortion, and P of the rectified picture; the right camera stands at 0.12 m."""
    message = CameraInfo(header=header(stamp_ns), width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    message.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    message.k = [FOCAL_PX, 0.0, 31.5, 0.0, FOCAL_PX, 23.5, 0.0, 0.0, 1.0]
    message.p = [55.0, 0.0, 30.0, -55.0 * 0.12, 0.0, 55.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changed.items():
        setattr(message, name, value)
    return message


def bytes_of(values: np.ndarray) -> array[int]:
    data = array("B")
    data.frombytes(values.tobytes())
    return data


def depth(values: np.ndarray, stamp_ns: int = 0, **changed: Any) -> Image:
    """A depth image of the array's type: uint16 millimetres or float32 metres."""
    height, width = values.shape
    encoding = {"u": "16UC1", "f": "32FC1"}[values.dtype.kind]
    message = Image(header=header(stamp_ns), height=height, width=width, encoding=encoding, data=bytes_of(values))
    message.step, message.is_bigendian = values.strides[0], int(values.dtype.byteorder == ">")
    for name, value in changed.items():
        setattr(message, name, value)
    return message


def flat_depth(distance_m: float, stamp_ns: int = 0) -> Image:
    return depth(np.full((HEIGHT, WIDTH), distance_m, np.float32), stamp_ns)


def compressed_depth(
    values: np.ndarray, image_format: str, quantisation: tuple[float, float] = (0.0, 0.0)
) -> CompressedImage:
    """`values` uint16 as the PNG of compressed_depth_image_transport."""
    head = np.array([0], "<i4").tobytes() + np.array(quantisation, "<f4").tobytes()
    return CompressedImage(format=image_format, data=array("B", head + cv2.imencode(".png", values)[1].tobytes()))


def odometry(stamp_ns: int, x_m: float, frame: str = "odom", child: str = "base_link") -> Odometry:
    message = Odometry(header=header(stamp_ns, frame), child_frame_id=child)
    message.pose.pose.position.x = x_m
    message.pose.pose.orientation.w = 1.0
    return message


def transform(stamp_ns: int, parent: str, child: str, x_m: float) -> TransformStamped:
    message = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    message.transform.translation.x = x_m
    message.transform.rotation.w = 1.0
    return message
