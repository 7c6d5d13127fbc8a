"""What all SLAM back ends of the node have in common."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode

from etr_ros.config import BackendConfig
from etr_ros.errors import ConfigError
from etr_ros.types import LoopClosure

DEPTH = 100  # messages that the middleware holds; loops are rare


class Backend:
    """One back end. It passes over what it does not take, and its methods raise nothing because of a message."""

    name: str

    def __init__(self, node: LifecycleNode, config: BackendConfig, localize_now: Callable[[], None]) -> None:
        """`localize_now` asks for a pose at once and does not wait for it.

        Raises ConfigError when a message package is not installed.
        """
        self._node, self._config, self._localize_now = node, config, localize_now
        self._closing: list[Callable[[], object]] = []
        self._reported: dict[str, tuple[int, str]] = {}  # kind -> how often, the last words

    def publish_loop(self, loop: LoopClosure) -> None:
        """Tell a loop, accepted or not."""

    def publish_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Tell where in the map the robot is; called only when it is localized."""

    def ask(self) -> None:
        """The next pose is wanted: somebody asked to localize."""

    def problems(self) -> list[str]:
        """What did not go through, one line each."""
        return [
            f"{self.name}: {text}" + (f" ({count} times)" if count > 1 else "")
            for count, text in list(self._reported.values())
        ]

    def close(self) -> None:
        """Take all topics and services away."""
        while self._closing:
            self._closing.pop()()

    def _report(self, kind: str, text: str = "") -> None:
        """Log what happened, the first time for each kind, and count it."""
        count, _ = self._reported.get(kind, (0, ""))
        self._reported[kind] = (count + 1, text or kind)
        if count == 0:
            self._node.get_logger().warning(f"back end {self.name}: {text or kind}")

    def _publisher(self, kind: Any, topic: str) -> Any:
        publisher = self._node.create_publisher(kind, topic, DEPTH)
        self._closing.append(lambda: self._node.destroy_publisher(publisher))
        return publisher

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> Any:
        subscription = self._node.create_subscription(kind, topic, callback, DEPTH)
        self._closing.append(lambda: self._node.destroy_subscription(subscription))
        return subscription

    def _client(self, kind: Any, service: str) -> Any:
        client: Any = self._node.create_client(kind, service)
        self._closing.append(lambda: self._node.destroy_client(client))
        return client

    def _serve(self, kind: Any, service: str, answer: Callable[[Any, Any], Any]) -> None:
        server = self._node.create_service(kind, service, answer)
        self._closing.append(lambda: self._node.destroy_service(server))


def load(type_name: str) -> Any:
    """The class of `package/msg/Type`. Raises ConfigError that names the package when it is not installed."""
    package, kind, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the message package {package} is not installed ({error})") from error
