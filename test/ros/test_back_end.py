"""The example back end as a process: odometry and loop closures over DDS in, the corrected path out."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import NodeProcess, Robot
from std_srvs.srv import Trigger

from etr_ros.ros.conversions import stamp_ns, to_pose_message, to_stamp
from etr_ros.trajectory import ate_m
from etr_ros_msgs.msg import LoopClosure
from lap_drive import COVARIANCE, TICK, LapDrive, MadeLoop, lap_drive, planar

if not importlib.util.find_spec("gtsam"):
    pytest.skip("gtsam is not installed", allow_module_level=True)

COMMAND = sys.executable, "-m", "examples.back_end.node"
NAME = "/isam2_back_end"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Bench:
    """Sends a drive to the back end, and hears what it says."""

    def __init__(self, robot: Robot) -> None:
        self.robot, node = robot, robot.node
        self.paths: list[PathMessage] = []
        self.poses: list[PoseStamped] = []
        self.values: dict[str, str] = {}
        self._subscriptions = [
            node.create_subscription(PathMessage, f"{NAME}/path", self.paths.append, LATCHED),
            node.create_subscription(PoseStamped, f"{NAME}/pose", self.poses.append, LATCHED),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 100),
        ]
        self._odometry = node.create_publisher(Odometry, "/wheels", 1000)
        self._loops = node.create_publisher(LoopClosure, "/etr/loop_closures", 1000)
        self.save = node.create_client(Trigger, f"{NAME}/save")

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.robot.node.destroy_subscription(subscription)
        for publisher in (self._odometry, self._loops):
            self.robot.node.destroy_publisher(publisher)
        self.robot.node.destroy_client(self.save)

    def wait_for_the_node(self) -> None:
        topics = self._odometry, self._loops
        self.robot.until(lambda: all(each.get_subscription_count() for each in topics), "the back end to subscribe")

    def send_odometry(self, stamp: int, pose: Any) -> None:
        message = Odometry(child_frame_id="base_link")
        message.header.stamp, message.header.frame_id = to_stamp(stamp), "odom"
        message.pose.pose = to_pose_message(pose)
        self._odometry.publish(message)

    def send_loop(self, drive: LapDrive, loop: MadeLoop, **fields: Any) -> None:
        values = {"accepted": True, "is_metric": True, "query_session": "today", "match_session": "today"} | fields
        message = LoopClosure(**values)
        message.match_stamp, message.query_stamp = (to_stamp(drive.stamp_ns(row)) for row in (loop.match, loop.query))
        message.match_t_query.pose = to_pose_message(loop.match_t_query)
        message.match_t_query.covariance = COVARIANCE.ravel().tolist()
        self._loops.publish(message)

    def until_value(self, key: str, is_right: Callable[[str], bool]) -> None:
        self.robot.until(lambda: is_right(self.values.get(key, "")), f"the status '{key}'")

    def _hear(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{NAME}: pose graph":
                self.values = {pair.key: pair.value for pair in status.values}


@pytest.fixture
def bench(robot: Robot) -> Iterator[Bench]:
    bench = Bench(robot)
    yield bench
    bench.close()


def corrected_path(paths: list[PathMessage], drive: LapDrive) -> PathMessage | None:
    """The newest path when it covers the drive and is at most a fifth as wrong as the odometry."""
    rows = [(stamp_ns(pose.header.stamp) - drive.stamp_ns(0)) // TICK for pose in paths[-1].poses] if paths else []
    if rows[-1:] != [len(drive.truth) - 1]:
        return None
    points = [pose.pose.position for pose in paths[-1].poses]
    truth, odometry = (poses[rows, :3, 3] for poses in drive.matrices)
    error_m = ate_m([[point.x, point.y, point.z] for point in points], truth)
    return paths[-1] if error_m < ate_m(odometry, truth) / 5 else None


def test_a_drive_comes_back_corrected(bench: Bench, tmp_path: Path) -> None:
    drive = lap_drive(seed=11, laps=2)
    truth, odometry = (poses[:, :3, 3] for poses in drive.matrices)
    last = drive.stamp_ns(len(drive.truth) - 1)
    wrong = MadeLoop(10, 150, planar(0.0, 0.0, 0.0), is_true=False)
    tum = tmp_path / "drive.tum"
    parameters = {"odom_topic": "/wheels", "tum_file": tum, "publish_period_s": 0.2}
    with NodeProcess(tmp_path / "log", COMMAND, **parameters) as process:
        bench.wait_for_the_node()
        for row, pose in enumerate(drive.odometry):
            bench.send_odometry(drive.stamp_ns(row), pose)
        bench.send_odometry(last + 1, planar(math.nan, 0.0, 0.0))
        bench.send_odometry(drive.stamp_ns(3), planar(0.0, 0.0, 0.0))
        for loop in drive.loops:
            bench.send_loop(drive, loop)
        bench.send_loop(drive, wrong, accepted=False, reason="no support")
        bench.send_loop(drive, wrong, is_metric=False)
        bench.send_loop(drive, wrong, match_session="yesterday")
        bench.send_loop(drive, MadeLoop(-50, 150, planar(0.0, 0.0, 0.0), is_true=False))

        bench.until_value("loops used", lambda value: value == str(len(drive.loops)))
        bench.until_value("last error", lambda value: "back in time" in value)
        for kind in ("rejected by the recogniser", "not metric", "with a place of another drive", "unusable"):
            bench.until_value(f"loops {kind}", lambda value: value == "1")
        assert bench.values["last loop not used"] == "unusable: no odometry at the stamp of its match"

        path = bench.robot.until(lambda: corrected_path(bench.paths, drive), f"a corrected path in {len(bench.paths)}")
        assert path.header.frame_id == "map"
        bench.robot.until(lambda: bench.poses[-1:] == path.poses[-1:], "the newest pose")

        answer = bench.robot.answer(bench.save.call_async(Trigger.Request()), "save")
        assert answer.success and str(tum) in answer.message
        saved = np.loadtxt(tum, usecols=(1, 2, 3))
        assert ate_m(saved, truth) < ate_m(odometry, truth) / 5
        assert tum.read_text().splitlines()[1].startswith(f"{drive.stamp_ns(1) // 10**9}.100000000 ")
        assert process.stop() == 0, process.output


def test_what_cannot_be_written_is_said(bench: Bench, tmp_path: Path) -> None:
    parameters = {"odom_topic": "/wheels", "tum_file": tmp_path / "nowhere" / "drive.tum"}
    with NodeProcess(tmp_path / "log", COMMAND, **parameters) as process:
        bench.robot.until(bench.save.service_is_ready, "the service")
        answer = bench.robot.answer(bench.save.call_async(Trigger.Request()), "save")
        assert not answer.success and "nowhere" in answer.message
        assert process.stop() == 0


def test_a_parameter_out_of_range_is_one_line(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "log", COMMAND, keyframe_m=-1.0) as process:
        assert process.process.wait(60.0) == 1
        assert process.output.splitlines()[-1] == "error: keyframe_m must be more than 0, not -1.0"
