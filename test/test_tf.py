"""Tracks of poses and the tree of frames: known transforms, time, and what a robot gets wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros import transforms
from etr_ros.tf import Segments, Transform, TransformBuffer
from etr_ros.track import Track, TransformError
from etr_ros.types import Pose

MS = 1_000_000
S = 1000 * MS
YAW_90 = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))


def at_x(x_m: float, frame: str = "odom") -> Pose:
    return Pose((x_m, 0.0, 0.0), frame_id=frame)


def moved(pose: Pose, point: tuple[float, float, float]) -> list[float]:
    return (transforms.to_matrix(pose) @ [*point, 1.0])[:3].tolist()


@pytest.fixture
def robot() -> TransformBuffer:
    """A camera 0.2 m before and 0.5 m above the body, 30 degrees down; odometry from 0 to 2 m in 2 s at 10 Hz."""
    buffer = TransformBuffer(jump_m=2.0)
    pitch = transforms.quaternion(transforms.exp((0.0, math.radians(30), 0.0)))
    buffer.set_static("camera", Pose((0.2, 0.0, 0.5), pitch, "base_link"))
    buffer.set_static("optical", Pose((0.0, 0.0, 0.0), transforms.OPTICAL.quat_xyzw, "camera"))
    for step in range(21):
        buffer.set("base_link", 100 * S + step * 100 * MS, at_x(0.1 * step))
    return buffer


def test_a_point_on_the_optical_axis_is_where_the_pitched_camera_looks(robot: TransformBuffer) -> None:
    base_t_optical = robot.lookup("base_link", "optical", 0).pose
    assert base_t_optical.frame_id == "base_link"
    down = math.radians(30)
    assert moved(base_t_optical, (0, 0, 1)) == pytest.approx([0.2 + math.cos(down), 0, 0.5 - math.sin(down)])
    assert moved(base_t_optical, (1, 0, 0)) == pytest.approx([0.2, -1, 0.5])  # the picture's right is the robot's right
    there_and_back = transforms.compose(base_t_optical, robot.lookup("optical", "base_link", 0).pose)
    assert moved(there_and_back, (1, 2, 3)) == pytest.approx([1, 2, 3])


def test_moving_and_fixed_edges_are_chained_at_the_stamp(robot: TransformBuffer) -> None:
    found = robot.lookup("odom", "optical", 101 * S + 250 * MS)
    assert found.pose.position_m == pytest.approx((1.25 + 0.2, 0, 0.5))
    assert found.path == (("odom", "base_link", 0),)
    assert robot.newest_ns("odom", "optical") == 102 * S
    assert robot.newest_ns("base_link", "optical") is None
    assert robot.newest_ns("odom", "nowhere") is None


def test_siblings_meet_at_their_parent(robot: TransformBuffer) -> None:
    robot.set_static("lidar", Pose((0.0, 0.0, 1.0), YAW_90, "base_link"))
    assert moved(robot.lookup("lidar", "camera", 0).pose, (0, 0, 0)) == pytest.approx([0, -0.2, -0.5])


def test_a_frame_in_itself_needs_no_tree() -> None:
    assert TransformBuffer(2.0).lookup("a", "a", 5) == Transform(Pose((0.0, 0.0, 0.0), frame_id="a"))


@pytest.mark.parametrize(
    ("target", "source", "stamp_ns", "words"),
    [
        (
            "odom",
            "base_link",
            95 * S,
            "TF of 'base_link' in 'odom' begins 5.00 s after the image: synchronise the clocks",
        ),
        ("odom", "base_link", 102 * S + 350 * MS, "is 0.35 s behind the image: raise sensor.sync_ms"),
        ("odom", "base_link", 105 * S, "stopped 3.00 s before the image: check its publisher"),
        ("odom", "laser", 101 * S, "does not know the frame 'laser': publish it"),
        ("map", "camera", 101 * S, "does not know the frame 'map'"),
        ("wheel", "camera", 101 * S, "'wheel' and 'camera': the one hangs on 'axle', the other on 'odom'"),
    ],
)
def test_what_is_not_known_is_named(
    robot: TransformBuffer, target: str, source: str, stamp_ns: int, words: str
) -> None:
    robot.set_static("wheel", at_x(1.0, "axle"))
    with pytest.raises(TransformError, match=words):
        robot.lookup(target, source, stamp_ns)


def test_a_loop_is_named_and_ends(robot: TransformBuffer) -> None:
    robot.set_static("odom", at_x(1.0, "camera"))
    with pytest.raises(TransformError, match=r"loop .*camera -> base_link -> odom -> camera"):
        robot.lookup("camera", "base_link", 101 * S)
    assert robot.newest_ns("camera", "base_link") is None


@pytest.mark.parametrize(("child", "parent"), [("", "a"), ("a", ""), ("a", "a")])
def test_frames_need_two_names(child: str, parent: str) -> None:
    buffer = TransformBuffer(2.0)
    with pytest.raises(TransformError, match="two different frame names"):
        buffer.set_static(child, at_x(0, parent))
    with pytest.raises(TransformError, match="two different frame names"):
        buffer.set(child, 5, at_x(0, parent))


def test_another_parent_replaces_the_track(robot: TransformBuffer) -> None:
    robot.set("base_link", 103 * S, at_x(7.0, "map"))
    assert robot.lookup("map", "base_link", 103 * S).pose.position_m[0] == 7.0
    with pytest.raises(TransformError, match="does not know the frame 'odom'"):
        robot.lookup("odom", "base_link", 101 * S)


def test_clear_keeps_what_is_fixed(robot: TransformBuffer) -> None:
    before = robot.lookup("odom", "base_link", 101 * S)
    robot.clear()
    assert robot.lookup("base_link", "optical", 0)
    with pytest.raises(TransformError, match="has no poses"):
        robot.lookup("odom", "base_link", 101 * S)
    robot.set("base_link", 101 * S, at_x(1.0))
    assert robot.lookup("odom", "base_link", 101 * S).path != before.path


angles = st.floats(-3.0, 3.0)
lengths = st.floats(-50.0, 50.0)


@given(st.lists(st.tuples(lengths, lengths, lengths, angles, angles, angles), min_size=3, max_size=3))
def test_lookups_compose(edges: list[tuple[float, ...]]) -> None:
    """odom - a - b and odom - c, each at any place."""
    buffer = TransformBuffer(2.0)
    for child, parent, (x, y, z, *turn) in zip("abc", ("odom", "a", "odom"), edges, strict=True):
        buffer.set_static(child, Pose((x, y, z), transforms.quaternion(transforms.exp(turn)), parent))
    b_t_a, a_t_c, b_t_c = (buffer.lookup(*frames, 0).pose for frames in (("b", "a"), ("a", "c"), ("b", "c")))
    np.testing.assert_allclose(
        transforms.to_matrix(transforms.compose(b_t_a, a_t_c)), transforms.to_matrix(b_t_c), atol=1e-6
    )


# Tracks


def track(*samples: tuple[int, Pose]) -> Track:
    result = Track(jump_m=2.0)
    for stamp_ns, pose in samples:
        result.add(stamp_ns, pose)
    return result


def test_between_two_poses_position_and_rotation_are_interpolated() -> None:
    found = track((0, at_x(1.0)), (400 * MS, Pose((2.0, 0.0, 0.0), YAW_90, "odom"))).at(200 * MS, 0)
    assert found is not None
    assert found.pose.position_m == pytest.approx((1.5, 0, 0))
    assert found.pose.quat_xyzw == pytest.approx((0, 0, math.sin(math.pi / 8), math.cos(math.pi / 8)))
    assert found.pose.frame_id == "odom"


def test_beyond_the_ends_only_the_tolerance_counts() -> None:
    poses = track((0, at_x(1.0)), (100 * MS, at_x(2.0)))
    assert poses.at(110 * MS, 5 * MS) is None
    nearest = poses.at(110 * MS, 10 * MS)
    assert nearest is not None and nearest.pose == at_x(2.0) and nearest.stamp_ns == 100 * MS


@pytest.mark.parametrize(
    ("step", "is_jump"),
    [
        ((100 * MS, at_x(1.9)), False),
        ((100 * MS, at_x(2.1)), True),  # further than 2 m within 0.2 s
        ((400 * MS, at_x(3.9)), False),  # 10 m/s
        ((400 * MS, at_x(4.1)), True),
        ((100 * MS, Pose((0.0, 0.0, 0.0), YAW_90, "odom")), True),
        ((400 * MS, Pose((0.0, 0.0, 0.0), YAW_90, "odom")), False),
    ],
)
def test_nothing_is_interpolated_across_a_jump(step: tuple[int, Pose], is_jump: bool) -> None:
    poses = track((0, at_x(0.0)), step)
    assert (poses.at(step[0] // 2, 0) is None) == is_jump
    before, after = poses.at(0, 0), poses.at(step[0], 0)
    assert before is not None and after is not None
    assert (before.segment != after.segment) == is_jump


def test_a_hole_is_not_filled() -> None:
    poses = track((0, at_x(0.0)), (S, at_x(0.1)))
    assert poses.at(500 * MS, 20 * MS) is None
    assert "hole" in poses.why_not(500 * MS)


def test_repeated_and_unordered_poses_are_left_out() -> None:
    poses = track((0, at_x(0.0)), (100 * MS, at_x(1.0)), (100 * MS, at_x(9.0)), (50 * MS, at_x(9.0)))
    middle = poses.at(50 * MS, 0)
    assert middle is not None and middle.pose.position_m[0] == pytest.approx(0.5)


def test_when_time_goes_back_the_future_is_forgotten() -> None:
    poses = track((100 * S, at_x(5.0)), (90 * S, at_x(0.0)))
    assert poses.newest_ns == 90 * S
    assert poses.at(100 * S, 0) is None
    again = poses.at(90 * S, 0)
    assert again is not None and again.segment == 1


def test_history_is_bounded() -> None:
    poses = track(*((step * 100 * MS, at_x(0.0)) for step in range(1000)))
    assert poses.at(99 * S, 0)
    assert poses.at(80 * S, 0) is None
    assert "begins" in poses.why_not(80 * S)


def test_segments_grow_at_jumps_and_restarts_only() -> None:
    segments = Segments()
    assert not segments.follow(Transform(at_x(0.0), (("odom", "base", 0),)))
    assert not segments.follow(Transform(at_x(1.0), (("odom", "base", 0),)))
    assert segments.number == 0
    assert segments.follow(Transform(at_x(4.0), (("odom", "base", 1),))) == "3.00 m, 0 deg"
    assert segments.number == 1
    segments.restart()
    assert not segments.follow(Transform(at_x(0.0), (("odom", "base", 2),)))
    assert segments.number == 2
