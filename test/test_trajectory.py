"""Trajectory errors: cases worked out by hand, what must not change them, and the evo package as the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etr_ros import trajectory
from etr_ros.transforms import exp, rotation_vector

Matrix = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def walk(seed: int, count: int = 30, turn_rad: float = 0.3) -> Matrix:
    """(N, 4, 4) a random walk in space."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(count - 1):
        poses.append(poses[-1] @ pose(rng.normal(size=3), turn_rad * rng.normal(size=3)))
    return np.array(poses)


def pose(position: object, turn: object = (0.0, 0.0, 0.0)) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = exp(np.asarray(turn, np.float64)), position
    return matrix


def disturbed(poses: Matrix, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    return np.array([each @ pose(0.1 * rng.normal(size=3), 0.05 * rng.normal(size=3)) for each in poses])


def test_ate_by_hand() -> None:
    truth = np.array([[-1.0, 0, 0], [1, 0, 0], [0, -2, 0], [0, 2, 0]])
    estimate = np.array([[9.0, 0, 0], [11, 0, 0], [10, -2.5, 0], [10, 2.5, 0]])
    assert trajectory.position_errors_m(estimate, truth) == pytest.approx([0, 0, 0.5, 0.5])
    assert trajectory.ate_m(estimate, truth) == pytest.approx(math.sqrt(0.125))


def test_start_aligned_errors_by_hand() -> None:
    truth = np.array([pose([0.0, 0, 0]), pose([1, 0, 0]), pose([2, 0, 0])])
    left = math.pi / 2  # the estimate starts elsewhere, facing left, and then goes straight on but too far
    estimate = np.array([pose([5.0, 0, 0], [0, 0, left]), pose([5, 1.0, 0]), pose([5, 2.5, 0])])
    assert trajectory.start_aligned_errors_m(estimate, truth) == pytest.approx([0, 0, 0.5])
    assert trajectory.start_aligned_ate_m(estimate, truth) == pytest.approx(math.sqrt(0.25 / 3))


def test_rpe_by_hand() -> None:
    truth = np.array([pose([0.5 * i, 0, 0]) for i in range(7)])
    step = pose([0.5, 0, 0], [0, 0, math.radians(1.0)])
    estimate = np.array([np.linalg.matrix_power(step, i) for i in range(7)])
    error = trajectory.rpe(estimate, truth, delta_m=1.0)
    after_two_steps = step @ step
    assert error.pairs == 3
    assert error.rotation_deg == pytest.approx(2.0)
    assert error.position_m == pytest.approx(np.linalg.norm(after_two_steps[:3, 3] - [1.0, 0, 0]))
    assert trajectory.rpe(estimate, truth, delta_m=100.0).pairs == 0


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_a_rigid_motion_is_no_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, motion = walk(seed), pose(10 * rng.normal(size=3), rng.normal(size=3))
    moved = motion @ truth
    rotation, translation = trajectory.align(moved[:, :3, 3], truth[:, :3, 3])
    back = np.linalg.inv(motion)
    assert np.linalg.norm(rotation_vector(rotation.T @ back[:3, :3])) < 1e-6
    assert translation == pytest.approx(back[:3, 3], abs=1e-6)
    assert trajectory.ate_m(moved[:, :3, 3], truth[:, :3, 3]) < 1e-9
    assert trajectory.start_aligned_ate_m(moved, truth) < 1e-9
    assert trajectory.rpe(moved, truth).position_m < 1e-9


@settings(deadline=None, max_examples=30)
@given(SEEDS, SEEDS)
def test_alignment_is_proper_and_no_other_is_better(seed: int, other: int) -> None:
    truth, rng = walk(seed)[:, :3, 3], np.random.default_rng(other)
    estimate = truth * [1, 1, -1] + rng.normal(size=truth.shape)  # a mirror image: only a reflection would undo it
    rotation, translation = trajectory.align(estimate, truth)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    best = np.sum((estimate @ rotation.T + translation - truth) ** 2)
    nudged = exp(0.01 * rng.normal(size=3)) @ rotation, translation + 0.01 * rng.normal(size=3)
    assert best <= np.sum((estimate @ nudged[0].T + nudged[1] - truth) ** 2)


def test_a_straight_line_can_be_aligned() -> None:
    truth = np.outer(np.arange(5.0), [1, 0, 0])
    assert trajectory.ate_m(truth[:, [1, 0, 2]], truth) < 1e-9


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (np.zeros((3, 3)), np.zeros((4, 3))),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.zeros((3, 2)), np.zeros((3, 2))),
        (np.full((3, 3), np.nan), np.zeros((3, 3))),
    ],
)
def test_what_cannot_be_compared_is_refused(estimate: Matrix, truth: Matrix) -> None:
    with pytest.raises(ValueError, match=r"estimate|finite"):
        trajectory.ate_m(estimate, truth)


@pytest.mark.parametrize("delta_m", [0.0, -1.0, math.nan])
def test_rpe_needs_a_stretch(delta_m: float) -> None:
    with pytest.raises(ValueError, match="longer than 0 m"):
        trajectory.rpe(walk(1), walk(1), delta_m)


@pytest.mark.parametrize("seed", range(20))
def test_evo_agrees(seed: int) -> None:
    metrics = pytest.importorskip("evo.core.metrics")
    from evo.core.trajectory import PosePath3D

    truth = walk(seed, 300)
    estimate = pose([3.0, -2, 1], [0.3, -0.5, 1.0]) @ disturbed(truth, seed + 1000)
    pair = PosePath3D(poses_se3=list(truth)), PosePath3D(poses_se3=list(estimate))

    for relation, name in (("translation_part", "position_m"), ("rotation_angle_deg", "rotation_deg")):
        judge = metrics.RPE(
            metrics.PoseRelation[relation], 5.0, metrics.Unit.meters, all_pairs=False, pairs_from_reference=True
        )
        judge.process_data(pair)
        ours = getattr(trajectory.rpe(estimate, truth, 5.0), name)
        assert ours == pytest.approx(judge.get_statistic(metrics.StatisticsType.rmse), abs=1e-9)

    for align, ours in (
        ("align", trajectory.ate_m(estimate[:, :3, 3], truth[:, :3, 3])),
        ("align_origin", trajectory.start_aligned_ate_m(estimate, truth)),
    ):
        aligned = PosePath3D(poses_se3=list(estimate))
        getattr(aligned, align)(pair[0])
        judge = metrics.APE(metrics.PoseRelation.translation_part)
        judge.process_data((pair[0], aligned))
        assert ours == pytest.approx(judge.get_statistic(metrics.StatisticsType.rmse), abs=1e-9)
