"""3-D points from neighbouring keyframes with known poses: a made-up cloud of points seen by exact cameras."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import unit
from etr_ros.camera import Camera
from etr_ros.errors import CameraError
from etr_ros.transforms import OPTICAL, compose, exp, from_matrix, to_matrix
from etr_ros.triangulate import Points, triangulate
from etr_ros.types import Features, Pose, View

CAMERA = Camera(640, 480, 320.0, 320.0, 319.5, 239.5)
DISTORTED = Camera(640, 480, 320.0, 320.0, 319.5, 239.5, "plumb_bob", (-0.1, 0.02, 0.0, 0.0))
FISHEYE = Camera(640, 480, 320.0, 320.0, 319.5, 239.5, "equidistant", (0.01, 0.0, 0.0, 0.0))
MOUNT = compose(Pose((0.2, 0.05, 0.4)), OPTICAL)
HERE = Pose((1.0, 2.0, 0.0), (0.0, 0.0, 0.6, 0.8), "odom")
FAR_M = 20.0


class Cloud:
    """Points in front of a body at HERE, each with its descriptor."""

    def __init__(self, count: int = 300, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        x, y, z = self.rng.uniform([-0.9, -0.6, 1.5], [0.9, 0.6, 8.0], (count, 3)).T
        self.points = np.column_stack([x * z, y * z, z])
        self.descriptors = unit(self.rng.normal(size=(count, 64)))
        self._world = self.points @ _optical(HERE)[:3, :3].T + _optical(HERE)[:3, 3]

    def seen(self, pose: Pose, camera: Camera = CAMERA, noise_px: float = 0.0) -> View:
        """All points, also those beside the picture; those behind the camera are anywhere in it."""
        w_t_c = _optical(pose)
        local = (self._world - w_t_c[:3, 3]) @ w_t_c[:3, :3]
        front = local[:, 2] > 0.2
        pixels = self.rng.uniform([0, 0], [640, 480], (len(local), 2))
        pixels[front] = camera.project(local[front]) + noise_px * self.rng.normal(size=(front.sum(), 2))
        return make_view(pixels, self.descriptors, camera)

    def errors(self, found: Points) -> tuple[np.ndarray, np.ndarray]:
        """The relative depth errors of the points found, and the errors in sigmas."""
        known = np.isfinite(found.depth_sigma_m)
        error = found.points_m[known, 2] - self.points[known, 2]
        return error / self.points[known, 2], error / found.depth_sigma_m[known]


def _optical(pose: Pose) -> np.ndarray:
    return to_matrix(pose) @ to_matrix(MOUNT)


def make_view(pixels: np.ndarray, descriptors: np.ndarray, camera: Camera | None = CAMERA) -> View:
    count = len(pixels)
    features = Features(
        pixels.astype(np.float32), np.ones(count, np.float32), descriptors, np.zeros(count, np.uint8), (640, 480),
        np.ones(1, np.float32),
    )  # fmt: skip
    return View(features, camera, MOUNT)


def moved(x_m: float, y_m: float, yaw_rad: float = 0.0) -> Pose:
    return compose(HERE, Pose((x_m, y_m, 0.0), (0.0, 0.0, np.sin(yaw_rad / 2), np.cos(yaw_rad / 2))))


ASIDE = [moved(0.0, 0.5), moved(0.1, -0.5, 0.05), moved(-0.4, 0.3, -0.05)]


def find(cloud: Cloud, poses: list[Pose], camera: Camera = CAMERA, noise_px: float = 0.0) -> Points:
    neighbours = [(cloud.seen(pose, camera, noise_px), pose) for pose in poses]
    return triangulate(cloud.seen(HERE, camera, noise_px), HERE, neighbours, max(noise_px, 0.01), FAR_M)


@pytest.mark.parametrize("camera", [CAMERA, DISTORTED, FISHEYE])
def test_exact_keypoints_give_exact_points(camera: Camera) -> None:
    cloud = Cloud()
    found = find(cloud, ASIDE, camera)
    known = np.isfinite(found.points_m).all(axis=1)
    assert known.mean() > 0.95
    np.testing.assert_allclose(found.points_m[known], cloud.points[known], rtol=1e-3, atol=1e-3)
    assert found.points_m.dtype == found.depth_sigma_m.dtype == np.float32


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(-0.5, 0.5), y=st.floats(0.4, 1.0), yaw=st.floats(-0.2, 0.2), seed=st.integers(0, 1000),
    turn=st.tuples(*[st.floats(-3, 3)] * 3), shift=st.tuples(*[st.floats(-100, 100)] * 3),
)  # fmt: skip
def test_points_do_not_depend_on_where_the_fixed_frame_is(
    x: float, y: float, yaw: float, seed: int, turn: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    cloud, there = Cloud(60, seed), moved(x, y, yaw)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = exp(turn), shift
    other = from_matrix(matrix, "odom")
    view, neighbour = cloud.seen(HERE), cloud.seen(there)
    first = triangulate(view, HERE, [(neighbour, there)], 1.0, FAR_M)
    second = triangulate(view, compose(other, HERE), [(neighbour, compose(other, there))], 1.0, FAR_M)
    both = np.isfinite(first.depth_sigma_m) & np.isfinite(second.depth_sigma_m)
    assert np.isfinite(first.depth_sigma_m).sum() - both.sum() <= 1  # one may lie on a limit
    np.testing.assert_allclose(first.points_m[both], second.points_m[both], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(CAMERA.project(first.points_m[both]), view.features.keypoints[both], atol=0.1)


def test_sigma_covers_the_errors_of_noisy_keypoints_and_odometry() -> None:
    cloud = Cloud(1000)
    neighbours = []
    for pose in ASIDE:
        turn = Pose((0.0, 0.0, 0.0), (*(0.5 * np.radians(0.2) * cloud.rng.normal(size=3)), 1.0))
        neighbours.append((cloud.seen(pose, noise_px=1.0), compose(pose, turn)))
    found = triangulate(cloud.seen(HERE, noise_px=1.0), HERE, neighbours, 1.0, FAR_M)
    relative, sigmas = cloud.errors(found)
    assert len(relative) > 400
    assert np.median(np.abs(relative)) < 0.06
    assert 0.3 < np.sqrt(np.mean(sigmas**2)) < 1.5


def test_more_keypoint_noise_means_larger_sigma_and_fewer_points() -> None:
    cloud = Cloud()
    view, neighbours = cloud.seen(HERE), [(cloud.seen(pose), pose) for pose in ASIDE]
    low, high = (triangulate(view, HERE, neighbours, sigma, FAR_M).depth_sigma_m for sigma in (0.5, 5.0))
    assert np.isfinite(high).sum() < np.isfinite(low).sum()
    both = np.isfinite(low) & np.isfinite(high)
    assert (high[both] > low[both]).all()


def test_straight_drive_leaves_out_what_lies_ahead() -> None:
    cloud = Cloud(2000)
    view, poses = cloud.seen(HERE, noise_px=1.0), [moved(-0.5, 0.0), moved(0.5, 0.0)]
    found = triangulate(view, HERE, [(cloud.seen(pose, noise_px=1.0), pose) for pose in poses], 1.0, FAR_M)
    known = np.isfinite(found.depth_sigma_m)
    from_centre = np.linalg.norm(view.features.keypoints - [319.5, 239.5], axis=1)
    assert not known[from_centre < 30].any()
    assert known[from_centre > 200].mean() > 0.5
    assert (np.abs(cloud.errors(found)[0]) > 0.3).mean() < 0.01


@pytest.mark.parametrize("poses", [[HERE], [moved(0.0, 0.0, 0.1)], []])
def test_without_parallax_there_are_no_points(poses: list[Pose]) -> None:
    assert np.isnan(find(Cloud(), poses, noise_px=0.5).points_m).all()


def test_points_have_the_scale_of_the_odometry() -> None:
    cloud = Cloud()
    steps = (0.0, 0.5), (0.1, -0.6)
    scaled = [(cloud.seen(moved(x, y)), moved(1.1 * x, 1.1 * y)) for x, y in steps]
    found = triangulate(cloud.seen(HERE), HERE, scaled, 1.0, FAR_M)
    relative, _ = cloud.errors(found)
    assert len(relative) > 100
    np.testing.assert_allclose(relative, 0.1, atol=0.01)


def test_wrong_matches_mostly_give_no_point() -> None:
    cloud = Cloud(400)
    neighbours = []
    for pose in ASIDE:
        features = cloud.seen(pose, noise_px=0.5).features
        swapped = features.descriptors.copy()
        swapped[:200] = swapped[cloud.rng.permutation(200)]  # half of the locals look like another one
        neighbours.append((View(dataclasses.replace(features, descriptors=swapped), CAMERA, MOUNT), pose))
    found = triangulate(cloud.seen(HERE, noise_px=0.5), HERE, neighbours, 1.0, FAR_M)
    known = np.isfinite(found.depth_sigma_m)
    assert known[200:].mean() > 0.6
    assert known[:200].mean() < 0.15
    error = np.abs(found.points_m[:, 2] / cloud.points[:, 2] - 1)
    assert (error[known] > 0.3).mean() < 0.1


def test_one_wrong_neighbour_does_not_spoil_a_point() -> None:
    cloud = Cloud()
    neighbours = [(cloud.seen(pose, noise_px=0.3), pose) for pose in ASIDE]
    wrong = moved(0.0, 0.8), moved(0.0, 0.5)  # it was seen from the first, the odometry says the second
    found = triangulate(cloud.seen(HERE), HERE, [*neighbours, (cloud.seen(wrong[0]), wrong[1])], 1.0, FAR_M)
    relative, _ = cloud.errors(found)
    assert len(relative) > 150
    assert np.quantile(np.abs(relative), 0.95) < 0.15


def test_what_is_too_far_is_left_out() -> None:
    cloud = Cloud()
    found = triangulate(cloud.seen(HERE), HERE, [(cloud.seen(pose), pose) for pose in ASIDE], 0.1, 4.0)
    assert np.nanmax(found.points_m[:, 2]) <= 4.0


@pytest.mark.parametrize("counts", [(0, 30), (30, 0), (1, 30), (30, 1), (0, 0), (1, 1)])
def test_few_keypoints_are_no_error(counts: tuple[int, int]) -> None:
    cloud = Cloud(30)
    (here, there) = (
        dataclasses.replace(view, features=view.features.strongest(count))
        for view, count in zip((cloud.seen(HERE), cloud.seen(ASIDE[0])), counts, strict=True)
    )
    found = triangulate(here, HERE, [(there, ASIDE[0])], 1.0, FAR_M)
    assert found.points_m.shape == (counts[0], 3) and found.depth_sigma_m.shape == (counts[0],)


def test_what_a_fisheye_sees_beside_itself_gives_no_point() -> None:
    cloud, wide = Cloud(), Camera(640, 480, 150.0, 150.0, 319.5, 239.5, "equidistant", (0.0, 0.0, 0.0, 0.0))
    view, neighbours = cloud.seen(HERE, wide), [(cloud.seen(pose, wide), pose) for pose in ASIDE]
    view.features.keypoints[:100] = cloud.rng.uniform([0, 0], [70, 480], (100, 2))
    found = triangulate(view, HERE, neighbours, 1.0, FAR_M)
    assert np.isnan(found.points_m[:100]).all() and np.isfinite(found.points_m[100:]).all(axis=1).mean() > 0.5


def test_same_input_same_points() -> None:
    view, neighbours = Cloud().seen(HERE, noise_px=1.0), [(Cloud().seen(pose, noise_px=1.0), pose) for pose in ASIDE]
    first, second = (triangulate(view, HERE, neighbours, 1.0, FAR_M) for _ in range(2))
    np.testing.assert_array_equal(first.points_m, second.points_m)


@pytest.mark.parametrize(
    ("lacking", "word"),
    [({"camera": None}, "camera info"), ({"body_t_camera": None}, "optical frame"),
     ({"camera": Camera(320, 240, 160.0, 160.0, 159.5, 119.5)}, "320 x 240")],
)  # fmt: skip
def test_what_lacks_is_named(lacking: dict[str, object], word: str) -> None:
    view = Cloud().seen(HERE)
    wrong = dataclasses.replace(view, **lacking)
    with pytest.raises(CameraError, match=word):
        triangulate(wrong, HERE, [(view, ASIDE[0])], 1.0, FAR_M)
    with pytest.raises(CameraError, match=word):
        triangulate(view, HERE, [(wrong, ASIDE[0])], 1.0, FAR_M)
