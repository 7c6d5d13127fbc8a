"""3-D points from rectified stereo pairs: textured planes, rendered by homographies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from etr_ros.camera import Camera
from etr_ros.errors import CameraError
from etr_ros.stereo import points_at
from homography import picture

CAMERA = Camera(320, 240, 220.0, 220.0, 159.5, 119.5)
BASELINE_M = 0.12
GRID = np.stack(np.meshgrid(np.arange(20, 300, 14), np.arange(20, 220, 14)), axis=-1).reshape(-1, 2).astype(np.float32)
BACKGROUND, BOARD = np.array([0.0, 0.1, 1.0, -6.0]), np.array([0.3, -0.1, 1.0, -2.0])  # a p = -a[3] in the left frame


def right_of(left: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """What the right camera sees of a plane that fills the left picture."""
    # p_right = p - b e_x and n p = d, so p_right = (I - b e_x n^T / d) p
    shift = np.eye(3) + np.outer([BASELINE_M, 0, 0], plane[:3]) / plane[3]
    k = CAMERA.matrix
    return cv2.warpPerspective(left, k @ shift @ np.linalg.inv(k), (320, 240), borderMode=cv2.BORDER_REFLECT)


def depth_of(plane: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    rays = np.column_stack([CAMERA.rays(keypoints), np.ones(len(keypoints))])
    return -plane[3] / (rays @ plane[:3])


def scene(noise: float = 0.0, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A board in front of a wall: left and right picture, and the true depth at GRID."""
    rng = np.random.default_rng(0)
    wall, board = picture(320, 240, 1), picture(320, 240, 2)
    mask = np.zeros((240, 320), np.uint8)
    mask[70:190, 140:280] = 255
    left = np.where(mask[..., None] > 0, board, wall)
    right = np.where(right_of(mask, BOARD)[..., None] > 127, right_of(board, BOARD), right_of(wall, BACKGROUND))
    column, row = GRID.astype(int).T
    depth = np.where(mask[row, column] > 0, depth_of(BOARD, GRID), depth_of(BACKGROUND, GRID))
    return spoil(left, rng, noise, 1.0), spoil(right, rng, noise, gain), depth


def spoil(image: np.ndarray, rng: np.random.Generator, noise: float, gain: float) -> np.ndarray:
    return np.clip(gain * image + noise * rng.normal(size=image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("noise", "gain", "share", "error"), [(0.0, 1.0, 0.85, 0.01), (4.0, 1.2, 0.7, 0.015), (4.0, 0.7, 0.7, 0.015)]
)
def test_depth_is_right_under_noise_and_another_exposure(noise: float, gain: float, share: float, error: float) -> None:
    left, right, depth = scene(noise, gain)
    points = points_at(GRID, left, right, CAMERA, BASELINE_M, 10.0)
    known = np.isfinite(points[:, 2])
    relative = np.abs(points[known, 2] / depth[known] - 1)
    assert known.mean() > share
    assert np.median(relative) < error
    assert (relative > 0.1).mean() < 0.05


def test_points_project_to_their_keypoints() -> None:
    left, right, _ = scene()
    points = points_at(GRID, left, right, CAMERA, BASELINE_M, 10.0)
    known = np.isfinite(points[:, 2])
    assert points.dtype == np.float32 and points.shape == (*GRID.shape[:1], 3)
    np.testing.assert_allclose(CAMERA.project(points[known].astype(np.float64)), GRID[known], atol=1e-3)


def test_what_is_too_far_is_left_out() -> None:
    left, right, depth = scene()
    points = points_at(GRID, left, right, CAMERA, BASELINE_M, 4.0)
    assert np.isnan(points[depth > 4.4]).mean() > 0.95
    assert np.nanmax(points[:, 2]) <= 4.0


def test_unrelated_pictures_give_hardly_a_point() -> None:
    points = points_at(GRID, picture(320, 240, 3), picture(320, 240, 4), CAMERA, BASELINE_M, 10.0)
    assert np.isfinite(points[:, 2]).mean() < 0.02


@pytest.mark.parametrize("period", [8, 16])
def test_a_texture_that_repeats_along_the_row_gives_no_point(period: int) -> None:
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, np.arange(320) % period < period // 2] = 200
    inner = GRID[GRID[:, 0] > 100]
    assert np.isnan(points_at(inner, stripes, np.roll(stripes, -5, axis=1), CAMERA, BASELINE_M, 10.0)).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_pictures_without_texture_give_no_point(value: int) -> None:
    plain = np.full((240, 320, 3), value, np.uint8)
    assert np.isnan(points_at(GRID, plain, plain, CAMERA, BASELINE_M, 10.0)).all()


def test_keypoints_at_and_outside_of_the_border_are_no_error() -> None:
    left, right, _ = scene()
    edge = np.array([[0, 0], [319, 239], [0, 239], [-5, 3], [400, 10], [np.nan, 1]], np.float32)
    assert np.isnan(points_at(edge, left, right, CAMERA, BASELINE_M, 10.0)[3:]).all()
    assert points_at(edge[:0], left, right, CAMERA, BASELINE_M, 10.0).shape == (0, 3)
    assert points_at(GRID[:1], left, right, CAMERA, BASELINE_M, 10.0).shape == (1, 3)


@pytest.mark.parametrize("baseline_m", [0.0, -0.1, np.nan, np.inf])
def test_a_baseline_that_cannot_be_is_refused(baseline_m: float) -> None:
    left, right, _ = scene()
    with pytest.raises(CameraError, match="baseline"):
        points_at(GRID, left, right, CAMERA, baseline_m, 10.0)


def test_pictures_of_another_size_are_refused() -> None:
    left, right, _ = scene()
    for pair in ((left[::2, ::2], right), (left, right[:120])):
        with pytest.raises(CameraError, match="320 x 240"):
            points_at(GRID, *pair, CAMERA, BASELINE_M, 10.0)


@pytest.mark.parametrize("model", [("plumb_bob", (-0.1, 0.0, 0.0, 0.0)), ("equidistant", ())])
def test_a_distorted_camera_is_refused(model: tuple[str, tuple[float, ...]]) -> None:
    left, right, _ = scene()
    camera = Camera(320, 240, 220.0, 220.0, 159.5, 119.5, *model)
    with pytest.raises(CameraError, match="rectified"):
        points_at(GRID, left, right, camera, BASELINE_M, 10.0)
