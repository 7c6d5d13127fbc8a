"""The pose graph of the example back end: what it makes of odometry, of loops, and of loops that are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("gtsam")

import gtsam

from etr_ros.errors import DataError
from etr_ros.trajectory import ate_m
from etr_ros.transforms import between, exp, quaternion, rotation, to_matrix
from etr_ros.types import Pose
from examples.back_end.factors import OdometryNoise, between_factor, sigmas_off, tangent_covariance
from examples.back_end.pose_graph import LoopResult, PoseGraph
from lap_drive import COVARIANCE, T0, TICK, LapDrive, lap_drive, planar

SEEDS = st.integers(0, 2**32 - 1)


def random_pose(rng: np.random.Generator) -> Pose:
    x, y, z = (3 * rng.normal(size=3)).tolist()
    return Pose((x, y, z), quaternion(exp(rng.normal(size=3))))


def straight(metres: int, **options: object) -> PoseGraph:
    """A graph of a drive along x at 1 m/s, 10 poses per second."""
    graph = PoseGraph(**options)  # type: ignore[arg-type]
    for tick in range(10 * metres + 1):
        graph.add_odometry(T0 + tick * TICK, planar(0.1 * tick, 0.0, 0.0))
    return graph


def solve(drive: LapDrive) -> tuple[PoseGraph, list[LoopResult]]:
    graph, results = PoseGraph(), []
    loops = {loop.query: loop for loop in drive.loops}
    for row, pose in enumerate(drive.odometry):
        results += graph.add_odometry(drive.stamp_ns(row), pose)
        loop = loops.get(row)
        if loop:
            stamps = drive.stamp_ns(loop.match), drive.stamp_ns(loop.query)
            results += graph.add_loop(*stamps, loop.match_t_query, COVARIANCE)
    return graph, results


def ates(drive: LapDrive, graph: PoseGraph) -> tuple[float, float]:
    """Of the odometry and of the corrected trajectory, in metres."""
    truth, odometry = drive.matrices
    corrected = graph.trajectory()[1]
    return ate_m(odometry[:, :3, 3], truth[:, :3, 3]), ate_m(corrected[:, :3, 3], truth[:, :3, 3])


@settings(deadline=None)
@given(SEEDS)
def test_covariance_goes_over_into_the_tangent_of_gtsam(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose, error = random_pose(rng), 1e-5 * rng.normal(size=6)  # (dt, w) as in etr_ros.transforms
    off = np.eye(4)
    off[:3, :3] = exp(error[3:]) @ rotation(pose.quat_xyzw)
    off[:3, 3] = np.array(pose.position_m) + error[:3]
    tangent = gtsam.Pose3(to_matrix(pose)).localCoordinates(gtsam.Pose3(off))
    ours = tangent_covariance(np.outer(error, error), pose)
    assert np.abs(ours - np.outer(tangent, tangent)).max() < 1e-4 * np.abs(ours).max()


@settings(deadline=None)
@given(SEEDS)
def test_distance_of_a_measurement_is_that_of_its_covariance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_pose(rng), random_pose(rng)
    a_t_b = between(a, b)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]  # none of six sigmas so small that second order counts
    root = axes * rng.uniform(3e-5, 3e-4, 6)
    error = root @ rng.normal(size=6)
    x, y, z = (np.array(a_t_b.position_m) + error[:3]).tolist()
    measured = Pose((x, y, z), quaternion(exp(error[3:]) @ rotation(a_t_b.quat_xyzw)))
    covariance = root @ root.T
    values = gtsam.Values()
    values.insert(0, gtsam.Pose3(to_matrix(a)))
    values.insert(1, gtsam.Pose3(to_matrix(b)))
    distance = math.sqrt(error @ np.linalg.inv(covariance) @ error)
    assert sigmas_off(between_factor(0, 1, measured, covariance), values) == pytest.approx(distance, rel=0.05)


def test_without_loops_the_odometry_is_the_answer() -> None:
    drive = lap_drive(seed=1, laps=1)
    graph, _ = solve(drive)
    stamps, poses = graph.trajectory()
    assert stamps.tolist() == [drive.stamp_ns(row) for row in range(len(drive.odometry))]
    assert np.abs(poses - drive.matrices[1]).max() < 1e-9
    assert np.abs(graph.latest() - poses[-1]).max() < 1e-12


def test_nothing_before_the_first_odometry() -> None:
    graph = PoseGraph()
    assert [len(part) for part in graph.trajectory()] == [0, 0]
    with pytest.raises(DataError, match="no odometry yet"):
        graph.latest()


def test_keyframes_come_with_distance_and_with_turns() -> None:
    graph = straight(5)
    assert len(graph.keyframes()[0]) == 11
    for tick in range(1, 10):
        graph.add_odometry(T0 + (50 + tick) * TICK, planar(5.0, 0.0, math.radians(10 * tick)))
    assert len(graph.keyframes()[0]) == 11 + 4


def test_a_loop_means_where_the_query_was_seen_from_the_match() -> None:
    graph = straight(10, noise=OdometryNoise(position_m=5.0, rotation_deg=50.0))  # so the loop decides
    seen = planar(8.0, 1.0, math.radians(20))
    (result,) = graph.add_loop(T0, T0 + 100 * TICK, seen, COVARIANCE)
    assert result.reason == ""
    assert result.shift_m == pytest.approx(math.hypot(2.0, 1.0), abs=0.01)
    assert np.abs(graph.latest() - to_matrix(seen)).max() < 0.01


def test_stamps_between_keyframes_and_between_odometry_are_met_exactly() -> None:
    # a curve in space, driven without drift: a true loop fits wherever its stamps lie
    def true_pose(tick: float) -> Pose:
        turn = quaternion(exp([0.0, 0.0, 0.1 * tick]))
        corners = [Pose((0.15 * t, 0.05 * t * t, 0.01 * t), turn) for t in (math.floor(tick), math.floor(tick) + 1)]
        low, high = (np.array(corner.position_m) for corner in corners)
        x, y, z = (low + (tick % 1) * (high - low)).tolist()
        return Pose((x, y, z), turn)

    graph = PoseGraph()
    for tick in range(30):
        graph.add_odometry(T0 + tick * TICK, true_pose(tick))
    before = graph.trajectory()[1]
    for match, query in ((1.0, 22.0), (2.3, 17.75), (9.5, 4.25)):
        loop = between(true_pose(match), true_pose(query))
        (result,) = graph.add_loop(T0 + round(match * TICK), T0 + round(query * TICK), loop, COVARIANCE)
        assert result.reason == ""
    assert graph.sigmas_off() == pytest.approx([0, 0, 0], abs=1e-4)
    assert np.abs(graph.trajectory()[1] - before).max() < 1e-5


@pytest.mark.parametrize(("seed", "noise"), [(1, 0.0), (2, 1.0)])
def test_loops_take_the_drift_away(seed: int, noise: float) -> None:
    drive = lap_drive(seed, noise=noise)
    graph, results = solve(drive)
    assert all(result.reason == "" for result in results) and len(results) == len(drive.loops)
    before, after = ates(drive, graph)
    assert before > 0.5
    assert after < before / 5


@pytest.mark.parametrize(("seed", "false_share"), [(4, 0.1), (5, 0.2)])
def test_false_loops_do_not_bend_the_trajectory(seed: int, false_share: float) -> None:
    drive = lap_drive(seed, false_share=false_share)
    is_true = np.array([loop.is_true for loop in drive.loops])
    assert 2 <= (~is_true).sum() < len(is_true) / 3
    graph, _ = solve(drive)
    before, after = ates(drive, graph)
    assert after < before / 5
    sigmas = graph.sigmas_off()
    assert sigmas[is_true].max() < sigmas[~is_true].min(), "the false ones can be told"


def test_same_calls_same_result() -> None:
    drive = lap_drive(seed=7, laps=2, false_share=0.1)
    first, second = (solve(drive)[0].trajectory()[1] for _ in range(2))
    assert np.array_equal(first, second)


def test_a_loop_waits_for_its_odometry() -> None:
    graph = straight(2)
    assert graph.add_loop(T0, T0 + 25 * TICK, planar(2.5, 0.0, 0.0), COVARIANCE) == []
    assert graph.waiting == 1
    assert graph.add_odometry(T0 + 24 * TICK, planar(2.4, 0.0, 0.0)) == []
    (result,) = graph.add_odometry(T0 + 26 * TICK, planar(2.6, 0.0, 0.0))
    assert (result.reason, graph.waiting) == ("", 0)
    assert result.loop.query_stamp_ns == T0 + 25 * TICK


def test_only_so_many_loops_wait() -> None:
    graph = PoseGraph(max_waiting=2)
    results = [graph.add_loop(T0 + n, T0 + n + TICK, planar(0.0, 0.0, 0.0), COVARIANCE) for n in range(3)]
    assert results[:2] == [[], []]
    (oldest,) = results[2]
    assert (oldest.loop.match_stamp_ns, oldest.reason) == (T0, "more than 2 loops wait for odometry")
    assert graph.waiting == 2


def with_value(row: int, column: int, value: float) -> NDArray[np.float64]:
    covariance = COVARIANCE.copy()
    covariance[row, column] = value
    return covariance


@pytest.mark.parametrize(
    ("match", "query", "position", "covariance", "reason"),
    [
        (0, 50, 5.0, with_value(2, 2, math.nan), "its covariance was not computed"),
        (0, 50, 5.0, np.eye(3), "its covariance was not computed"),
        (0, 50, 5.0, np.zeros((6, 6)), "its covariance is not positive definite"),
        (0, 50, 5.0, with_value(0, 0, -1.0), "its covariance is not positive definite"),
        (0, 50, 5.0, with_value(0, 1, 0.01), "its covariance is not positive definite"),
        (0, 50, math.inf, COVARIANCE, "its relative pose has NaN, huge numbers, or no unit quaternion"),
        (-1, 50, 5.0, COVARIANCE, "no odometry at the stamp of its match"),
        (0, 55, 5.0, COVARIANCE, "no odometry at the stamp of its query"),
        (48, 50, 0.2, COVARIANCE, "both of its ends are at the same keyframe"),
    ],
)
def test_loops_that_cannot_be_used_are_named(
    match: int, query: int, position: float, covariance: NDArray[np.float64], reason: str
) -> None:
    graph = straight(5)
    graph.add_odometry(T0 + 60 * TICK, planar(6.0, 0.0, 0.0))  # after a hole of 1 s
    before = graph.trajectory()[1]
    stamps = T0 + match * TICK, T0 + query * TICK
    (result,) = graph.add_loop(*stamps, planar(position, 0.0, 0.0), covariance)
    assert result.reason == reason
    assert np.array_equal(graph.trajectory()[1], before)


@pytest.mark.parametrize(
    ("tick", "pose", "reason"),
    [
        (50, planar(5.0, 0.0, 0.0), "0.000 s back in time"),
        (20, planar(2.0, 0.0, 0.0), "3.000 s back in time"),
        (51, planar(math.nan, 0.0, 0.0), "NaN"),
        (51, Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)), "no unit quaternion"),
    ],
)
def test_bad_odometry_changes_nothing(tick: int, pose: Pose, reason: str) -> None:
    graph = straight(5)
    before = graph.trajectory()[1]
    with pytest.raises(DataError, match=reason):
        graph.add_odometry(T0 + tick * TICK, pose)
    assert np.array_equal(graph.trajectory()[1], before)


def test_odometry_noise_grows_with_the_way_and_with_turns() -> None:
    noise = OdometryNoise(position_m=0.1, rotation_deg=2.0, turn_m=0.5)
    near, far, turn = planar(1.0, 0.0, 0.0), planar(4.0, 0.0, 0.0), planar(0.0, 0.0, 2.0)
    assert np.sqrt(np.diag(noise.covariance(near))) == pytest.approx([0.1] * 3 + [math.radians(2.0)] * 3)
    assert noise.covariance(far) == pytest.approx(4 * noise.covariance(near))
    assert noise.covariance(turn) == pytest.approx(noise.covariance(near))
