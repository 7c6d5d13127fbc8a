"""Rigid transforms and covariances: identities for any pose, and Monte Carlo for the linearisations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros import transforms
from etr_ros.types import Pose

numbers = st.floats(-10, 10)
angles = st.floats(-3, 3)
poses = st.builds(
    lambda t, w: transforms.from_matrix(matrix(t, w), "a"), st.tuples(*[numbers] * 3), st.tuples(*[angles] * 3)
)
SMALL = np.diag([0.01, 0.02, 0.03, 0.004, 0.005, 0.006]) ** 2


def matrix(t: tuple[float, ...], w: tuple[float, ...]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = transforms.exp(w), t
    return result


def yaw(degrees: float, *position: float) -> Pose:
    half = math.radians(degrees) / 2
    return Pose(position or (0.0, 0.0, 0.0), (0.0, 0.0, math.sin(half), math.cos(half)), "a")  # type: ignore[arg-type]


def samples(t: Pose, covariance: np.ndarray, count: int = 20_000) -> list[Pose]:
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance, count)
    true = transforms.to_matrix(t)
    noisy = []
    for draw in draws:
        moved = true.copy()
        moved[:3, 3] += draw[:3]
        moved[:3, :3] = transforms.exp(draw[3:]) @ true[:3, :3]
        noisy.append(transforms.from_matrix(moved, "a"))
    return noisy


def spread(results: list[Pose], true: Pose) -> np.ndarray:
    return np.cov(np.array([transforms.error(each, true) for each in results]).T)


@given(poses)
def test_matrix_and_pose_are_each_others_inverse(pose: Pose) -> None:
    again = transforms.from_matrix(transforms.to_matrix(pose), "a")
    assert np.allclose(transforms.to_matrix(again), transforms.to_matrix(pose), atol=1e-9)
    assert np.linalg.norm(again.quat_xyzw) == pytest.approx(1.0)


@given(poses, poses)
def test_between_leads_from_one_pose_to_the_other(a: Pose, b: Pose) -> None:
    assert np.allclose(
        transforms.to_matrix(transforms.compose(a, transforms.between(a, b))), transforms.to_matrix(b), atol=1e-7
    )
    back = transforms.compose(a, transforms.inverse(a))
    assert np.allclose(transforms.error(back, Pose((0.0, 0.0, 0.0))), 0, atol=1e-6)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-12, 1e-9, 3e-6, 1e-5, 2e-5, 1e-3, 1.0, 3.1])
def test_turns_of_any_size_are_told(angle_rad: float) -> None:
    vector = angle_rad * np.array([0.6, 0.0, -0.8])
    assert np.allclose(transforms.rotation_vector(transforms.exp(vector)), vector, rtol=1e-5, atol=1e-15)


def test_a_robot_that_drove_ahead_is_ahead() -> None:
    before, after = yaw(90, 1.0, 0.0, 0.0), yaw(90, 1.0, 2.0, 0.0)
    assert transforms.between(before, after).position_m == pytest.approx((2.0, 0.0, 0.0))


def test_the_optical_frame_looks_along_the_bodys_x() -> None:
    looks = transforms.rotation(transforms.OPTICAL.quat_xyzw) @ [0, 0, 1]
    right = transforms.rotation(transforms.OPTICAL.quat_xyzw) @ [1, 0, 0]
    assert looks == pytest.approx([1, 0, 0]) and right == pytest.approx([0, -1, 0])


def test_covariance_in_other_frames_is_that_of_the_sampled_product() -> None:
    a, t, b = yaw(70, 1.0, 2.0, 3.0), yaw(-40, 4.0, 5.0, 6.0), yaw(20, 2.0, -1.0, 0.5)
    product = transforms.compose(transforms.compose(a, t), b)
    results = [transforms.compose(transforms.compose(a, each), b) for each in samples(t, SMALL)]
    assert np.allclose(spread(results, product), transforms.change_frames(SMALL, a, t, b), atol=3e-5, rtol=0.06)


def test_covariance_of_the_inverse_is_that_of_the_sampled_inverse() -> None:
    t = yaw(50, 3.0, -2.0, 1.0)
    results = [transforms.inverse(each) for each in samples(t, SMALL)]
    expected = transforms.inverse_covariance(SMALL, t)
    assert np.allclose(spread(results, transforms.inverse(t)), expected, atol=3e-5, rtol=0.06)


def test_covariance_of_a_product_adds_what_both_bring() -> None:
    a, b = yaw(30, 1.0, 0.0, 0.0), yaw(10, 2.0, 1.0, 0.0)
    noisy_a = samples(a, SMALL)
    noisy_b = samples(b, 2 * SMALL)[::-1]
    results = [transforms.compose(x, y) for x, y in zip(noisy_a, noisy_b, strict=True)]
    expected = transforms.compose_covariance(SMALL, a, 2 * SMALL, b)
    assert np.allclose(spread(results, transforms.compose(a, b)), expected, atol=3e-5, rtol=0.06)
