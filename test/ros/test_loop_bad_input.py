"""Loop mode with input that is missing: named, and no message with invented numbers."""

from __future__ import annotations

import math
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from loop_driver import AGAIN, AWAY, LAP, LOOPS, NODE, SENSORS, Driver
from robot import NodeProcess, Robot


def test_missing_camera_info_gives_no_pose_and_is_named(robot: Robot, tmp_path: Path) -> None:
    driver = Driver(robot)
    with NodeProcess(tmp_path / "log", NODE, **SENSORS, **LOOPS) as process:
        driver.ready()
        for pose in LAP + AWAY + AGAIN:
            driver.answered(pose, info=False)
        robot.until(lambda: driver.loops, "loops")
        assert not any(loop.is_metric for loop in driver.loops)
        assert all(math.isnan(loop.match_t_query.pose.position.x) for loop in driver.loops)
        status = robot.status(lambda status: status.level == DiagnosticStatus.WARN, "a warning")
        assert "no intrinsics" in status.message
        assert process.stop() == 0
    driver.close()
