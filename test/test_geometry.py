"""Relative pose of two views: exact without noise, as sure as it says with noise, honest when degenerate."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import geometry
from etr_ros.config import GeometryConfig
from etr_ros.transforms import compose, error, exp, from_matrix, inverse, quaternion
from etr_ros.types import Geometry, Pose, View
from scenes import FISHEYE, MOUNT, PLAIN, PLUMB_BOB, Scene, camera_direction, make_pair, random_motion, without_points

CONFIG = GeometryConfig(inflation=1.0)  # the errors here are independent
FORWARD = Pose((1.0, 0.0, 0.0))
SIDEWAYS = Pose((0.0, 0.5, 0.0))
NOISY = Scene(pixel_sigma=1.0, depth_sigma=CONFIG.depth_sigma, outliers=0.3)
NO_POINTS = (0.0, 0.0)


def estimate(scene: Scene, match_t_query: Pose, seed: int = 0) -> Geometry:
    return geometry.estimate(*make_pair(np.random.default_rng(seed), scene, match_t_query), CONFIG)


def errors(found: Geometry, true: Pose) -> tuple[float, float]:
    """Metres (or the length of the difference of directions) and degrees."""
    assert found.match_t_query is not None
    e = error(found.match_t_query, true)
    return float(np.linalg.norm(e[:3])), math.degrees(float(np.linalg.norm(e[3:])))


def test_metric_poses_also_with_an_opencv_that_cannot_choose_how_it_polishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of Ubuntu 22.04 and 24.04."""
    monkeypatch.delattr(cv2, "NONE_POLISHER")
    found = estimate(NOISY, FORWARD)
    assert found.is_metric and errors(found, FORWARD)[0] < 0.05


def nees(found: Geometry, true: Pose, part: slice = slice(0, 6)) -> float:
    assert found.match_t_query is not None and found.covariance is not None
    e = error(found.match_t_query, true)[part]
    return float(e @ np.linalg.solve(found.covariance[part, part], e))


def sigma_deg(found: Geometry) -> float:
    assert found.covariance is not None
    return math.degrees(math.sqrt(np.trace(found.covariance[3:, 3:])))


@pytest.mark.parametrize("known", [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_one_metre_forward_is_plus_x_of_the_matched_body(known: tuple[float, float]) -> None:
    found = estimate(replace(NOISY, known=known, near_m=2.0), FORWARD)
    assert found.is_metric and not found.degeneracy
    assert found.inliers >= 70 and found.matches == 150
    np.testing.assert_allclose(found.match_t_query.position_m, (1, 0, 0), atol=0.05)
    assert errors(found, FORWARD)[1] < 0.5


def test_without_points_the_direction_is_known_but_not_the_distance() -> None:
    found = estimate(replace(NOISY, known=NO_POINTS, near_m=2.0), FORWARD)
    assert not found.is_metric and not found.degeneracy
    np.testing.assert_allclose(found.match_t_query.position_m, (1, 0, 0), atol=0.1)
    assert np.linalg.norm(found.match_t_query.position_m) == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["cloud", "plane", "boxes"]), st.floats(0.05, 0.8), st.floats(0, 0.3))
def test_exact_without_noise_for_any_motion_and_mounts(seed: int, kind: str, distance: float, angle: float) -> None:
    rng = np.random.default_rng(seed)
    mounts = random_motion(rng, 0.5, 2.0), random_motion(rng, 0.3, 1.0)
    between_cameras = random_motion(rng, distance, angle)
    true = compose(compose(mounts[1], between_cameras), inverse(mounts[0]))
    query, match = make_pair(rng, Scene(kind, mounts=mounts, known=(0.7, 0.7)), true)
    found = geometry.estimate(query, match, CONFIG)
    off_m, off_deg = errors(found, true)
    assert off_m < 1e-3 and off_deg < 0.02
    swapped = geometry.estimate(match, query, CONFIG)
    off_m, off_deg = errors(swapped, inverse(true))
    assert off_m < 1e-3 and off_deg < 0.02


def test_swapping_query_and_match_inverts_a_noisy_pose_too() -> None:
    true = random_motion(np.random.default_rng(3))
    query, match = make_pair(np.random.default_rng(4), NOISY, true)
    there, back = geometry.estimate(query, match, CONFIG), geometry.estimate(match, query, CONFIG)
    assert there.match_t_query is not None
    off_m, off_deg = errors(back, inverse(there.match_t_query))
    assert off_m < 0.01 and off_deg < 0.2


