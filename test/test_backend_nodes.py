"""Loops for back ends that count their own nodes: which node, how far from it, and how long to wait."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import transforms
from etr_ros.backends.nodes import GraphNode, GraphNodes
from etr_ros.backends.relative import RelativePose
from etr_ros.backends.waiting import WaitingLoops
from etr_ros.types import Pose
from loop_maker import T0, S, make_loop


def pose_at(seconds: float) -> Pose:
    """An even motion: 0.5 m/s forward and 0.2 rad/s, in steps of one second."""
    step = Pose((0.5, 0.0, 0.0), transforms.quaternion(transforms.exp([0.0, 0.0, 0.2])), "odom")
    pose = Pose((1.0, 2.0, 0.0), frame_id="odom")
    for _ in range(int(seconds)):
        pose = transforms.compose(pose, step)
    share = seconds - int(seconds)
    part = Pose((0.5 * share, 0.0, 0.0), transforms.quaternion(transforms.exp([0.0, 0.0, 0.2 * share])), "odom")
    return transforms.compose(pose, part)


def driven(last: int, first: int = 0, tolerance_s: float = 1.0) -> GraphNodes:
    nodes = GraphNodes(round(tolerance_s * S))
    for second in range(first, last + 1):
        nodes.learn(GraphNode(100 + second, T0 + second * S, pose_at(second)))
    return nodes


def test_anchor_is_the_nearest_node_and_what_was_moved_since() -> None:
    nodes = driven(10)
    for seconds, node_id in [(3.0, 103), (3.4, 103), (3.6, 104), (0.1, 100), (9.9, 110)]:
        anchor = nodes.anchor(T0 + round(seconds * S))
        assert anchor is not None and anchor.node_id == node_id
        body = transforms.compose(pose_at(node_id - 100), anchor.node_t_body)
        assert np.allclose(transforms.to_matrix(body), transforms.to_matrix(pose_at(seconds)), atol=1e-9)


def test_stamps_in_floating_point_seconds_are_the_same_picture() -> None:
    nodes = GraphNodes(S)
    nodes.learn(GraphNode(5, round((T0 + 123_456_789) / 1e9 * 1e9), pose_at(0)))
    anchor = nodes.anchor(T0 + 123_456_789)
    assert anchor is not None and anchor.node_id == 5 and nodes.is_settled(T0 + 123_456_789)


def test_no_anchor_far_from_nodes_or_across_odometry_segments() -> None:
    nodes = driven(3)
    assert nodes.anchor(T0 - S // 10) is None  # nothing before it tells how the robot moved
    assert nodes.anchor(T0 + 3 * S + S // 10) is None
    nodes.learn(GraphNode(104, T0 + 4 * S, pose_at(0), segment=1))
    assert nodes.anchor(T0 + 3 * S + S // 10) is None
    assert nodes.anchor(T0 + 4 * S) is not None
    nodes.learn(GraphNode(105, T0 + 9 * S, pose_at(1), segment=1))
    assert nodes.anchor(T0 + 6 * S) is None
    assert GraphNodes(S).anchor(T0) is None


def test_nodes_made_before_are_learned_later() -> None:
    nodes = driven(5, first=5)
    for second in range(5):
        nodes.learn(GraphNode(100 + second, T0 + second * S, pose_at(second)))
    assert len(nodes) == 6 and nodes.anchor(T0 + 2 * S) is not None


@pytest.mark.parametrize("node", [GraphNode(111, T0 + S, pose_at(1)), GraphNode(100, T0 + 60 * S, pose_at(0))])
def test_nodes_are_forgotten_when_time_or_numbers_begin_anew(node: GraphNode) -> None:
    nodes = driven(10)
    nodes.learn(node)
    assert len(nodes) == 1 and nodes.newest_ns == node.stamp_ns


@settings(deadline=None)
@given(st.floats(0.0, 9.9), st.floats(20.0, 29.9))
def test_loop_between_nodes_leads_to_the_same_place(match_s: float, query_s: float) -> None:
    waiting = WaitingLoops(driven(31), 5)
    relative = transforms.between(pose_at(match_s), pose_at(query_s))
    loop = make_loop(T0 + round(query_s * S), T0 + round(match_s * S))
    waiting.add(dataclasses.replace(loop, geometry=dataclasses.replace(loop.geometry, match_t_query=relative)))
    (found,) = waiting.settle().found
    expected = transforms.between(pose_at(found.match_id - 100), pose_at(found.query_id - 100))
    # moments within 1 ms of a node count as that node's
    assert np.allclose(transforms.to_matrix(found.relative.a_t_b), transforms.to_matrix(expected), atol=5e-3)


def test_covariance_of_a_moved_loop_has_the_lever_arm() -> None:
    relative = RelativePose(Pose((0.0, 0.0, 0.0)), np.diag([1e-6] * 5 + [0.01]))
    moved = relative.between(Pose((0.0, 0.0, 0.0)), Pose((3.0, 0.0, 0.0)))
    assert moved.a_t_b.position_m == pytest.approx((3.0, 0.0, 0.0))
    assert moved.covariance[1, 1] == pytest.approx(9 * 0.01, rel=1e-3)


def test_a_loop_waits_until_its_nodes_are_there() -> None:
    nodes = driven(10)
    waiting = WaitingLoops(nodes, 5)
    assert waiting.add(make_loop(T0 + 10 * S + S // 2, T0 + 2 * S)) == ""
    assert waiting.settle().found == waiting.settle().given_up == ()
    assert len(waiting) == 1
    nodes.learn(GraphNode(111, T0 + 11 * S, pose_at(11)))
    (found,) = waiting.settle().found
    assert (found.query_id in (110, 111), found.match_id, len(waiting)) == (True, 102, 0)


def test_a_loop_is_given_up_with_the_reason() -> None:
    waiting = WaitingLoops(driven(10), 2)
    waiting.add(make_loop(T0 + 9 * S, T0 - 100 * S))
    waiting.add(make_loop(T0 + 9 * S, T0 + 9 * S + S // 4))
    settled = waiting.settle()
    assert settled.found == () and len(waiting) == 0
    assert "no node at 1699999900.000 s" in settled.given_up[0]
    assert "both places are its node 109" in settled.given_up[1]


def test_the_oldest_waiting_loop_goes_first() -> None:
    waiting = WaitingLoops(GraphNodes(S), 2)
    assert [waiting.add(make_loop(T0 + number * S)) for number in range(2)] == ["", ""]
    assert "from 1700000000.000 s" in waiting.add(make_loop(T0 + 2 * S))
    assert len(waiting) == 2
