"""Odometry, TF and time over a real DDS: where the robot was at an image's stamp, and what is said if unknown."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator

import pytest
from geometry_msgs.msg import TransformStamped
from sensor_rig import MOUNT, MS, Rig, S, until
from sensor_source import START_NS

import sensor_messages as messages
from sensor_messages import CAMERA_FRAME

needs_tf = pytest.mark.skipif(not importlib.util.find_spec("tf2_msgs"), reason="tf2_msgs is not installed")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def _stopped(rig: Rig) -> Iterator[None]:
    yield
    rig.stop()


def drive(rig: Rig, start: int, count: int = 5, x_m: float = 0.0, child: str = "base_link") -> None:
    """Odometry at 20 Hz, 1 m/s."""
    steps = [messages.odometry(start + step * 50 * MS, x_m + step * 0.05, child=child) for step in range(count)]
    rig.send(rig.source.odometry, *steps)


def test_odometry_jumps_and_stops(rig: Rig) -> None:
    sensors = rig.listen(odom_topic="/odom")
    drive(rig, START_NS)
    before = rig.eventually(lambda frame: frame.pose, START_NS + 125 * MS)
    assert before.pose is not None and before.pose.position_m[0] == pytest.approx(0.125)
    assert sensors.segment == 0
    drive(rig, START_NS + 250 * MS, x_m=7.0)
    after = rig.eventually(lambda frame: frame.pose, START_NS + 275 * MS)
    assert after.pose is not None and after.pose.position_m[0] == pytest.approx(7.025)
    assert sensors.segment == 1
    assert sensors.problems() == ["odometry jumped (6.90 m, 0 deg since the last image): check its source"]
    assert rig.complete(START_NS + 225 * MS).pose is None, "no pose is made up in the middle of the jump"
    rig.eventually(lambda frame: frame.pose, START_NS + 450 * MS)
    assert rig.complete(START_NS + 3 * S).pose is None
    assert "odometry on /odom stopped 2.55 s before the image" in sensors.problems()[-1]


def test_listening_again_begins_a_segment_and_notices_that_time_went_back(rig: Rig) -> None:
    sensors = rig.listen(odom_topic="/odom")
    drive(rig, START_NS + 10 * S)
    rig.eventually(lambda frame: frame.pose, START_NS + 10 * S + 100 * MS)
    again = rig.listen(odom_topic="/odom", after=sensors)
    drive(rig, START_NS + 20 * S)
    rig.eventually(lambda frame: frame.pose, START_NS + 20 * S + 100 * MS)
    assert (sensors.segment, again.segment, again.restarted) == (0, 1, 0)
    later = rig.listen(odom_topic="/odom", after=again)
    rig.complete(START_NS)
    assert later.restarted == 1


def test_newest_pose_is_that_of_odometry_while_it_speaks(rig: Rig) -> None:
    sensors = rig.listen(odom_topic="/odom")
    assert sensors.newest_pose is None
    drive(rig, START_NS, count=2)
    rig.eventually(lambda frame: frame.pose, START_NS + 50 * MS)
    assert sensors.newest_pose is not None and sensors.newest_pose.position_m[0] == pytest.approx(0.05)
    until(lambda: sensors.newest_pose is None, "silence to be noticed")


def test_odometry_with_nan(rig: Rig) -> None:
    sensors = rig.listen(odom_topic="/odom")
    drive(rig, START_NS, x_m=math.nan)
    assert rig.named("holds NaN").pose is None
    drive(rig, START_NS)
    rig.eventually(lambda frame: frame.pose)
    assert sensors.problems() == []


def test_odometry_of_a_frame_without_a_name(rig: Rig) -> None:
    sensors = rig.listen(odom_topic="/odom")
    drive(rig, START_NS, child="")
    rig.eventually(lambda frame: frame.pose)
    assert "names no child_frame_id: it is taken as 'base_link'" in sensors.problems()[0]


def test_time_goes_back_once(rig: Rig) -> None:
    sensors = rig.listen(camera_info_topic="/left/info", depth_topic="/depth", odom_topic="/odom", camera_mount=MOUNT)
    rig.send(rig.source.info, messages.info())
    for start in (START_NS + 60 * S, START_NS):
        rig.send(rig.source.depth, messages.flat_depth(1.0, start))
        drive(rig, start)
        rig.eventually(lambda frame: frame.pose and frame.depth_m is not None and frame.camera, start)
    assert (sensors.restarted, sensors.segment) == (1, 1)
    assert [line for line in sensors.problems() if "time went back by" in line] == sensors.problems() != []
    rig.eventually(lambda frame: frame.pose, START_NS + 200 * MS)
    assert (sensors.restarted, sensors.segment) == (1, 1)


def test_images_without_a_stamp(rig: Rig) -> None:
    sensors = rig.listen()
    rig.complete(0)
    assert "carry no time stamp" in sensors.problems()[0]
    rig.complete(START_NS)
    assert sensors.problems() == []


def test_without_tf2_msgs_it_is_said_what_to_do(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    sensors = rig.listen(needs_pose=True, camera_info_topic="/left/info")
    frame = rig.complete()
    assert frame.body_t_camera is None and frame.pose is None
    mount, pose = (line for line in sensors.problems() if "tf2_msgs" in line)
    assert "tf2_msgs is not installed: install it, or set sensor.camera_mount" in mount
    assert "tf2_msgs is not installed: install it, or set sensor.odom_topic" in pose


def place(rig: Rig, transform: TransformStamped) -> None:
    rig.send(rig.source.tf_static, rig.source.tf_message(transform))


def move(rig: Rig, *transforms: TransformStamped) -> None:
    rig.send(rig.source.tf, *map(rig.source.tf_message, transforms))


@needs_tf
def test_mount_and_odometry_of_tf(rig: Rig) -> None:
    sensors = rig.listen(needs_pose=True, camera_info_topic="/left/info")
    rig.send(rig.source.info, messages.info())
    rig.named(
        "'camera_optical' in 'base_link' is not known: TF does not know the frame 'base_link': publish it, or set"
    )
    place(rig, messages.transform(0, "base_link", CAMERA_FRAME, 0.2))
    frame = rig.eventually(lambda frame: frame.body_t_camera)
    assert frame.body_t_camera is not None and frame.body_t_camera.position_m == pytest.approx((0.2, 0, 0))
    assert frame.pose is None and "'base_link' in 'odom' is not known" in sensors.problems()[-1]
    steps = [messages.transform(START_NS + step * 50 * MS, "odom", "base_link", step * 0.05) for step in range(5)]
    move(rig, *steps)
    frame = rig.eventually(lambda frame: frame.pose and frame.camera, START_NS + 125 * MS)
    assert frame.pose is not None and frame.pose.position_m == pytest.approx((0.125, 0, 0))
    assert sensors.problems() == []
    rig.eventually(lambda frame: frame.pose, START_NS + 200 * MS)
    assert sensors.newest_pose is not None and sensors.newest_pose.position_m == pytest.approx((0.2, 0, 0))
    assert rig.complete(START_NS - 500 * MS).pose is None
    assert "begins 0.50 s after the image" in sensors.problems()[0]
    move(rig, messages.transform(START_NS + 250 * MS, "odom", "base_link", 9.0))
    rig.eventually(lambda frame: frame.pose, START_NS + 250 * MS)
    assert sensors.segment == 1
    place(rig, messages.transform(0, CAMERA_FRAME, "odom", 1.0))
    rig.named("TF has a loop", START_NS + 250 * MS)


@needs_tf
def test_odometry_of_another_frame_is_taken_to_the_body(rig: Rig) -> None:
    rig.listen(odom_topic="/odom")
    drive(rig, START_NS, child="imu")
    assert rig.named("'base_link' in 'imu' is not known").pose is None
    place(rig, messages.transform(0, "base_link", "imu", 0.3))
    frame = rig.eventually(lambda frame: frame.pose, START_NS + 100 * MS)
    assert frame.pose is not None and frame.pose.position_m[0] == pytest.approx(0.1 - 0.3)