@pytest.mark.parametrize("cameras", [(PLUMB_BOB, PLUMB_BOB), (FISHEYE, FISHEYE), (PLUMB_BOB, FISHEYE)])
@pytest.mark.parametrize("known", [(1.0, 1.0), NO_POINTS])
def test_distortion_is_taken_out_of_the_keypoints(cameras, known: tuple[float, float]) -> None:
    scene = Scene(cameras=cameras, known=known, outliers=0.2)
    found = estimate(scene, SIDEWAYS)
    true = SIDEWAYS if found.is_metric else camera_direction(scene, SIDEWAYS)
    off, off_deg = errors(found, true)
    assert off < 2e-3 and off_deg < 0.05


@pytest.mark.parametrize("kind", ["cloud", "boxes", "plane"])
def test_metric_poses_are_as_sure_as_they_say(kind: str) -> None:
    values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        true = random_motion(rng, rng.uniform(0.05, 0.8), rng.uniform(0, 0.35))
        known = ((1.0, 1.0), (0.0, 1.0), (0.5, 0.7))[seed % 3]
        scene = replace(NOISY, kind=kind, known=known, matches=int(rng.integers(40, 300)), outliers=rng.uniform(0, 0.6))
        found = geometry.estimate(*make_pair(rng, scene, true), CONFIG)
        if found.inliers >= CONFIG.min_inliers:
            values.append((nees(found, true), nees(found, true, slice(3, 6))))
    assert len(values) > 45
    whole, turn = np.mean(values, axis=0)
    assert 3 < whole < 12 and 1.5 < turn < 6


@pytest.mark.parametrize("kind", ["cloud", "boxes", "plane"])
def test_poses_without_scale_are_as_sure_as_they_say(kind: str) -> None:
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true = random_motion(rng, rng.uniform(0.1, 0.8), rng.uniform(0, 0.35))
        scene = replace(NOISY, kind=kind, known=NO_POINTS, matches=int(rng.integers(60, 300)))
        found = geometry.estimate(*make_pair(rng, scene, true), CONFIG)
        if found.inliers >= CONFIG.min_inliers and any(found.match_t_query.position_m):
            values.append(nees(found, camera_direction(scene, true)))
    assert len(values) > 30
    assert 2 < np.mean(values) < 10


def test_more_noise_than_configured_shows_in_the_covariance() -> None:
    quiet, loud = (estimate(replace(NOISY, pixel_sigma=sigma), SIDEWAYS) for sigma in (1.0, 2.0))
    assert sigma_deg(loud) > 1.15 * sigma_deg(quiet)


def test_larger_pictures_have_larger_keypoint_noise() -> None:
    large = replace(PLAIN, width=1280, height=960, fx=900.0, fy=900.0, cx=640.0, cy=480.0)
    found = estimate(replace(NOISY, cameras=(large, large), pixel_sigma=2.0), SIDEWAYS)
    assert found.inliers > 80 and found.is_metric


def test_pure_rotation_keeps_the_rotation_and_no_direction() -> None:
    scene = replace(NOISY, known=NO_POINTS, mounts=(Pose((0.0, 0.0, 0.0), MOUNT.quat_xyzw),) * 2)
    true = Pose((0.0, 0.0, 0.0), quaternion(exp([0.0, 0.0, 0.2])))
    found = estimate(scene, true)
    assert found.match_t_query.position_m == (0, 0, 0) and not found.is_metric
    assert "only turned" in found.degeneracy
    assert errors(found, true)[1] < 0.5
    np.testing.assert_allclose(found.covariance[:3, :3], np.eye(3) / 3, atol=1e-12)
    assert nees(found, true, slice(3, 6)) < 16


def test_a_plane_makes_the_direction_less_sure_and_is_named() -> None:
    found = estimate(replace(NOISY, kind="plane", known=NO_POINTS), SIDEWAYS)
    assert "plane" in found.degeneracy and not found.is_metric
    assert estimate(replace(NOISY, kind="plane"), SIDEWAYS).degeneracy == ""


@pytest.mark.parametrize("known", [(1.0, 1.0), NO_POINTS])
def test_clustered_inliers_are_named(known: tuple[float, float]) -> None:
    found = estimate(replace(NOISY, window=0.12, known=known, outliers=0.0), Pose((0.0, 0.2, 0.0)))
    assert "of the picture only" in found.degeneracy
    assert found.coverage < geometry.MIN_COVERAGE
    assert estimate(NOISY, SIDEWAYS).coverage > 0.3


