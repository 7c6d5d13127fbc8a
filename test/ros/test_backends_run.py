"""The back ends over DDS: the node that feeds them and, in another node, a stand-in for each SLAM system."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from robot import Robot
from std_srvs.srv import Trigger

from etr_ros.config import BackendConfig
from etr_ros.errors import ConfigError
from etr_ros.ros.backends import Backends
from etr_ros.ros.conversions import to_stamp
from loop_maker import COVARIANCE, HALF, MATCH_T_QUERY, T0, S, make_loop, place, with_geometry

LOOP_S = 60  # seconds from the match to the query of `make_loop`


class Feeder:
    """The node under test, spinning in a thread and a context of its own."""

    def __init__(self, names: str, **options: Any) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = LifecycleNode("etr", context=self._context, enable_communication_interface=False)
        self.asked = 0
        self._executor = MultiThreadedExecutor(2, context=self._context)
        self._executor.add_node(self.node)
        self.backends = Backends(self.node, BackendConfig(names=names, **options), self._ask)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        self.asked += 1

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(10.0)
        self.backends.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def feed() -> Iterator[Callable[..., Feeder]]:
    feeders: list[Feeder] = []

    def start(names: str, **options: Any) -> Feeder:
        feeders.append(Feeder(names, **options))
        return feeders[-1]

    yield start
    for feeder in feeders:
        feeder.close()


@pytest.fixture
def slam(robot: Robot) -> Iterator[SlamNode]:
    with contextlib.closing(SlamNode(robot)) as slam:
        yield slam


class SlamNode:
    """What a SLAM system offers, in the test's node; taken away at the end."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self._destroy = robot, []

    def hear(self, kind: Any, topic: str, feeder: Feeder) -> list[Any]:
        heard: list[Any] = []
        subscription = self.robot.node.create_subscription(kind, topic, heard.append, 100)
        self._destroy.append(lambda: self.robot.node.destroy_subscription(subscription))
        publisher = next(publisher for publisher in feeder.node.publishers if publisher.topic_name == topic)
        self.robot.until(lambda: publisher.get_subscription_count() > 0, f"the node to find {topic}")
        return heard

    def speak(self, kind: Any, topic: str) -> Any:
        publisher = self.robot.node.create_publisher(kind, topic, 100)
        self._destroy.append(lambda: self.robot.node.destroy_publisher(publisher))
        self.robot.until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        return publisher

    def serve(self, kind: Any, name: str) -> list[Any]:
        calls: list[Any] = []

        def answer(request: Any, response: Any) -> Any:
            calls.append(request)
            return response

        service = self.robot.node.create_service(kind, name, answer)
        self._destroy.append(lambda: self.robot.node.destroy_service(service))
        return calls

    def close(self) -> None:
        for destroy in self._destroy:
            destroy()


def pose_message(x_m: float, frame_id: str = "map") -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.stamp, message.header.frame_id = to_stamp(T0), frame_id
    message.pose.pose.position.x, message.pose.pose.position.z = x_m, 0.5
    message.pose.covariance = np.eye(6).ravel().tolist()
    return message


def values(position: Any, orientation: Any) -> list[float]:
    return [position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w]


MATCH_T_QUERY_VALUES = [*MATCH_T_QUERY.position_m, *MATCH_T_QUERY.quat_xyzw]
QUERY_T_MATCH_VALUES = [-2.0, 0.0, 0.0, 0.0, 0.0, -HALF, HALF]


def test_initial_pose_once_and_when_asked(slam: SlamNode, feed: Callable[..., Feeder]) -> None:
    feeder = feed("initialpose")
    heard = slam.hear(PoseWithCovarianceStamped, "/initialpose", feeder)
    feeder.backends.publish_pose(pose_message(1.0, frame_id=""))  # no frame: not sent
    feeder.backends.publish_pose(pose_message(2.0))
    feeder.backends.publish_pose(pose_message(3.0))  # nobody asked for it
    feeder.backends.ask()
    feeder.backends.publish_pose(pose_message(4.0))
    slam.robot.until(lambda: len(heard) == 2, "two poses")
    assert [message.pose.pose.position.x for message in heard] == [2.0, 4.0]
    assert heard[0].header == pose_message(2.0).header
    assert heard[0].pose.pose.position.z == 0.0 and heard[0].pose.covariance[35] == 1.0
    assert "no frame" in feeder.backends.problems()[0]


