"""The node `isam2_back_end`: odometry and loop closures in, the corrected path out.

    python -m examples.back_end.node --ros-args -p odom_topic:=/odom -p loop_topic:=/etr/loop_closures

`~/path` holds the keyframes and the newest pose, `~/pose` the newest pose; `~/save` writes every pose as TUM.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from etr_ros.backends.files import write_tum
from etr_ros.errors import ConfigError, DataError, EtrError
from etr_ros.ros.conversions import from_odometry, from_pose_message, stamp_ns, to_pose_message, to_stamp
from etr_ros.transforms import Matrix, from_matrix
from etr_ros.types import Place
from etr_ros_msgs.msg import LoopClosure
from examples.back_end.factors import OdometryNoise
from examples.back_end.pose_graph import LoopResult, PoseGraph

POLL_S = 0.2  # a signal does not end the executor's wait; this is how often it looks up
OFF_SIGMAS = 5.0  # a loop further off the corrected path than this is called an outlier
DEFAULTS = {
    "odom_topic": "odom",
    "loop_topic": "/etr/loop_closures",
    "map_frame": "map",
    "tum_file": "trajectory.tum",
    "publish_period_s": 1.0,
    "keyframe_m": 0.5,
    "keyframe_deg": 15.0,
    "odom_sigma_m": OdometryNoise.position_m,
    "odom_sigma_deg": OdometryNoise.rotation_deg,
}


class BackEndNode(Node):
    """Converts, calls the pose graph, publishes; one thread."""

    def __init__(self) -> None:
        super().__init__("isam2_back_end")
        given: dict[str, Any] = {name: self.declare_parameter(name, value).value for name, value in DEFAULTS.items()}
        for name, value in given.items():
            if isinstance(value, float) and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be more than 0, not {value}")
        noise = OdometryNoise(given["odom_sigma_m"], given["odom_sigma_deg"])
        self._graph = PoseGraph(noise, given["keyframe_m"], given["keyframe_deg"])
        self._frame_id, self._tum_file = given["map_frame"], FilePath(given["tum_file"])
        self._used, self._refused, self._last_refusal, self._last_error = 0, Counter[str](), "", ""
        self._newest_ns: int | None = None
        self._published_ns: int | None = None

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._path = self.create_publisher(Path, "~/path", latched)
        self._pose = self.create_publisher(PoseStamped, "~/pose", latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(Odometry, given["odom_topic"], self._on_odometry, 1000)
        self.create_subscription(LoopClosure, given["loop_topic"], self._on_loop, 1000)
        self.create_service(Trigger, "~/save", self._on_save)
        self.create_timer(given["publish_period_s"], self._on_timer)
        self.get_logger().info(f"listening to {given['odom_topic']} and {given['loop_topic']}")

    def _on_odometry(self, message: Odometry) -> None:
        stamp = stamp_ns(message.header.stamp)
        pose = from_odometry(message)
        try:
            if pose is None:
                raise DataError("this odometry is no pose: it has NaN, huge numbers, or no unit quaternion")
            self._report(self._graph.add_odometry(stamp, pose))
        except EtrError as error:
            self._last_error = str(error)
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        self._newest_ns = stamp

    def _on_loop(self, message: LoopClosure) -> None:
        if not message.accepted:
            self._refuse("rejected by the recogniser", message.reason)
        elif not message.is_metric:
            self._refuse("not metric")
        elif message.query_session != message.match_session:
            self._refuse("with a place of another drive", message.match_session)
        else:
            relative = message.match_t_query
            results = self._graph.add_loop(
                stamp_ns(message.match_stamp),
                stamp_ns(message.query_stamp),
                from_pose_message(relative.pose, "match"),
                np.array(relative.covariance).reshape(6, 6),
            )
            self._report(results)

    def _report(self, results: Sequence[LoopResult]) -> None:
        for loop, reason, shift_m in results:
            if reason:
                self._refuse("unusable", reason)
            else:
                self._used += 1
                self._published_ns = None
                lap_s = (loop.query_stamp_ns - loop.match_stamp_ns) / 1e9
                self.get_logger().info(f"loop over {lap_s:.1f} s used: it moved the robot by {shift_m:.2f} m")

    def _refuse(self, kind: str, why: str = "") -> None:
        self._refused[kind] += 1
        self._last_refusal = f"{kind}: {why}" if why else kind
        self.get_logger().info(f"loop not used: {self._last_refusal}")

    def _on_timer(self) -> None:
        self._publish_status()
        if self._newest_ns is None or self._newest_ns == self._published_ns:
            return
        self._published_ns = self._newest_ns
        stamps, poses = self._graph.keyframes()
        newest = self._stamped(self._newest_ns, self._graph.latest())
        path = Path(header=newest.header)
        path.poses = [self._stamped(int(stamp), pose) for stamp, pose in zip(stamps, poses, strict=True)]
        if int(stamps[-1]) != self._newest_ns:
            path.poses.append(newest)
        self._path.publish(path)
        self._pose.publish(newest)

    def _stamped(self, stamp: int, map_t_body: Matrix) -> PoseStamped:
        header = Header(stamp=to_stamp(stamp), frame_id=self._frame_id)
        return PoseStamped(header=header, pose=to_pose_message(from_matrix(map_t_body, self._frame_id)))

    def _publish_status(self) -> None:
        outliers = int((self._graph.sigmas_off() > OFF_SIGMAS).sum())
        values = {
            "keyframes": len(self._graph.keyframes()[0]),
            "loops used": self._used,
            f"of these more than {OFF_SIGMAS:g} standard deviations off": outliers,
            "loops waiting for odometry": self._graph.waiting,
            **{f"loops {kind}": count for kind, count in sorted(self._refused.items())},
            "last loop not used": self._last_refusal,
            "last error": self._last_error,
        }
        status = DiagnosticStatus(name=f"{self.get_fully_qualified_name()}: pose graph", hardware_id="")
        if self._newest_ns is None:
            status.level, status.message = DiagnosticStatus.WARN, "waiting for odometry"
        else:
            status.level, status.message = DiagnosticStatus.OK, f"{self._used} loops used, {outliers} of them outliers"
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _on_save(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stamps, poses = self._graph.trajectory()
        places = (
            Place(row, "", "", int(stamp), from_matrix(pose, self._frame_id))
            for row, (stamp, pose) in enumerate(zip(stamps, poses, strict=True))
        )
        try:
            write_tum(self._tum_file, places)
        except EtrError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, f"{len(stamps)} poses written to {self._tum_file.absolute()}"
        self.get_logger().info(response.message)
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code is 0 then, and 1 when it cannot start."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
        node = BackEndNode()
    except Exception as error:  # rclpy has many for bad --ros-args
        sys.stderr.write(f"error: {error}\n")
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ended.is_set() and rclpy.ok():
        _spin(executor, node)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin_once(timeout_sec=POLL_S)
    except Exception as error:  # of a callback: one bad message does not end the node
        node.get_logger().error(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
