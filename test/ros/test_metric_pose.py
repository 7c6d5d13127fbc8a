"""~/pose as robot_localization and fuse read it: at the image's stamp, in the map's frame, its covariance honest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loop_driver import AGAIN, LAP, NODE, SENSORS, Driver
from robot import NodeProcess, Robot

from etr_ros.config import Config
from etr_ros.loops import LoopDetector
from etr_ros.ros.conversions import from_pose_message, stamp_ns
from etr_ros.transforms import error
from etr_ros.types import Pose
from landmarks import Landmarks

pytestmark = pytest.mark.timeout(3600)  # busy machines are slow


def saved_map(world: Landmarks, path: Path) -> Path:
    """The lap, with its true poses, as a map with 3-D points."""
    detector = LoopDetector(world.networks, Config())
    for number, true in enumerate(LAP):
        detector.add(world.frame(true, number, Pose(true.position_m, true.quat_xyzw, "map")))
    detector.save_map(path)
    return path


def test_pose_with_depth_is_that_of_the_robot_not_of_the_place(robot: Robot, tmp_path: Path) -> None:
    world = Landmarks(seed=1)
    driver = Driver(robot, world)
    parameters = SENSORS | {"node.map": saved_map(world, tmp_path / "map")}
    with NodeProcess(tmp_path / "log", NODE, **parameters) as process:
        driver.ready()
        driver.drive(*AGAIN)
        robot.until(lambda: len(robot.poses) >= len(driver.true), "a pose for every picture")
        for pose in robot.poses:
            assert pose.header.frame_id == "map"
            off = error(from_pose_message(pose.pose.pose, "map"), driver.true[stamp_ns(pose.header.stamp)])
            covariance = np.reshape(pose.pose.covariance, (6, 6))
            assert np.linalg.norm(off[:3]) < 0.05
            assert np.sqrt(np.trace(covariance[:3, :3])) < 0.2, "far less than the spacing of the map"
            assert off @ np.linalg.solve(covariance, off) < 22.5, "within 99.9 % of what the covariance says"
        assert process.stop() == 0
    driver.close()
