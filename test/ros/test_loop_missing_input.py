"""Loop mode without intrinsics, or without anything that says where camera and robot are: named, no pose is told."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
from geometry_msgs.msg import TransformStamped
from loop_driver import AGAIN, AWAY, LAP, LOOPS, NODE, SENSORS, Driver, along, camera_info
from robot import NodeProcess, Robot

from etr_ros.ros.node_backends import to_transform
from etr_ros.types import Pose
from landmarks import BODY_T_CAMERA, Landmarks
from sensor_messages import CAMERA_FRAME, header

pytestmark = pytest.mark.timeout(3600)  # busy machines are slow


FURTHER, FURTHER_AGAIN = along(14.0, 18.0, 0.0), along(14.1, 18.0, 0.3)  # nothing of it was seen before


def require_metric_loops(driver: Driver) -> None:
    """On a way of its own, driven twice, there are accepted metric loops, and right ones only."""
    loops = driver.drive(*AWAY, *FURTHER, *AWAY, *FURTHER_AGAIN)
    metric = [loop for loop in loops if loop.accepted and loop.is_metric]
    assert metric
    assert all(driver.off_m(loop) < 0.05 for loop in metric)


def test_late_and_missing_camera_info(robot: Robot, tmp_path: Path) -> None:
    """Without intrinsics there is no pose; when they come, there is."""
    driver = Driver(robot, Landmarks(seed=1))
    driver.info = lambda stamp: None
    with NodeProcess(tmp_path / "log", NODE, **SENSORS, **LOOPS) as process:
        driver.ready()
        loops = driver.drive(*LAP, *AWAY, *AGAIN)
        assert any(loop.accepted for loop in loops)
        assert not any(loop.is_metric for loop in loops)
        assert all(math.isnan(loop.match_t_query.pose.position.x) for loop in loops)
        driver.named("no intrinsics on /info: nothing has come yet")
        driver.info = camera_info
        require_metric_loops(driver)
        assert process.stop() == 0
    driver.close()


needs_tf = pytest.mark.skipif(not importlib.util.find_spec("tf2_msgs"), reason="tf2_msgs is not installed")


def future(true: Pose, stamp: int) -> list[TransformStamped]:
    return transforms(true, stamp + 3600 * 10**9)


def transforms(true: Pose, stamp: int) -> list[TransformStamped]:
    """Where the body is in `odom`, and the camera on the body."""
    return [transform(true, stamp, "odom", "base_link"), transform(BODY_T_CAMERA, stamp, "base_link", CAMERA_FRAME)]


def transform(pose: Pose, stamp: int, parent: str, child: str) -> TransformStamped:
    message = TransformStamped(header=header(stamp, parent), child_frame_id=child)
    message.transform = to_transform(pose)
    return message


@needs_tf
def test_tf_that_is_missing_or_from_the_future(robot: Robot, tmp_path: Path) -> None:
    """Neither where the camera sits nor odometry is known: both are named, and no relative pose is told."""
    driver = Driver(robot, Landmarks(seed=1))
    sensors = SENSORS | {"sensor.odom_topic": "''", "sensor.camera_mount": "''", "keyframe.period_s": 0.5}
    with NodeProcess(tmp_path / "log", NODE, **sensors, **LOOPS) as process:
        driver.ready("info", "depth", "tf")
        loops = driver.drive(*LAP)
        driver.named("'camera_optical' in 'base_link' is not known: TF does not know the frame")
        driver.named("'base_link' in 'odom' is not known: TF does not know the frame")
        driver.heed()
        driver.transforms = future
        loops += driver.drive(*AGAIN)
        for frames in ("'camera_optical' in 'base_link'", "'base_link' in 'odom'"):
            ahead = driver.named(f"{frames} is not known: TF of")
            assert "after the image: synchronise the clocks" in ahead.message
        assert any(loop.accepted for loop in loops), "pictures that follow each other as before"
        assert not any(loop.is_metric for loop in loops)
        assert all(math.isnan(loop.match_t_query.pose.position.x) for loop in loops)
        driver.transforms = transforms
        require_metric_loops(driver)
        assert process.stop() == 0
    driver.close()
