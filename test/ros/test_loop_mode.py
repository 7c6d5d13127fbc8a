"""Loop mode in a real process: a drive over DDS becomes loops and a saved map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loop_driver import AGAIN, AWAY, LAP, LOOPS, NODE, SENSORS, Driver
from robot import NodeProcess, Robot

from etr_ros.ros.conversions import stamp_ns
from etr_ros_msgs.srv import SaveMap
from landmarks import BODY_T_CAMERA, Landmarks

pytestmark = pytest.mark.timeout(3600)  # busy machines are slow


@pytest.fixture(scope="module")
def driven(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A node in loop mode that has seen a lap, a way elsewhere, and most of the lap again."""
    driver = Driver(robot, Landmarks(seed=1))
    with NodeProcess(tmp_path_factory.mktemp("loops") / "log", NODE, **SENSORS, **LOOPS) as process:
        driver.ready()
        driver.drive(*LAP, *AWAY, *AGAIN)
        yield driver
        assert process.stop() == 0
    driver.close()


def test_accepted_loops_are_right_in_direction_stamp_and_frame(driven: Driver) -> None:
    accepted = [loop for loop in driven.loops if loop.accepted]
    assert len(accepted) >= len(AGAIN) - 2
    for loop in accepted:
        assert loop.is_metric
        assert loop.header.stamp == loop.query_stamp
        assert loop.header.frame_id == "camera_optical"
        assert stamp_ns(loop.query_stamp) > stamp_ns(loop.match_stamp)
        assert loop.query_id > loop.match_id
        assert loop.query_session == loop.match_session != ""
        assert loop.support >= 2
        assert loop.inliers >= 20
        assert not loop.reason
        assert driven.off_m(loop) < 0.05
        covariance = np.reshape(loop.match_t_query.covariance, (6, 6))
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert np.sqrt(np.trace(covariance[:3, :3])) < 0.15


def test_rejected_loops_are_told_with_the_reason(driven: Driver) -> None:
    rejected = [loop for loop in driven.loops if not loop.accepted]
    assert all(loop.reason for loop in rejected)
    assert any("match probability" in loop.reason or "local matches" in loop.reason for loop in rejected)


def test_diagnostics_count_the_loops(driven: Driver) -> None:
    for key, expected in (("loops accepted", True), ("loops rejected", False)):
        assert int(driven.robot.value(key)) == sum(loop.accepted == expected for loop in driven.loops)


def test_the_session_is_saved(driven: Driver, robot: Robot, tmp_path: Path) -> None:
    answer = robot.call(SaveMap, "save_map", path=str(tmp_path / "map"))
    assert answer.success, answer.message
    assert answer.info.places == len([*LAP, *AWAY, *AGAIN])
    assert answer.info.frame_id == "odom"
    refused = robot.call(SaveMap, "save_map", path="")
    assert not refused.success
    assert "no folder is given" in refused.message


def test_a_trigger_localizes_between_keyframes(driven: Driver) -> None:
    """Standing still there is no new keyframe and no answer, unless somebody asks."""
    here, answered = AGAIN[-1], len(driven.robot.matches)
    driven.move(here)
    driven.settle()
    assert len(driven.robot.matches) == answered

    def is_answered() -> bool:  # the trigger and the next image come on two topics
        driven.trigger()
        driven.robot.spin(0.3)
        driven.move(here)
        driven.robot.spin(0.3)
        return len(driven.robot.matches) > answered

    driven.robot.until(is_answered, "an answer to the trigger")


def test_the_mount_of_this_test_is_that_of_the_world() -> None:
    assert BODY_T_CAMERA.position_m == pytest.approx((0.2, 0.0, 0.3))
