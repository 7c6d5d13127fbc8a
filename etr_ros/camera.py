"""The intrinsics of a camera: from pixels to undistorted rays and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import CameraError
from etr_ros.types import FloatArray

# Names of sensor_msgs/CameraInfo -> how many coefficients may come with them
DISTORTION_MODELS = {"": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
FISHEYE = "equidistant"
MAX_SIDE_PX = 32768
MAX_RAY = 20.0  # 87 degrees off the axis; beyond, a ray has no x / z


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole or fisheye camera for pictures of one size, in pixels; the centre of the top left pixel is (0, 0).

    `distortion` has the order of OpenCV and of sensor_msgs/CameraInfo. Make it with `Camera.create`, which validates.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()

    @staticmethod
    def create(width: int, height: int, k: Sequence[float], model: str, distortion: Sequence[float]) -> Camera:
        """A camera from what sensor_msgs/CameraInfo holds: `k` is the (9,) row-major intrinsic matrix.

        Raises CameraError that says which value cannot be used.
        """
        values = [float(value) for value in k]
        if len(values) != 9 or not all(map(math.isfinite, values)):
            raise CameraError("the camera's intrinsic matrix K holds no nine numbers: calibrate the camera")
        fx, cx, fy, cy = values[0], values[2], values[4], values[5]
        if fx <= 0 or fy <= 0:
            raise CameraError(f"the camera is not calibrated (focal length {fx:g} x {fy:g} px): calibrate the camera")
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
            raise CameraError(f"the camera's picture size {width} x {height} cannot be")
        if not (0 <= cx <= width and 0 <= cy <= height):
            raise CameraError(f"the principal point ({cx:g}, {cy:g}) lies outside of the {width} x {height} picture")
        if model not in DISTORTION_MODELS:
            known = ", ".join(name for name in DISTORTION_MODELS if name)
            raise CameraError(f"the distortion model '{model}' is not known; known are {known}")
        coefficients = tuple(float(value) for value in distortion)
        if not all(map(math.isfinite, coefficients)):
            raise CameraError("the camera's distortion coefficients are not all numbers: calibrate the camera")
        if not any(coefficients):
            coefficients, model = (), model if model == FISHEYE else "plumb_bob"
        if coefficients and len(coefficients) not in DISTORTION_MODELS[model]:
            raise CameraError(f"the distortion model {model} does not have {len(coefficients)} coefficients")
        return Camera(int(width), int(height), fx, fy, cx, cy, model, coefficients)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def focal_px(self) -> float:
        """The mean of both focal lengths: pixels per radian near the axis."""
        return (self.fx + self.fy) / 2

    def require_size(self, width: int, height: int) -> None:
        """Raises CameraError when pictures have another size than the calibration is for."""
        if (width, height) != (self.width, self.height):
            raise CameraError(
                f"the camera info is for {self.width} x {self.height} pictures, this one has {width} x {height}: "
                "take the camera info of this image topic"
            )

    def rays(self, pixels: FloatArray) -> NDArray[np.float64]:
        """Pixels (N, 2) -> undistorted x / z and y / z (N, 2) in the optical frame (x right, y down, z forward).

        NaN where a fisheye looks sideways, more than 87 degrees off the axis.
        """
        points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if not len(points):
            return np.empty((0, 2))
        if self.distortion_model == FISHEYE:
            rays = cv2.fisheye.undistortPoints(points, self.matrix, np.array(self._four()))
            rays[np.abs(rays) > MAX_RAY] = np.nan
        elif self.distortion:
            rays = cv2.undistortPoints(points, self.matrix, np.array(self.distortion))
        else:
            rays = (points - [self.cx, self.cy]) / [self.fx, self.fy]
        return np.asarray(rays, np.float64).reshape(-1, 2)

    def project(self, points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 3) in the optical frame, in front of the camera -> pixels (N, 2)."""
        points = np.asarray(points_m, np.float64).reshape(-1, 1, 3)
        if not len(points):
            return np.empty((0, 2))
        zero = np.zeros(3)
        if self.distortion_model == FISHEYE:
            pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, self.matrix, np.array(self._four()))
        else:
            pixels, _ = cv2.projectPoints(points, zero, zero, self.matrix, np.array(self.distortion or (0.0,) * 4))
        return np.asarray(pixels, np.float64).reshape(-1, 2)

    def _four(self) -> tuple[float, ...]:
        return self.distortion or (0.0, 0.0, 0.0, 0.0)