def test_stand_in_for_the_localizer_of_cuvslam(slam: SlamNode, feed: Callable[..., Feeder]) -> None:
    feeder = feed("cuvslam")
    poses = slam.hear(PoseWithCovarianceStamped, "/visual_localization/pose", feeder)
    hints = slam.hear(PoseWithCovarianceStamped, "/visual_slam/initial_pose", feeder)
    feeder.backends.publish_pose(pose_message(1.0))
    feeder.backends.publish_pose(pose_message(2.0))
    trigger = "/visual_localization/trigger_localization"
    for number, topic in enumerate((trigger, "/visual_slam/trigger_hint"), 1):
        slam.speak(PoseWithCovarianceStamped, topic).publish(PoseWithCovarianceStamped())
        slam.robot.until(lambda number=number: feeder.asked == number, f"{topic} to trigger")
        feeder.backends.publish_pose(pose_message(10.0 * number))
    client = slam.robot.node.create_client(Trigger, trigger)
    slam.robot.until(client.service_is_ready, trigger)
    assert slam.robot.answer(client.call_async(Trigger.Request()), "the trigger").success
    feeder.backends.publish_pose(pose_message(30.0))
    slam.robot.until(lambda: len(poses) == len(hints) == 4, "four poses on both topics")
    assert [message.pose.pose.position.x for message in poses] == [1.0, 10.0, 20.0, 30.0]
    assert poses == hints and feeder.asked == 3


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, feed: Callable[..., Feeder]) -> None:
    for package in ("rtabmap_msgs", "pose_graph_tools_msgs", "cslam_common_interfaces"):
        monkeypatch.setitem(sys.modules, package, None)
    feeder = feed("rtabmap, pose_graph,cslam, initialpose")
    for problem, package in zip(feeder.backends.problems(), ("rtabmap_msgs", "pose_g", "cslam_c"), strict=True):
        assert "is off: the message package " + package in problem and "\n" not in problem
    feeder.backends.publish_loop(make_loop())
    feeder.backends.publish_pose(pose_message(1.0))


def test_name_that_is_none(feed: Callable[..., Feeder]) -> None:
    with pytest.raises(ConfigError, match="no back end 'gtsam'; known are: rtabmap, pose_graph, cslam"):
        feed("rtabmap,gtsam")
    assert feed(" ").backends.problems() == []


def test_rtabmap_gets_links_between_its_nodes(slam: SlamNode, feed: Callable[..., Feeder]) -> None:
    messages = pytest.importorskip("rtabmap_msgs.msg", reason="rtabmap_msgs is not installed", exc_type=ImportError)
    services = pytest.importorskip("rtabmap_msgs.srv")

    def node(node_id: int, seconds: float, weight: int = 0) -> Any:
        return messages.Node(id=node_id, stamp=T0 / 1e9 + seconds, weight=weight)

    feeder = feed("rtabmap")
    feeder.backends.publish_loop(make_loop())
    assert "nobody reports nodes on /rtabmap/mapData" in feeder.backends.problems()[0]
    links = slam.serve(services.AddLink, "/rtabmap/rtabmap/add_link")
    other = slam.serve(services.AddLink, "/other_robot/rtabmap/add_link")
    wanted = slam.serve(services.PublishMap, "/rtabmap/rtabmap/publish_map")
    map_data = slam.speak(messages.MapData, "/rtabmap/mapData")

    def told() -> bool:
        map_data.publish(messages.MapData(nodes=[node(9, 10.0)]))
        return bool(wanted)

    slam.robot.until(told, "the request for earlier nodes")
    bad = [node(10, float("nan")), node(-4, 0.0), node(11, LOOP_S, weight=-1)]
    map_data.publish(messages.MapData(nodes=[node(2, 0.0), node(40, LOOP_S), *bad]))
    link = slam.robot.until(lambda: links, "a link")[0].link
    assert (link.from_id, link.to_id, link.type) == (40, 2, 4)
    assert values(link.transform.translation, link.transform.rotation) == pytest.approx(QUERY_T_MATCH_VALUES)
    assert np.reshape(link.information, (6, 6))[2, 2] == pytest.approx(1 / COVARIANCE[2, 2])

    feeder.backends.publish_loop(make_loop(match_ns=T0 - 500 * S))
    feeder.backends.publish_loop(make_loop(accepted=False, reason="alone"))
    feeder.backends.publish_loop(with_geometry(is_metric=False))
    given_up, unsuitable = feeder.backends.problems()
    assert "no node at" in given_up and "not in metres" in unsuitable
    slam.robot.spin(0.3)
    assert len(links) == 1 and not other and wanted[0].global_map and wanted[0].graph_only


