"""The SLAM back ends that the node feeds: which there are, and those that are told poses or stamped loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger

from etr_ros.backends import initialpose, pose_graph
from etr_ros.backends.relative import UnsuitableLoopError
from etr_ros.config import BackendConfig
from etr_ros.errors import ConfigError
from etr_ros.ros import conversions
from etr_ros.ros.backend import Backend, load
from etr_ros.ros.node_backends import RtabMap, SwarmSlam
from etr_ros.types import LoopClosure


class PoseGraph(Backend):
    """Hydra: it reads no edge's type, so rejected loops go to a topic of their own."""

    name = "pose_graph"

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        self._graph, self._edge = (load(f"pose_graph_tools_msgs/msg/{kind}") for kind in ("PoseGraph", "PoseGraphEdge"))
        self._accepted = self._publisher(self._graph, "external_loop_closures")
        self._rejected = self._publisher(self._graph, "external_loop_closures/rejected")

    def publish_loop(self, loop: LoopClosure) -> None:
        try:
            edge = pose_graph.to_edge(loop, self._config.robot_id)
        except UnsuitableLoopError as error:
            if loop.accepted:
                self._report(str(error), f"a loop was not sent: {error}")
            return
        message = self._edge(key_from=edge.key_from, key_to=edge.key_to, type=edge.type)
        message.robot_from, message.robot_to = edge.robot_from, edge.robot_to
        message.pose, message.covariance = conversions.to_pose_message(edge.pose), edge.covariance
        message.header.stamp = conversions.to_stamp(edge.stamp_ns)
        graph = self._graph(header=message.header, edges=[message])
        (self._accepted if loop.accepted else self._rejected).publish(graph)


class InitialPose(Backend):
    """Nav2 AMCL, slam_toolbox: each pose starts them anew, so they get the first one and then one when asked."""

    name = "initialpose"

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        self._poses = self._publisher(PoseWithCovarianceStamped, "initialpose")
        self._is_asked = True

    def ask(self) -> None:
        self._is_asked = True

    def publish_pose(self, message: PoseWithCovarianceStamped) -> None:
        if not self._is_asked:
            return
        pose = conversions.from_pose_message(message.pose.pose, message.header.frame_id)
        try:
            pose, covariance = initialpose.to_floor(pose, np.reshape(message.pose.covariance, (6, 6)))
        except initialpose.UnsuitablePoseError as error:
            self._report(str(error))
            return
        floor = PoseWithCovarianceStamped(header=message.header)
        floor.pose.pose, floor.pose.covariance = conversions.to_pose_message(pose), covariance
        self._poses.publish(floor)
        self._is_asked = False


class CuVslam(Backend):
    """Stands in for the localizer beside cuVSLAM: one pose at the start, and one after each trigger."""

    name = "cuvslam"

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        topics = ("visual_localization/pose", "visual_slam/initial_pose")
        self._poses = [self._publisher(PoseWithCovarianceStamped, topic) for topic in topics]
        self._is_asked = True
        trigger = "visual_localization/trigger_localization"
        for topic in (trigger, "visual_slam/trigger_hint"):
            self._subscribe(PoseWithCovarianceStamped, topic, self._on_trigger)
        self._serve(Trigger, trigger, self._on_call)

    def ask(self) -> None:
        self._is_asked = True

    def publish_pose(self, message: PoseWithCovarianceStamped) -> None:
        if self._is_asked:
            self._is_asked = False
            for publisher in self._poses:
                publisher.publish(message)

    def _on_trigger(self, _: PoseWithCovarianceStamped) -> None:
        self._trigger()

    def _on_call(self, _: Any, response: Any) -> Any:
        response.message = self._trigger()
        response.success = not response.message
        return response

    def _trigger(self) -> str:
        """Why it failed, empty when it did not."""
        self.ask()
        try:
            self._localize_now()
        except Exception as error:  # the node goes on
            self._report("cannot localize now", f"cannot localize now: {error}")
            return str(error)
        return ""


BACKENDS: dict[str, type[Backend]] = {
    RtabMap.name: RtabMap,
    PoseGraph.name: PoseGraph,
    SwarmSlam.name: SwarmSlam,
    InitialPose.name: InitialPose,
    CuVslam.name: CuVslam,
}


class Backends:
    """All back ends of one node that are switched on."""

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        """`localize_now` asks the node to answer the next image at once, without waiting for it.

        A back end whose message package is missing is off, and `problems` says so. Raises ConfigError for a
        name that is none.
        """
        self._backends: list[Backend] = []
        self._off: list[str] = []
        for name in _names(config.names):
            self._start(BACKENDS[name], node, config, localize_now)

    def _start(self, kind: type[Backend], *arguments: Any) -> None:
        try:
            self._backends.append(kind(*arguments))
        except Exception as error:  # an installed message package can be broken in many ways, and the node goes on
            self._off.append(f"{kind.name} is off: {error}")
            arguments[0].get_logger().error(f"back end {self._off[-1]}")

    def publish_loop(self, loop: LoopClosure) -> None:
        """Tell every back end of a loop, accepted or not."""
        for backend in self._backends:
            backend.publish_loop(loop)

    def publish_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Tell every back end where in the map the robot is; call it only when the robot is localized."""
        for backend in self._backends:
            backend.publish_pose(message)

    def ask(self) -> None:
        """Somebody asked to localize: the next pose goes also to those that take only one."""
        for backend in self._backends:
            backend.ask()

    def problems(self) -> list[str]:
        """One line for each back end that is off, and for each kind of loop or pose that did not go through."""
        return self._off + [problem for backend in self._backends for problem in backend.problems()]

    def close(self) -> None:
        """Take all topics and services away; nothing may be published after that."""
        for backend in self._backends:
            backend.close()


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name for name in (part.strip() for part in text.split(",")) if name))
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        known = ", ".join(BACKENDS)
        raise ConfigError(f"backend.names: there is no back end '{unknown[0]}'; known are: {known}")
    return names