def test_too_small_a_scene_far_away_hardly_fixes_the_pose() -> None:
    small = replace(NOISY, kind="plane", window=0.04, matches=12, outliers=0.0, known=(0.0, 1.0))
    far = replace(small, near_m=8.0, far_m=9.0)
    found = estimate(far, Pose((0.0, 0.2, 0.0)))
    assert "hardly fix the pose" in found.degeneracy


@pytest.mark.parametrize("known", [(1.0, 1.0), NO_POINTS])
def test_unrelated_views_have_few_inliers(known: tuple[float, float]) -> None:
    found = estimate(replace(NOISY, outliers=1.0, known=known), SIDEWAYS)
    assert found.inliers < CONFIG.min_inliers


@pytest.mark.parametrize("count", [0, 1, 5])
def test_below_six_matches_there_is_no_pose(count: int) -> None:
    query, match = make_pair(np.random.default_rng(0), Scene(), SIDEWAYS)
    few = replace(query, features=query.features.strongest(count))
    for view in (few, without_points(few)):
        found = geometry.estimate(view, match, CONFIG)
        assert found.match_t_query is None and found.covariance is None and not found.is_metric
        assert found.inliers == 0 and found.matches == count and "fewer than 6" in found.degeneracy


def test_unknown_and_too_far_points_are_not_used() -> None:
    query, match = make_pair(np.random.default_rng(0), replace(NOISY, known=(0.0, 1.0)), SIDEWAYS)
    points = match.features.points_m.copy()
    points[::2] = np.nan
    points[1] = np.inf
    half = replace(match, features=replace(match.features, points_m=points))
    found = geometry.estimate(query, half, CONFIG)
    assert found.is_metric and 40 <= found.inliers <= 75
    assert errors(found, SIDEWAYS)[0] < 0.05
    near = replace(CONFIG, max_depth_m=0.5)
    assert not geometry.estimate(query, match, near).is_metric
    no_point = replace(match, features=replace(match.features, points_m=np.full_like(points, np.nan)))
    assert not geometry.estimate(query, no_point, CONFIG).is_metric


@pytest.mark.parametrize("is_query", [True, False])
def test_where_something_is_not_known_there_is_no_pose(is_query: bool) -> None:
    def without(field: str) -> tuple[View, View]:
        query, match = make_pair(np.random.default_rng(0), NOISY, SIDEWAYS)
        changed = replace(query if is_query else match, **{field: None})
        return (changed, match) if is_query else (query, changed)

    not_mounted = geometry.estimate(*without("body_t_camera"), CONFIG)
    assert not_mounted.match_t_query is None and not_mounted.covariance is None and not not_mounted.is_metric
    assert not_mounted.inliers >= 90 and geometry.NOT_MOUNTED in not_mounted.degeneracy
    not_calibrated = geometry.estimate(*without("camera"), CONFIG)
    assert not_calibrated.match_t_query is None and not_calibrated.inliers >= 90
    assert not_calibrated.degeneracy == geometry.NOT_CALIBRATED


def test_same_input_gives_same_output() -> None:
    for known in ((1.0, 1.0), NO_POINTS):
        first, second = (estimate(replace(NOISY, known=known), SIDEWAYS, 7) for _ in range(2))
        assert first.match_t_query == second.match_t_query
        np.testing.assert_array_equal(first.covariance, second.covariance)


def test_a_turned_mount_turns_the_covariance() -> None:
    """A camera that looks back moves its body's uncertain axis to the other side, with the same numbers."""
    half_turn = from_matrix(np.diag([-1.0, -1.0, 1.0, 1.0]), "")
    mount = compose(half_turn, MOUNT)
    ahead = estimate(NOISY, SIDEWAYS)
    behind = estimate(replace(NOISY, mounts=(mount, mount)), compose(compose(half_turn, SIDEWAYS), inverse(half_turn)))
    np.testing.assert_allclose(
        behind.match_t_query.position_m, np.array([-1, -1, 1]) * ahead.match_t_query.position_m, atol=1e-4
    )
    sign = np.array([-1, -1, 1, -1, -1, 1])
    np.testing.assert_allclose(behind.covariance, ahead.covariance * np.outer(sign, sign), rtol=1e-2, atol=1e-9)
