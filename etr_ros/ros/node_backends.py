"""Back ends that count their own nodes: a loop waits until they have reported the nodes at its two moments."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from geometry_msgs.msg import Quaternion, Transform, Vector3
from rclpy.lifecycle import LifecycleNode

from etr_ros.backends import cslam, rtabmap
from etr_ros.backends.nodes import GraphNode, GraphNodes
from etr_ros.backends.relative import UnsuitableLoopError
from etr_ros.backends.waiting import NodeLoop, WaitingLoops
from etr_ros.config import BackendConfig
from etr_ros.poses import to_pose
from etr_ros.ros import conversions
from etr_ros.ros.backend import Backend, load
from etr_ros.types import LoopClosure, Pose


class NodeBackend(Backend):
    """Learns nodes, lets accepted loops wait for them, and sends those that found theirs."""

    topic: str  # where the back end reports its nodes

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        self._nodes = GraphNodes(round(config.node_tolerance_s * 1e9))
        self._waiting = WaitingLoops(self._nodes, config.max_waiting)
        self._lock = threading.Lock()  # loops come on the inference thread, nodes on the executor's
        self._source: Any = None  # the subscription to `topic`

    def publish_loop(self, loop: LoopClosure) -> None:
        if not loop.accepted:
            return
        with self._lock:
            try:
                self._give_up(self._waiting.add(loop))
            except UnsuitableLoopError as error:
                self._report(str(error), f"a loop was not sent: {error}")
            self._settle()

    def problems(self) -> list[str]:
        obstacle = self._obstacle() if len(self._waiting) else ""
        waiting = [f"{self.name}: {len(self._waiting)} loops wait: {obstacle}"] if obstacle else []
        return super().problems() + waiting

    def _learn(self, nodes: Iterable[GraphNode]) -> None:
        with self._lock:
            for node in nodes:
                self._nodes.learn(node)
            self._settle()

    def _settle(self) -> None:
        if self._obstacle():
            return
        settled = self._waiting.settle()
        for loop in settled.found:
            self._send(loop)
        for text in settled.given_up:
            self._give_up(text)

    def _give_up(self, text: str) -> None:
        if text:
            self._report("given up", f"gave up a {text}")

    def _obstacle(self) -> str:
        """Why no loop can be sent now, empty when they can."""
        return "" if len(self._nodes) else f"nobody reports nodes on {self._source.topic_name}"

    def _send(self, loop: NodeLoop) -> None:
        raise NotImplementedError


class RtabMap(NodeBackend):
    """Calls `add_link` of the RTAB-Map node that publishes `rtabmap/mapData`."""

    name = "rtabmap"
    topic = "rtabmap/mapData"
    ADD_LINK = "rtabmap_msgs/srv/AddLink"

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        self._link, self._add_link = load("rtabmap_msgs/msg/Link"), load(self.ADD_LINK)
        self._publish_map = load("rtabmap_msgs/srv/PublishMap")
        self._link_client: Any = None
        self._map_client: Any = None  # until the nodes made before we listened were asked for
        self._source = self._subscribe(load("rtabmap_msgs/msg/MapData"), self.topic, self._on_map_data)

    def _on_map_data(self, message: Any) -> None:
        if self._link_client is None:
            self._find_services()
        if self._map_client is not None and self._map_client.service_is_ready():
            self._map_client.call_async(self._publish_map.Request(global_map=True, graph_only=True))
            self._map_client = None
        self._learn(_graph_nodes(message.nodes))

    def _find_services(self) -> None:
        """The node that offers `add_link` below the namespace of the topic; it offers `publish_map`, too."""
        for service, types in self._node.get_service_names_and_types():
            if self.ADD_LINK in types and service.startswith(self._namespace()):
                self._link_client = self._client(self._add_link, service)
                self._map_client = self._client(self._publish_map, f"{service.rpartition('/')[0]}/publish_map")
                return

    def _namespace(self) -> str:
        return str(self._source.topic_name).rpartition("/")[0] + "/"

    def _obstacle(self) -> str:
        if self._link_client is None or not self._link_client.service_is_ready():
            return super()._obstacle() or f"there is no service {self.ADD_LINK} below {self._namespace()}"
        return super()._obstacle()

    def _send(self, loop: NodeLoop) -> None:
        link = rtabmap.to_link(loop)
        message = self._link(from_id=link.from_id, to_id=link.to_id, type=link.type)
        message.transform = to_transform(link.transform)
        message.information = link.information
        self._link_client.call_async(self._add_link.Request(link=message))


class SwarmSlam(NodeBackend):
    """Publishes next to the front end of Swarm-SLAM, whose keyframes it listens to."""

    name = "cslam"
    topic = "cslam/keyframe_odom"

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        super().__init__(node, config, localize_now)
        self._closure = load("cslam_common_interfaces/msg/IntraRobotLoopClosure")
        keyframe = load("cslam_common_interfaces/msg/KeyframeOdom")
        self._loops = self._publisher(self._closure, "cslam/intra_robot_loop_closure")
        self._source = self._subscribe(keyframe, self.topic, self._on_keyframe)

    def _on_keyframe(self, message: Any) -> None:
        stamp_ns = conversions.stamp_ns(message.odom.header.stamp)
        pose = conversions.from_odometry(message.odom)
        if pose is not None:
            self._learn([GraphNode(message.id, stamp_ns, pose)])

    def _send(self, loop: NodeLoop) -> None:
        closure = cslam.to_closure(loop)
        message = self._closure(keyframe0_id=closure.keyframe0_id, keyframe1_id=closure.keyframe1_id)
        message.success = closure.success
        message.transform = to_transform(closure.transform)
        self._loops.publish(message)


def to_transform(pose: Pose) -> Transform:
    """The same numbers in another message."""
    x, y, z = pose.position_m
    qx, qy, qz, qw = pose.quat_xyzw
    return Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def _graph_nodes(messages: Iterable[Any]) -> Iterator[GraphNode]:
    """Nodes of RTAB-Map that may carry a loop; intermediate ones (negative weight) may not, and stop RTAB-Map."""
    for each in messages:
        position, orientation = each.pose.position, each.pose.orientation
        values = position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w
        pose = to_pose(values, "odom")
        if pose is not None and each.id > 0 and each.weight >= 0 and math.isfinite(each.stamp):
            yield GraphNode(each.id, round(each.stamp * 1e9), pose, each.map_id)
