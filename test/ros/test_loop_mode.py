"""Loop mode in a real process: a drive over DDS becomes loops and a saved map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loop_driver import AGAIN, AWAY, LAP, LOOPS, NODE, SENSORS, Driver
from robot import NodeProcess, Robot

from etr_ros.ros.conversions import from_pose_message, stamp_ns
from etr_ros.transforms import between, error
from etr_ros_msgs.srv import SaveMap
from landmarks import BODY_T_CAMERA


@pytest.fixture(scope="module")
def driven(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A node in loop mode that has seen a lap, a way elsewhere, and most of the lap again."""
    driver = Driver(robot)
    with NodeProcess(tmp_path_factory.mktemp("loops") / "log", NODE, **SENSORS, **LOOPS) as process:
        driver.ready()
        for pose in LAP + AWAY + AGAIN:
            driver.answered(pose)
        robot.until(lambda: sum(loop.accepted for loop in driver.loops) >= len(AGAIN) - 2, "loops")
        yield driver
        assert process.stop() == 0
    driver.close()


def test_accepted_loops_are_right_in_direction_stamp_and_frame(driven: Driver) -> None:
    accepted = [loop for loop in driven.loops if loop.accepted]
    for loop in accepted:
        query_ns, match_ns = stamp_ns(loop.query_stamp), stamp_ns(loop.match_stamp)
        assert loop.header.stamp == loop.query_stamp and loop.header.frame_id == "camera_optical"
        assert query_ns > match_ns and loop.query_id > loop.match_id
        assert loop.query_session == loop.match_session != ""
        assert loop.is_metric and loop.support >= 2 and loop.inliers >= 20 and not loop.reason
        true = between(driven.true[match_ns], driven.true[query_ns])
        found = from_pose_message(loop.match_t_query.pose, "")
        assert np.abs(error(found, true)[:3]).max() < 0.05
        covariance = np.reshape(loop.match_t_query.covariance, (6, 6))
        assert np.linalg.eigvalsh(covariance).min() > 0 and np.sqrt(np.trace(covariance[:3, :3])) < 0.15


def test_rejected_loops_are_told_with_the_reason(driven: Driver) -> None:
    rejected = [loop for loop in driven.loops if not loop.accepted]
    assert all(loop.reason for loop in rejected)
    assert any("match probability" in loop.reason or "local matches" in loop.reason for loop in rejected)


def test_diagnostics_count_the_loops(driven: Driver) -> None:
    driven.robot.spin(1.0)
    accepted = sum(loop.accepted for loop in driven.loops)
    assert driven.robot.value("loops accepted") == str(accepted)


def test_the_session_is_saved(
    driven: Driver, robot: Robot, tmp_path: Path
) -> None:
    answer = robot.call(SaveMap, "save_map", path=str(tmp_path / "map"))
    assert answer.success, answer.message
    assert answer.info.places == len(driven.true) and answer.info.frame_id == "odom"
    refused = robot.call(SaveMap, "save_map", path="")
    assert not refused.success and "no folder is given" in refused.message


def test_a_trigger_localizes_between_keyframes(driven: Driver) -> None:
    """Standing still there is no new keyframe and no answer, unless somebody asks."""
    here = AGAIN[-1]
    image = driven.move(here)
    driven.robot.spin(1.0)
    assert image.header not in [match.header for match in driven.robot.matches]
    driven.trigger()
    driven.robot.spin(0.3)
    driven.answered(here)


def test_the_mount_of_this_test_is_that_of_the_world() -> None:
    assert BODY_T_CAMERA.position_m == pytest.approx((0.2, 0.0, 0.3))
