"""What each back end is told: direction, information, ids and stamps, field by field; and the files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from etr_ros import transforms
from etr_ros.backends import cslam, files, initialpose, pose_graph, rtabmap
from etr_ros.backends.nodes import GraphNodes
from etr_ros.backends.relative import RelativePose, UnsuitableLoopError, metric_pose
from etr_ros.backends.waiting import NodeLoop, WaitingLoops
from etr_ros.config import LoopConfig
from etr_ros.errors import DataError
from etr_ros.types import LoopClosure, Place, Pose
from loop_maker import COVARIANCE, HALF, MATCH_T_QUERY, T0, S, make_loop, place, with_geometry


def local_errors(a_t_b: Pose, covariance: np.ndarray, inverted: bool) -> np.ndarray:
    """(N, 6) samples of e in a_t_b exp(e), or in its inverse, when the pose is disturbed as `covariance` says."""
    true = transforms.to_matrix(a_t_b)
    errors = []
    for draw in np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance, 10_000):
        noisy = true.copy()
        noisy[:3, 3] += draw[:3]
        noisy[:3, :3] = transforms.exp(draw[3:]) @ true[:3, :3]
        step = true @ np.linalg.inv(noisy) if inverted else np.linalg.inv(true) @ noisy
        errors.append([*step[:3, 3], *transforms.rotation_vector(step[:3, :3])])
    return np.array(errors)


def fits(information: np.ndarray, errors: np.ndarray) -> bool:
    """Whether the errors, whitened with this information, have unit covariance."""
    white = errors @ np.linalg.cholesky(information)
    return np.allclose(np.cov(white.T), np.eye(6), atol=0.04)


# Which loops may enter a pose graph


@pytest.mark.parametrize(
    ("loop", "reason"),
    [
        (with_geometry(match_t_query=None), "no relative pose"),
        (with_geometry(is_metric=False), "not in metres"),
        (with_geometry(covariance=None), "covariance"),
        (with_geometry(covariance=np.zeros((6, 6))), "covariance"),
        (with_geometry(covariance=np.full((6, 6), np.nan)), "covariance"),
        (with_geometry(covariance=-COVARIANCE), "covariance"),
        (with_geometry(match_t_query=Pose((math.nan, 0.0, 0.0))), "not finite"),
    ],
)
def test_a_loop_without_a_metric_pose_is_told_to_nobody(loop: LoopClosure, reason: str) -> None:
    for tell in (metric_pose, lambda loop: pose_graph.to_edge(loop, 0), WaitingLoops(GraphNodes(S), 5).add):
        with pytest.raises(UnsuitableLoopError, match=reason):
            tell(loop)


@pytest.mark.parametrize("inverted", [False, True])
def test_information_fits_the_error_that_optimizers_compute(inverted: bool) -> None:
    relative = RelativePose(MATCH_T_QUERY, COVARIANCE)
    errors = local_errors(MATCH_T_QUERY, COVARIANCE, inverted)
    information = (relative.inverse() if inverted else relative).information()
    assert fits(information, errors)
    assert (information == information.T).all()


# RTAB-Map, Swarm-SLAM, Hydra


def test_rtabmap_link() -> None:
    link = rtabmap.to_link(NodeLoop(40, 12, RelativePose(MATCH_T_QUERY, COVARIANCE)))
    assert (link.from_id, link.to_id, link.type) == (40, 12, 4)
    assert link.transform.position_m == pytest.approx((-2.0, 0.0, 0.0))  # the match, seen from the query
    assert link.transform.quat_xyzw == pytest.approx((0.0, 0.0, -HALF, HALF))
    assert fits(np.reshape(link.information, (6, 6)), local_errors(MATCH_T_QUERY, COVARIANCE, inverted=True))


def test_swarm_slam_closure() -> None:
    closure = cslam.to_closure(NodeLoop(40, 12, RelativePose(MATCH_T_QUERY, COVARIANCE)))
    assert closure == cslam.IntraRobotLoopClosure(12, 40, True, MATCH_T_QUERY)


def test_hydra_edge() -> None:
    edge = pose_graph.to_edge(make_loop(), robot_id=2)
    assert (edge.key_from, edge.key_to, edge.stamp_ns) == (T0 + 60 * S, T0, T0 + 60 * S)
    assert (edge.robot_from, edge.robot_to, edge.type) == (2, 2, 1)
    assert edge.pose == MATCH_T_QUERY  # to_T_from
    assert edge.covariance == tuple(COVARIANCE.ravel())
    assert pose_graph.to_edge(make_loop(accepted=False, reason="alone"), 2).type == 3


def test_hydra_is_not_told_of_other_sessions() -> None:
    with pytest.raises(UnsuitableLoopError, match="another session"):
        pose_graph.to_edge(make_loop(match=place(3, T0, "yesterday")), 0)
    with pytest.raises(UnsuitableLoopError, match="1970"):
        pose_graph.to_edge(make_loop(match=place(3, -1)), 0)


# Localizers on a floor


def test_initial_pose_is_on_the_floor() -> None:
    tilted = transforms.quaternion(transforms.exp([0.0, 0.0, 0.7]) @ transforms.exp([0.0, 0.1, 0.0]))
    covariance = np.arange(36.0).reshape(6, 6) * 0.01 + np.eye(6) * 10
    pose, row = initialpose.to_floor(Pose((1.0, 2.0, 0.3), tilted, "map"), covariance)
    assert pose.position_m == (1.0, 2.0, 0.0) and pose.frame_id == "map"
    assert pose.quat_xyzw == pytest.approx((0.0, 0.0, math.sin(0.35), math.cos(0.35)))
    planar = np.reshape(row, (6, 6))
    assert planar[0, 0] == covariance[0, 0] and planar[5, 1] == covariance[5, 1] and planar[5, 5] == covariance[5, 5]
    assert not planar[2:5].any() and not planar[:, 2:5].any()


@pytest.mark.parametrize(
    ("pose", "covariance"),
    [
        (Pose((1.0, 2.0, 0.0)), np.zeros((6, 6))),
        (Pose((1.0, 2.0, 0.0)), np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])),
        (Pose((1.0, 2.0, 0.0)), np.full((6, 6), np.nan)),
        (Pose((math.inf, 2.0, 0.0)), np.eye(6)),
        (Pose((1.0, 2.0, 0.0), frame_id=""), np.eye(6)),
    ],
)
def test_initial_pose_that_would_mislead_is_refused(pose: Pose, covariance: np.ndarray) -> None:
    with pytest.raises(initialpose.UnsuitablePoseError):
        initialpose.to_floor(pose, covariance)


# Files


def graph() -> tuple[list[Place], list[files.Edge]]:
    keyframes = [place(3, T0), place(5, T0 + 30 * S), place(7, T0 + 60 * S)]
    step = RelativePose(Pose((2.0, 0.0, 0.0)), np.eye(6) * 0.01)
    loops = [make_loop(), make_loop(accepted=False), make_loop(match=place(99, T0)), with_geometry(is_metric=False)]
    return keyframes, [files.Edge(0, 1, step), files.Edge(1, 2, step), *files.loop_edges(keyframes, loops)]


def test_odometry_joins_neighbours_of_one_piece_as_sure_as_the_way_is_short() -> None:
    keyframes = [place(number, T0 + number * 30 * S) for number in range(4)]
    edges = list(files.odometry_edges(keyframes, [0, 0, 1, 1], LoopConfig()))
    assert [(edge.from_row, edge.to_row) for edge in edges] == [(0, 1), (2, 3)]
    for edge in edges:
        a, b = keyframes[edge.from_row].pose, keyframes[edge.to_row].pose
        assert a is not None and b is not None
        assert np.allclose(transforms.to_matrix(transforms.compose(a, edge.relative.a_t_b)), transforms.to_matrix(b))
    nearer = dataclasses.replace(keyframes[1], pose=Pose((0.1, 0.0, 0.0)))
    near = next(files.odometry_edges([keyframes[0], nearer], [0, 0], LoopConfig()))
    assert (np.diag(near.relative.covariance) < np.diag(edges[0].relative.covariance)).all()


def test_g2o_lines(tmp_path: Path) -> None:
    keyframes, edges = graph()
    files.write_g2o(tmp_path / "a.g2o", keyframes, edges)
    files.write_g2o(tmp_path / "b.g2o", keyframes, edges)
    lines = (tmp_path / "a.g2o").read_text().splitlines()
    assert lines[1] == "VERTEX_SE3:QUAT 1 5.0 0.0 0.0 0.0 0.0 0.0 1.0"
    assert [line.split()[:3] for line in lines[3:]] == [["EDGE_SE3:QUAT", a, b] for a, b in ("01", "12", "02")]
    assert [float(word) for word in lines[5].split()[3:10]] == [*MATCH_T_QUERY.position_m, *MATCH_T_QUERY.quat_xyzw]
    assert len(lines[5].split()) == 3 + 7 + 21
    assert (tmp_path / "a.g2o").read_bytes() == (tmp_path / "b.g2o").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.g2o", "b.g2o"]


def test_gtsam_reads_the_same_graph(tmp_path: Path) -> None:
    gtsam = pytest.importorskip("gtsam")
    keyframes, edges = graph()
    files.write_g2o(tmp_path / "graph.g2o", keyframes, edges)
    factors, values = gtsam.readG2o(str(tmp_path / "graph.g2o"), True)
    assert factors.size() == 3
    for row, keyframe in enumerate(keyframes):
        assert np.allclose(values.atPose3(row).matrix(), transforms.to_matrix(keyframe.pose))
    loop = factors.at(2)
    assert loop.keys() == [0, 2]
    assert np.allclose(loop.measured().matrix(), transforms.to_matrix(MATCH_T_QUERY))
    rotation_first = local_errors(MATCH_T_QUERY, COVARIANCE, inverted=False)[:, [3, 4, 5, 0, 1, 2]]
    assert fits(loop.noiseModel().information(), rotation_first)


def test_tum_lines(tmp_path: Path) -> None:
    files.write_tum(tmp_path / "poses.txt", [place(2, T0 + 5), place(4, 0)])
    assert (tmp_path / "poses.txt").read_text().splitlines() == [
        "1700000000.000000005 2.0 0.0 0.0 0.0 0.0 0.0 1.0",
        "0.000000000 4.0 0.0 0.0 0.0 0.0 0.0 1.0",
    ]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.g2o"
    path.write_text("old")
    unposed = dataclasses.replace(place(3, T0), pose=None)
    keyframes, edges = graph()
    with pytest.raises(DataError, match="has no pose"):
        files.write_g2o(path, [unposed], [])
    with pytest.raises(DataError, match="an edge from 1 to 2"):
        files.write_g2o(path, keyframes[:2], edges)
    with pytest.raises(DataError, match="cannot write"):
        files.write_tum(tmp_path / "no folder" / "poses.txt", keyframes)
    assert path.read_text() == "old"
