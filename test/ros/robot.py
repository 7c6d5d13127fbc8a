"""The test's own ROS node, and the process of the node under test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from etr_ros.ros.conversions import to_image, to_stamp
from etr_ros_msgs.msg import PlaceMatch
from etr_ros_msgs.srv import GetMapInfo, LoadMap, Localize

FAKE_NODE = Path(__file__).parent / "fake_node.py"
TIMEOUT_S = 60.0
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "unconfigured_shutdown": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
}


class NodeProcess:
    """The node under test, started with parameters; stdout and stderr go to `log`. Leaving its context kills it."""

    def __init__(
        self, log: Path, command: tuple[str, ...] = (sys.executable, str(FAKE_NODE)), **parameters: Any
    ) -> None:
        arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={_yaml(value)}")]
        self._log = log.open("w+")
        self.process = subprocess.Popen(
            [*command, "--ros-args", *arguments], stdout=self._log, stderr=subprocess.STDOUT, env=os.environ
        )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGINT) -> int:
        """The exit code after a signal; raises when the process does not end within TIMEOUT_S."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, Path) else str(value)


class Robot:
    """A camera and everything that listens to the node under test, `name`."""

    def __init__(self, name: str = "/etr") -> None:
        self.name = name
        self.node = rclpy.create_node("robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.matches: list[PlaceMatch] = []
        self.poses: list[PoseWithCovarianceStamped] = []
        self.diagnostics: list[DiagnosticStatus] = []
        subscribe = self.node.create_subscription
        subscribe(PlaceMatch, f"{name}/match", self.matches.append, 100)
        subscribe(PoseWithCovarianceStamped, f"{name}/pose", self.poses.append, 100)
        subscribe(DiagnosticArray, "/diagnostics", lambda message: self.diagnostics.extend(message.status), 100)
        self.camera = self.node.create_publisher(Image, "/camera", 10)
        self.odometry = self.node.create_publisher(Odometry, "/odom", 10)
        self._clients: dict[str, Any] = {}
        self._stamp_ns = 1_700_000_000_000_000_000

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Spin until `condition()` is true and return its value; fails the test with `what` after the timeout."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            value = condition()
            if value:
                return value
            self._executor.spin_once(timeout_sec=0.05)
        raise AssertionError(f"timed out waiting for {what}")

    def spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.05)

    # Services

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        return self.answer(self.call_async(kind, name, **fields), name)

    def call_async(self, kind: Any, name: str, **fields: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"{self.name}/{name}")
        client = self._clients[name]
        self.until(client.service_is_ready, name)
        return client.call_async(kind.Request(**fields))

    def answer(self, future: Any, name: str) -> Any:
        self.until(future.done, f"the answer of {name}")
        return future.result()

    def load_map(self, path: Path | str) -> Any:
        return self.call(LoadMap, "load_map", path=str(path))

    def map_info(self) -> Any:
        return self.call(GetMapInfo, "get_map_info")

    def localize_async(self, timeout_s: float = 0.0) -> Any:
        return self.call_async(Localize, "localize", timeout_s=timeout_s)

    def transition(self, name: str) -> bool:
        return self.call(ChangeState, "change_state", transition=Transition(id=TRANSITIONS[name])).success

    def state(self) -> str:
        return self.call(GetState, "get_state").current_state.label

    def set(self, **values: Any) -> Any:
        """Set parameters, dots written as two underscores; the result says whether and why not."""
        parameters = [Parameter(k.replace("__", "."), value=v).to_parameter_msg() for k, v in values.items()]
        return self.call(SetParametersAtomically, "set_parameters_atomically", parameters=parameters).result

    # Pictures

    def new_stamp(self) -> int:
        self._stamp_ns += 123_456_789
        return self._stamp_ns

    def image(self, picture: np.ndarray, stamp_ns: int | None = None) -> Image:
        message = to_image(picture, Image().header)
        message.header.stamp = to_stamp(self.new_stamp() if stamp_ns is None else stamp_ns)
        message.header.frame_id = "camera_optical"
        return message

    def compressed(self, picture: np.ndarray) -> CompressedImage:
        message = CompressedImage(format="bgr8; png compressed bgr8")
        message.data = array("B", cv2.imencode(".png", picture)[1].tobytes())
        message.header.stamp = to_stamp(self.new_stamp())
        return message

    def show(self, message: Any, publisher: Any = None) -> PlaceMatch:
        """Publish an image and return the node's answer to it."""
        publisher = publisher or self.camera
        self.until(lambda: publisher.get_subscription_count() > 0, "the node to subscribe")
        publisher.publish(message)
        return self.match_of(message)

    def match_of(self, message: Any) -> PlaceMatch:
        def found() -> PlaceMatch | None:
            return next((match for match in self.matches if match.header == message.header), None)

        return self.until(found, f"a match; last status: {self.diagnostics[-1:]}")

    def best_effort(self, kind: Any, topic: str) -> Any:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        return self.node.create_publisher(kind, topic, qos)

    # Diagnostics

    def status(self, condition: Callable[[DiagnosticStatus], bool], what: str) -> DiagnosticStatus:
        """The first status from now on for which the condition holds."""
        self.diagnostics.clear()
        return self.until(lambda: next(filter(condition, self.diagnostics), None), f"{what} in {self.diagnostics}")

    def value(self, key: str) -> str:
        """The value of one key in the next status."""
        status = self.status(lambda _: True, "diagnostics")
        return {pair.key: pair.value for pair in status.values}[key]