def test_swarm_slam_gets_loops_between_its_keyframes(slam: SlamNode, feed: Callable[..., Feeder]) -> None:
    interfaces = pytest.importorskip(
        "cslam_common_interfaces.msg", reason="cslam_common_interfaces is not installed", exc_type=ImportError
    )
    feeder = feed("cslam")
    loops = slam.hear(interfaces.IntraRobotLoopClosure, "/cslam/intra_robot_loop_closure", feeder)
    keyframes = slam.speak(interfaces.KeyframeOdom, "/cslam/keyframe_odom")
    for keyframe_id, seconds in ((0, -5), (1, 0), (2, 30), (3, LOOP_S)):
        odometry = Odometry()
        odometry.header.stamp = to_stamp(T0 + seconds * S)
        odometry.pose.pose.orientation.w = 1.0
        keyframes.publish(interfaces.KeyframeOdom(id=keyframe_id, odom=odometry))
    feeder.backends.publish_loop(make_loop())
    loop = slam.robot.until(lambda: loops, "a loop")[0]
    assert (loop.keyframe0_id, loop.keyframe1_id, loop.success) == (1, 3, True)
    assert values(loop.transform.translation, loop.transform.rotation) == pytest.approx(MATCH_T_QUERY_VALUES)


def test_hydra_gets_edges_between_stamps(slam: SlamNode, feed: Callable[..., Feeder]) -> None:
    messages = pytest.importorskip(
        "pose_graph_tools_msgs.msg", reason="pose_graph_tools_msgs is not installed", exc_type=ImportError
    )
    feeder = feed("pose_graph", robot_id=3)
    accepted = slam.hear(messages.PoseGraph, "/external_loop_closures", feeder)
    rejected = slam.hear(messages.PoseGraph, "/external_loop_closures/rejected", feeder)
    feeder.backends.publish_loop(make_loop())
    feeder.backends.publish_loop(make_loop(accepted=False, reason="alone"))
    feeder.backends.publish_loop(with_geometry(is_metric=False))
    feeder.backends.publish_loop(make_loop(match=place(3, T0, "yesterday")))
    slam.robot.until(lambda: accepted and rejected, "both edges")
    for graph, kind in ((accepted[0], messages.PoseGraphEdge.LOOPCLOSE), (rejected[0], 3)):
        (edge,) = graph.edges
        assert (edge.type, edge.key_from, edge.key_to, edge.robot_from) == (kind, T0 + LOOP_S * S, T0, 3)
        assert edge.header.stamp == graph.header.stamp == to_stamp(T0 + LOOP_S * S)
        assert values(edge.pose.position, edge.pose.orientation) == pytest.approx(MATCH_T_QUERY_VALUES)
        assert edge.covariance.tolist() == COVARIANCE.ravel().tolist()
    assert len(accepted) == 1 and len(feeder.backends.problems()) == 2
