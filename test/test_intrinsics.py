"""Intrinsics: rays and pixels are each other's inverse, and calibrations that cannot be used are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.camera import Camera
from etr_ros.errors import CameraError

K = (400.0, 0.0, 320.0, 0.0, 410.0, 240.0, 0.0, 0.0, 1.0)
CAMERAS = {
    "no distortion": Camera.create(640, 480, K, "plumb_bob", (0, 0, 0, 0, 0)),
    "plumb_bob": Camera.create(640, 480, K, "plumb_bob", (-0.1, 0.02, 0.001, -0.001, 0.0)),
    "equidistant": Camera.create(640, 480, K, "equidistant", (0.02, -0.005, 0.001, 0.0)),
    "rational": Camera.create(640, 480, K, "rational_polynomial", (0.1, 0.01, 0.0, 0.0, 0.001, 0.12, 0.01, 0.0)),
}


@pytest.mark.parametrize("name", CAMERAS)
@given(x=st.floats(20, 620), y=st.floats(20, 460), depth=st.floats(0.5, 20))
def test_a_pixel_seen_along_its_ray_is_that_pixel(name: str, x: float, y: float, depth: float) -> None:
    camera = CAMERAS[name]
    ray = camera.rays(np.array([[x, y]], np.float32))
    again = camera.project(np.column_stack([ray, [1.0]]) * depth)
    assert again == pytest.approx(np.array([[x, y]]), abs=0.02)


def test_the_optical_axis_meets_the_principal_point() -> None:
    for camera in CAMERAS.values():
        assert camera.rays(np.array([[320.0, 240.0]], np.float32)) == pytest.approx(np.zeros((1, 2)), abs=1e-6)
        assert camera.rays(np.empty((0, 2), np.float32)).shape == (0, 2)
        assert camera.project(np.empty((0, 3))).shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": (0.0,) * 9}, "not calibrated"),
        ({"k": K[:6]}, "no nine numbers"),
        ({"k": (float("nan"), *K[1:])}, "no nine numbers"),
        ({"k": (400.0, 0.0, 900.0, *K[3:])}, "principal point"),
        ({"width": 0}, "picture size"),
        ({"model": "thin_prism"}, "not known"),
        ({"distortion": (0.1, 0.2)}, "does not have 2 coefficients"),
        ({"distortion": (0.1, float("inf"), 0.0, 0.0)}, "not all numbers"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(changes: dict, message: str) -> None:
    values = {"width": 640, "height": 480, "k": K, "model": "plumb_bob", "distortion": ()} | changes
    with pytest.raises(CameraError, match=message):
        Camera.create(**values)


def test_pictures_of_another_size_are_refused() -> None:
    CAMERAS["plumb_bob"].require_size(640, 480)
    with pytest.raises(CameraError, match="640 x 480 pictures, this one has 320 x 240"):
        CAMERAS["plumb_bob"].require_size(320, 240)
