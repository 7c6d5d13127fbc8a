"""The simulated robot with all its sensors: laps, drifting odometry, frames, recordings, bags."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vizdoom")

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from etr_ros.errors import DataError
from etr_ros.transforms import compose, rotation, to_matrix
from etr_ros.types import Pose
from examples.simulator.bag import CAMERA_FRAME, DEPTH_TOPIC, MOUNT_TOPIC, POSE_TOPIC, write_bag
from examples.simulator.camera import level_pose, yaw_rad
from examples.simulator.depth import to_millimetres
from examples.simulator.drive import SensedFrame, drive_with_sensors
from examples.simulator.noise import (
    HEADING_BIAS_DEG_PER_M,
    HEADING_WALK_DEG,
    POSITION_WALK_M,
    SCALE_BIAS,
    odometry_track,
)
from examples.simulator.plan import MIN_DRIVE_M, STEP_M, Round, plan_laps
from examples.simulator.record import recorded_frames, write_recording
from examples.simulator.space import MIN_CLEARANCE_M, FreeSpace
from examples.simulator.world import World
from test_simulator import CAMERA, ring

FRAMES = 4


def straight(metres: int) -> list[Pose]:
    return [level_pose(float(x), 0.0, 0.9, 0.0) for x in range(metres + 1)]


@pytest.fixture(scope="module")
def sensed() -> Iterator[list[SensedFrame]]:
    with World("MAP01", CAMERA) as world:
        way = plan_laps(FreeSpace(world.level.heights), 60.0, seed=1)
        some = Round(way.points[:40], way.yaw[:40])
        yield list(drive_with_sensors(world, some, "run", seed=5, rate_hz=1.0))


# odometry


def test_odometry_starts_at_the_identity_and_stands_still_with_the_robot() -> None:
    start = level_pose(3.0, -2.0, 1.0, 0.7)
    for pose in odometry_track([start] * 5, seed=1):
        assert pose.frame_id == "odom"
        assert np.allclose(to_matrix(pose), np.eye(4))


@given(x=st.floats(-50, 50), y=st.floats(-50, 50), yaw=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_odometry_does_not_depend_on_where_the_map_begins(x: float, y: float, yaw: float) -> None:
    here = [level_pose(0.5 * k, 0.1 * k, 0.0, 0.2 * k) for k in range(6)]
    there = [compose(level_pose(x, y, 2.0, yaw), pose) for pose in here]
    for one, other in zip(odometry_track(here, 3), odometry_track(there, 3), strict=True):
        assert np.allclose(to_matrix(one), to_matrix(other), atol=1e-6)


def test_odometry_drifts_as_its_constants_say() -> None:
    metres, runs = 40, 100
    ends = [odometry_track(straight(metres), seed)[-1] for seed in range(runs)]
    heading = np.degrees([yaw_rad(pose) for pose in ends])
    bias, walk = HEADING_BIAS_DEG_PER_M * metres, HEADING_WALK_DEG * math.sqrt(metres)
    assert heading.std() == pytest.approx(math.hypot(bias, walk), rel=0.25)
    assert abs(heading.mean()) < 4 * heading.std() / math.sqrt(runs)
    steps = [odometry_track(straight(1), seed)[-1].position_m[0] for seed in range(runs)]
    rms = math.sqrt(np.mean(np.square(np.subtract(steps, 1.0))))
    assert rms == pytest.approx(math.hypot(SCALE_BIAS, POSITION_WALK_M), rel=0.2)


def test_odometry_follows_from_the_seed() -> None:
    assert odometry_track(straight(5), 1) == odometry_track(straight(5), 1)
    assert odometry_track(straight(5), 1) != odometry_track(straight(5), 2)


# laps


def test_laps_come_back_in_both_directions_beside_the_old_way_and_see_new_places() -> None:
    way = plan_laps(FreeSpace(ring().heights), 240.0, seed=0)
    assert way.length_m == pytest.approx(240.0, rel=0.01)
    stops = way.every(0.5)
    number = np.arange(len(stops))
    distance = np.linalg.norm(stops[:, None, :2] - stops[None, :, :2], axis=2)
    distance[np.abs(np.subtract.outer(number, number)) < 40] = np.inf  # only what was seen ten metres ago or longer
    turn = np.abs(np.angle(np.exp(1j * np.subtract.outer(stops[:, 2], stops[:, 2]))))
    same, opposite = (np.where(mask, distance, np.inf).min(axis=1) for mask in (turn < 0.5, turn > 2.6))
    assert np.mean(same < 1.0) > 0.2
    assert np.mean(opposite < 1.0) > 0.2
    assert np.median(same[same < 2.0]) > 0.05


def test_laps_stay_in_free_space_and_turn_smoothly() -> None:
    space = FreeSpace(ring().heights)
    way = plan_laps(space, 240.0, seed=0)
    assert space.clearance_m(way.points).min() > 0.8 * MIN_CLEARANCE_M
    assert np.abs(np.diff(way.yaw)).max() / STEP_M < math.radians(150)


def test_laps_follow_from_the_seed() -> None:
    space = FreeSpace(ring().heights)
    one, same, other = (plan_laps(space, 100.0, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.points, same.points)
    assert np.array_equal(one.yaw, same.yaw)
    assert not np.array_equal(one.points, other.points)


def test_drive_too_short_for_laps_is_refused() -> None:
    with pytest.raises(DataError, match="60 m"):
        plan_laps(FreeSpace(ring().heights), MIN_DRIVE_M - 1, seed=0)


# frames


def test_frames_know_their_sensors_and_where_they_truly_are(sensed: list[SensedFrame]) -> None:
    assert len(sensed) == FRAMES
    assert len({each.frame.name for each in sensed}) == FRAMES
    for each in sensed:
        frame = each.frame
        assert frame.pose is not None and frame.camera is not None and frame.body_t_camera is not None
        assert frame.depth_m is not None and frame.depth_m.shape == frame.image.shape[:2]
        frame.camera.require_size(frame.image.shape[1], frame.image.shape[0])
        assert (frame.pose.frame_id, each.true_pose.frame_id) == ("odom", "map")
        # the camera looks where the body drives, from ahead of its origin and above it
        optical = compose(each.true_pose, frame.body_t_camera)
        body = rotation(each.true_pose.quat_xyzw)
        assert np.allclose(rotation(optical.quat_xyzw), np.column_stack([-body[:, 1], -body[:, 2], body[:, 0]]))
        lever = body.T @ np.subtract(optical.position_m, each.true_pose.position_m)
        assert lever.tolist() == pytest.approx([0.20, 0.0, 0.30])
    truth = odometry_track([each.true_pose for each in sensed], seed=5)
    assert [each.frame.pose for each in sensed] == truth


def test_recording_can_be_read_back(sensed: list[SensedFrame], tmp_path: Path) -> None:
    assert write_recording(sensed, tmp_path / "run") == FRAMES
    for read, written in zip(recorded_frames(tmp_path / "run"), sensed, strict=True):
        one, other = read.frame, written.frame
        assert (one.stamp_ns, one.name, one.session) == (other.stamp_ns, other.name, other.session)
        assert (one.camera, one.body_t_camera) == (other.camera, other.body_t_camera)
        for a, b in ((one.pose, other.pose), (read.true_pose, written.true_pose)):
            assert a is not None and b is not None
            assert a.frame_id == b.frame_id
            assert np.allclose(to_matrix(a), to_matrix(b), atol=1e-6)
        assert one.depth_m is not None and other.depth_m is not None
        assert one.depth_m == pytest.approx(other.depth_m, abs=0.0006, nan_ok=True)
        assert np.abs(one.image.astype(int) - other.image).mean() < 12


def test_recording_is_never_overwritten_and_damage_is_told(sensed: list[SensedFrame], tmp_path: Path) -> None:
    write_recording(sensed, tmp_path / "run")
    with pytest.raises(DataError, match="exists"):
        write_recording(sensed, tmp_path / "run")
    with pytest.raises(DataError, match="lacks"):
        write_recording([SensedFrame(replace(sensed[0].frame, depth_m=None), sensed[0].true_pose)], tmp_path / "poor")
    (tmp_path / "run" / "run_00001.png").unlink()
    with pytest.raises(DataError, match="run_00001"):
        list(recorded_frames(tmp_path / "run"))
    (tmp_path / "run" / "camera.json").write_text("{}")
    with pytest.raises(DataError, match="no recording"):
        list(recorded_frames(tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_bag_has_depth_odometry_and_where_the_camera_sits(sensed: list[SensedFrame], tmp_path: Path) -> None:
    frames = (dataclasses.replace(each.frame, depth_m=np.asfortranarray(each.frame.depth_m)) for each in sensed)
    write_bag(frames, tmp_path / "bag", CAMERA)  # whatever the order of the pixels in memory
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(tmp_path / "bag") as bag:
        messages = [(c.topic, store.deserialize_cdr(data, c.msgtype)) for c, _, data in bag.messages()]
    by_topic = {topic: [message for name, message in messages if name == topic] for topic, _ in messages}

    for each, message in zip(sensed, by_topic[DEPTH_TOPIC], strict=True):
        assert (message.encoding, message.header.frame_id, message.is_bigendian) == ("16UC1", CAMERA_FRAME, 0)
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == each.frame.stamp_ns
        sent = message.data.view("<u2").reshape(message.height, message.step // 2)
        assert each.frame.depth_m is not None
        assert np.array_equal(sent, to_millimetres(each.frame.depth_m))
    assert {(m.header.frame_id, m.child_frame_id) for m in by_topic[POSE_TOPIC]} == {("odom", "base_link")}

    assert messages[0][0] == MOUNT_TOPIC
    (mount,) = by_topic[MOUNT_TOPIC][0].transforms
    assert len(by_topic[MOUNT_TOPIC]) == 1
    assert (mount.header.frame_id, mount.child_frame_id) == ("base_link", CAMERA_FRAME)
    shift, turn = mount.transform.translation, mount.transform.rotation
    body_t_camera = sensed[0].frame.body_t_camera
    assert body_t_camera is not None
    assert body_t_camera.position_m == (shift.x, shift.y, shift.z)
    assert body_t_camera.quat_xyzw == (turn.x, turn.y, turn.z, turn.w)
