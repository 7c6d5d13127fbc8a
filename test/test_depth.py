"""3-D points from depth images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_features
from etr_ros.camera import Camera
from etr_ros.depth import attach, points_at
from etr_ros.errors import CameraError
from etr_ros.types import View

CAMERA = Camera(64, 48, 50.0, 52.0, 31.0, 23.0)
DISTORTED = Camera(64, 48, 50.0, 52.0, 31.0, 23.0, "plumb_bob", (-0.2, 0.05, 0.001, 0.0))
FISHEYE = Camera(64, 48, 50.0, 52.0, 31.0, 23.0, "equidistant", (0.02, 0.0, 0.0, 0.0))


def flat(depth_m: float) -> np.ndarray:
    return np.full((48, 64), depth_m, np.float32)


def pixels(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 2)


@pytest.mark.parametrize("camera", [CAMERA, DISTORTED, FISHEYE])
@settings(max_examples=30, deadline=None)
@given(x=st.floats(0, 63, width=32), y=st.floats(0, 47, width=32), z=st.floats(0.125, 10, width=32))
def test_a_point_projects_to_its_pixel_and_has_the_depth(camera: Camera, x: float, y: float, z: float) -> None:
    point = points_at(pixels((x, y)), camera, flat(z), 10.0)
    assert point.shape == (1, 3) and point.dtype == np.float32
    assert point[0, 2] == np.float32(z)
    np.testing.assert_allclose(camera.project(point.astype(np.float64)), [[x, y]], atol=0.02)


def test_a_slanted_plane_keeps_its_shape() -> None:
    v, u = np.mgrid[:48, :64]
    normal, distance = np.array([0.2, 0.3, 1.0]), 3.0
    rays = np.stack([(u - 31.0) / 50.0, (v - 23.0) / 52.0, np.ones((48, 64))], axis=-1)
    keypoints = pixels(*np.random.default_rng(0).uniform(2, 45, (50, 2)).tolist())
    points = points_at(keypoints, CAMERA, (distance / (rays @ normal)).astype(np.float32), 10.0)
    np.testing.assert_allclose(points @ normal, distance, rtol=0.01)


def test_the_median_keeps_single_wrong_pixels_out() -> None:
    noisy = flat(4.0) + np.random.default_rng(0).normal(0, 0.04, (48, 64)).astype(np.float32)
    noisy[::5, ::5] = np.nan
    points = points_at(pixels((20, 20), (33, 31)), CAMERA, noisy, 10.0)
    np.testing.assert_allclose(points[:, 2], 4.0, atol=0.05)


def test_depth_edges_give_no_point() -> None:
    depth = flat(2.0)
    depth[:, 32:] = 5.0
    points = points_at(pixels((31, 20), (32, 20), (33, 20), (28, 20), (36, 20)), CAMERA, depth, 10.0)
    assert np.isnan(points[:3]).all()
    np.testing.assert_array_equal(points[3:, 2], [2.0, 5.0])


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf, 10.5])
def test_unknown_and_far_depth_gives_no_point(value: float) -> None:
    assert np.isnan(points_at(pixels((20, 20), (0, 0)), CAMERA, flat(value), 10.0)).all()


def test_a_hole_with_few_known_pixels_gives_no_point() -> None:
    depth = flat(0.0)
    depth[20, 20] = 3.0
    assert np.isnan(points_at(pixels((20, 20)), CAMERA, depth, 10.0)).all()


def test_keypoints_outside_of_the_picture_give_no_point() -> None:
    outside = pixels((-1, 5), (64, 5), (5, 48), (np.nan, 5), (1e30, 5))
    assert np.isnan(points_at(outside, CAMERA, flat(2.0), 10.0)).all()


def test_what_a_fisheye_sees_beside_itself_gives_no_point() -> None:
    wide = Camera(64, 48, 15.0, 15.0, 31.5, 23.5, "equidistant", (0.0, 0.0, 0.0, 0.0))
    points = points_at(pixels((2, 2), (2, 23.5), (31, 23)), wide, flat(2.0), 10.0)
    assert np.isnan(points[:2]).all() and np.isfinite(points[2]).all()


def test_no_keypoints_give_no_points() -> None:
    assert points_at(pixels(), CAMERA, flat(2.0), 10.0).shape == (0, 3)


@pytest.mark.parametrize("shape", [(24, 32), (64, 48), (48, 64, 1), (0, 0), (48,)])
def test_depth_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CameraError, match="registered"):
        points_at(pixels((20, 20)), CAMERA, np.ones(shape, np.float32), 10.0)


def test_attach_adds_points_to_the_features_only() -> None:
    features = make_features(0)
    camera = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
    view = attach(View(features, camera), np.full((480, 640), 2.0, np.float32), 10.0)
    assert view.features.points_m is not None and view.features.points_m.shape == (40, 3)
    assert view.features.keypoints is features.keypoints and view.camera is camera
    assert features.points_m is None


def test_attach_asks_for_the_camera_and_its_size() -> None:
    with pytest.raises(CameraError, match="camera info"):
        attach(View(make_features(0)), flat(2.0), 10.0)
    with pytest.raises(CameraError, match="640 x 480"):
        attach(View(make_features(0), CAMERA), flat(2.0), 10.0)
