"""From the messages of sensors beside the camera's pictures to the values of the core. Pure functions.

They read fields only, so messages of other libraries (`rosbags`) do as well.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros import transforms
from etr_ros.camera import Camera
from etr_ros.errors import CameraError, ConfigError
from etr_ros.types import FloatArray, Pose

MAX_BASELINE_M = 10.0

# REP-118: encoding -> type of a pixel, metres per unit
_DEPTH = {"16UC1": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTH_HEADER = struct.Struct("<iff")  # of compressed_depth_image_transport: format and the two quantisation values


def frame_name(name: str) -> str:
    """A frame's name without the leading / of old publishers."""
    return name.lstrip("/")


def to_camera(message: Any, rectified: bool) -> Camera:
    """The intrinsics in a sensor_msgs/CameraInfo: K and the distortion, or P alone for rectified pictures.

    Raises CameraError that says what cannot be used.
    """
    roi = message.roi
    is_cut = roi.x_offset or roi.y_offset or (roi.width, roi.height) not in ((0, 0), (message.width, message.height))
    if is_cut or max(message.binning_x, message.binning_y) > 1:
        raise CameraError("the camera is binned or cut to a region of interest: switch that off in its driver")
    if rectified:
        p = message.p
        k = [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]]
        return Camera.create(message.width, message.height, k, "plumb_bob", ())
    return Camera.create(message.width, message.height, message.k, message.distortion_model, message.d)


def to_baseline_m(message: Any) -> float:
    """Distance in metres of the right camera of a rectified stereo pair, by its sensor_msgs/CameraInfo: -P[3] / P[0].

    Raises CameraError when it is no such distance.
    """
    focal_px, shift_px_m = float(message.p[0]), float(message.p[3])
    baseline_m = -shift_px_m / focal_px if focal_px > 0 else math.nan
    if not 0 < baseline_m <= MAX_BASELINE_M:
        raise CameraError(
            f"the right camera info gives no baseline (P[0] {focal_px:g}, P[3] {shift_px_m:g}): "
            "take that of the right camera of a calibrated stereo pair"
        )
    return baseline_m


def require_registered(depth_message: Any, camera_frame: str) -> None:
    """Raises CameraError when a depth image is seen from another frame than the picture. Names have no leading /."""
    depth_frame = frame_name(depth_message.header.frame_id)
    if depth_frame != camera_frame:
        raise CameraError(
            f"it is seen from '{depth_frame}', the image from '{camera_frame}': "
            "take depth that is registered (aligned) to this camera"
        )


def to_depth_m(message: Any, width: int, height: int) -> FloatArray:
    """(height, width) metres along the optical axis, NaN where unknown, of a sensor_msgs Image or CompressedImage.

    Encodings are 16UC1 (millimetres, 0 unknown) and 32FC1 (metres, not finite unknown), raw or as the PNG of
    compressed_depth_image_transport. Raises CameraError: another size or encoding, fields that contradict each other,
    or not one known distance.
    """
    values = _raw_depth(message, width, height) if hasattr(message, "encoding") else _png_depth(message, width, height)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        raise CameraError("the depth image is all zero or NaN: is the depth camera covered, or its light off?")
    return np.where(known, values, np.float32(np.nan))


def _raw_depth(message: Any, width: int, height: int) -> FloatArray:
    kind, metres = _depth_encoding(message.encoding)
    _require_size(message.width, message.height, width, height)
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row_bytes, step = width * dtype.itemsize, int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if step < row_bytes or len(data) < step * height:
        raise CameraError(
            f"the depth image has {len(data)} bytes with {step} in a row; {height} rows of {row_bytes} are needed: "
            "its publisher is broken"
        )
    rows = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row_bytes])
    return _scaled(rows.view(dtype), metres)


def _png_depth(message: Any, width: int, height: int) -> FloatArray:
    encoding, _, transport = str(message.format).partition(";")
    kind, metres = _depth_encoding(encoding.strip())
    data = bytes(message.data)
    png = data[_DEPTH_HEADER.size :]
    if transport.split() not in (["compressedDepth"], ["compressedDepth", "png"]) or not png.startswith(_PNG):
        raise CameraError(f"the depth's format '{message.format}' is not known: publish it as compressedDepth png")
    _require_size(int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big"), width, height)
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if _is_whole(png) else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape != (height, width):
        raise CameraError("the PNG of the depth image is damaged, or not of 16 bits: its publisher is broken")
    if kind == "u2":
        return _scaled(pixels, metres)
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(pixels > 0, np.float32(a) / (pixels.astype(np.float32) - np.float32(b)), np.float32(0))


def _is_whole(png: bytes) -> bool:
    """Whether the chunks of a PNG end with its last byte; a decoder takes their lengths for granted."""
    start = len(_PNG)
    while start + 8 <= len(png):
        start += 12 + int.from_bytes(png[start : start + 4], "big")
    return start == len(png) and png[-8:-4] == b"IEND"


def _scaled(pixels: NDArray[Any], metres: float) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(pixels.astype(np.float32) * np.float32(metres))


def _depth_encoding(encoding: str) -> tuple[str, float]:
    if encoding not in _DEPTH:
        raise CameraError(f"the depth's encoding '{encoding}' is not known: publish it as {' or '.join(_DEPTH)}")
    return _DEPTH[encoding]


def _require_size(depth_width: int, depth_height: int, width: int, height: int) -> None:
    if (depth_width, depth_height) != (width, height):
        raise CameraError(
            f"the depth image has {depth_width} x {depth_height} px, the picture {width} x {height}: "
            "take depth that is registered (aligned) to this camera"
        )


def to_transform(message: Any) -> tuple[str, Pose | None]:
    """The child frame of a geometry_msgs/TransformStamped and its pose in the parent; None when it is no pose.

    Without numpy, as robots send thousands of them in a second.
    """
    t, q = message.transform.translation, message.transform.rotation
    child, x, y, z, w = frame_name(message.child_frame_id), q.x, q.y, q.z, q.w
    norm = math.hypot(x, y, z, w)
    if not (1e-6 <= norm < 1e9 and all(abs(metres) < 1e9 for metres in (t.x, t.y, t.z))):
        return child, None
    return child, Pose((t.x, t.y, t.z), (x / norm, y / norm, z / norm, w / norm), frame_name(message.header.frame_id))


def to_mount(text: str, body_frame: str) -> Pose:
    """body_t_optical (REP-103, REP-104) of a camera placed at 'x y z roll pitch yaw', in metres and degrees.

    The angles turn about the body's fixed x, y and z in this order; all zero looks along x. Raises ConfigError.
    """
    try:
        x, y, z, roll, pitch, yaw = (float(word) for word in text.split())
    except ValueError:
        x = math.nan
    if not (math.isfinite(x) and all(map(math.isfinite, (y, z, roll, pitch, yaw)))):
        raise ConfigError(
            f"the camera mount must be 'x y z roll pitch yaw' in metres and degrees, such as '0.2 0 0.5 0 15 0', "
            f"not '{text}'"
        )
    turn = np.eye(3)
    for axis, degrees in enumerate((roll, pitch, yaw)):
        turn = transforms.exp(np.eye(3)[axis] * math.radians(degrees)) @ turn
    return transforms.compose(Pose((x, y, z), transforms.quaternion(turn), body_frame), transforms.OPTICAL)
