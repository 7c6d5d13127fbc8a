"""The lifecycle node: configure loads the map, activate subscribes, each image is converted, queried and published."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from etr_ros.config import Config
from etr_ros.errors import EtrError, MapError
from etr_ros.ros import conversions, interfaces, parameters
from etr_ros.ros.diagnostics import Health, why_no_images
from etr_ros.ros.gate import QueryGate
from etr_ros.ros.publishers import AnswerPublishers
from etr_ros.ros.services import Services
from etr_ros.ros.worker import NewestWorker
from etr_ros.types import Pose
from etr_ros_msgs.msg import PlaceMatch

if TYPE_CHECKING:
    from etr_ros.pipeline import PlaceRecognizer

OpenMap = Callable[[Path, Config], "PlaceRecognizer"]


def open_recognizer(path: Path, config: Config) -> PlaceRecognizer:
    """The core on this map, warmed up. Imports torch, so that the node is on the graph before that."""
    from etr_ros.pipeline import PlaceRecognizer

    recognizer = PlaceRecognizer.open(path, config)
    recognizer.warm_up()
    return recognizer


@dataclass(frozen=True)
class Arrival:
    """An image and when it came (`time.perf_counter`, seconds)."""

    message: Image | CompressedImage
    at_s: float


class PlaceRecognitionNode(LifecycleNode):
    """Answers camera images with the places of a map."""

    def __init__(self, open_map: OpenMap = open_recognizer) -> None:
        """Raises ConfigError for a parameter value that is not allowed."""
        super().__init__("etr")
        self._open_map = open_map
        self._config = parameters.declare(self)
        for name in parameters.unknown(self):
            self.get_logger().warning(f"'{name}' is no parameter of this node; see `ros2 param list {self.get_name()}`")
        self.add_on_set_parameters_callback(self._on_parameters)
        self.phase = "unconfigured"
        self.health = Health()
        self._gate = QueryGate()
        self._odometry: Pose | None = None
        self.recognizer: PlaceRecognizer | None = None
        self.worker: NewestWorker[Arrival, PlaceMatch] | None = None
        self._listening: list[Any] = []
        self._answers = AnswerPublishers(self)
        self._diagnostics = self.create_publisher(interfaces.DIAGNOSTICS.type, interfaces.DIAGNOSTICS.name, 10)
        Services(self)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        group = MutuallyExclusiveCallbackGroup()
        self.create_timer(1.0, self._publish_diagnostics, callback_group=group, clock=steady)
        if self._config.node.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the map and the networks."""
        if not self._attempt("configure", self._load):
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera."""
        if not self._attempt("activate", self._listen):
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the inference."""
        self.stop()
        self.phase = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the map."""
        self.recognizer = None
        self.phase = "unconfigured"
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good, from any state."""
        self.stop()
        self.recognizer = None
        self.phase = "finalized"
        return super().on_shutdown(state)

    def stop(self) -> None:
        """Unsubscribe and end the inference thread; whoever waits for an answer is told."""
        while self._listening:
            self.destroy_subscription(self._listening.pop())
        self._odometry = None
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def _attempt(self, name: str, action: Callable[[], None]) -> bool:
        """Whether `action` went through; if not, log and diagnostics say why (rclpy would swallow what it raised)."""
        try:
            action()
        except Exception as error:
            self.stop()
            self.health.setup_error = f"cannot {name}: {self.explain(error)}"
            self.get_logger().error(self.health.setup_error)
            return False
        self.health.setup_error = ""
        return True

    def _load(self) -> None:
        self.recognizer = self.open(self._config.node.map)
        self.phase = "inactive"
        info = self.recognizer.info
        self.get_logger().info(f"map {info.path}: {info.places} places of {len(info.sessions)} sessions")

    def _listen(self) -> None:
        node, camera = self._config.node, interfaces.camera(self._config.node)
        self.health.activated()
        self._gate = QueryGate()
        self.worker = NewestWorker(self._answer, self._on_failed)
        qos = interfaces.image_qos(node)
        self._listening.append(self.create_subscription(camera.type, node.image_topic, self._on_image, qos))
        if node.odom_topic:
            kind = interfaces.ODOMETRY.type
            subscription = self.create_subscription(kind, node.odom_topic, self._on_odometry, qos_profile_sensor_data)
            self._listening.append(subscription)
        self.phase = "active"
        self.get_logger().info(f"listening to {self.resolve_topic_name(node.image_topic)} ({camera.type_name})")

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def open(self, path: str) -> PlaceRecognizer:
        """The core on another map, ready to answer. Raises MapError, WeightsError or ConfigError."""
        if not path:
            raise MapError("no map is given: set the parameter node.map to the folder of one (launch: map:=FOLDER)")
        return self._open_map(Path(path).expanduser(), self._config)

    # Images

    def _on_image(self, message: Image | CompressedImage) -> None:
        worker, counters = self.worker, self.health.counters
        if worker is None:
            return
        counters.image_came()
        stamp_ns = conversions.stamp_ns(message.header.stamp)
        if self._gate.admit(stamp_ns, self._odometry, self._config.node, always=worker.is_asked):
            worker.offer(Arrival(message, time.perf_counter()))
            counters.dropped = worker.dropped
        else:
            counters.skipped += 1

    def _on_odometry(self, message: Odometry) -> None:
        self._odometry = conversions.from_odometry(message)

    def _answer(self, arrival: Arrival) -> PlaceMatch:
        """Convert, query, publish; runs on the inference thread."""
        recognizer, counters = self.recognizer, self.health.counters
        if recognizer is None:
            raise MapError("the map was unloaded")
        started_s = time.perf_counter()
        frame = conversions.to_frame(arrival.message)
        decoded_s = time.perf_counter()
        match = recognizer.query(frame)
        counters.last_wait_ms = (started_s - arrival.at_s) * 1e3
        around = {"wait": counters.last_wait_ms, "decode": (decoded_s - started_s) * 1e3}
        match = dataclasses.replace(match, stage_ms=around | match.stage_ms)
        counters.answered += 1
        message = conversions.to_match_message(match, arrival.message.header, recognizer.info)
        message.queries, message.dropped = counters.answered, counters.dropped
        message.age_ms = (self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e6
        self._answers.publish(message, match, frame, recognizer.thumbnail, self._config.node)
        counters.last_match, counters.last_age_ms = match, message.age_ms
        return message

    def _on_failed(self, error: Exception) -> None:
        self.health.counters.failed += 1
        self.health.last_error = self.explain(error)
        self.get_logger().warning(f"this image could not be used: {self.health.last_error}", throttle_duration_sec=5.0)

    # Parameters and health

    def _on_parameters(self, changed: Sequence[Parameter[Any]]) -> SetParametersResult:
        try:
            config = parameters.updated(self._config, changed)
            if self.recognizer is not None:
                self.recognizer.configure(config)
        except EtrError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._config = config
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        node, silent_s = self._config.node, self.health.silent_s()
        quiet = self.phase == "active" and silent_s > node.image_timeout_s
        info = self.recognizer.info if self.recognizer else None
        name = f"{self.get_fully_qualified_name()}: place recognition"
        status = self.health.status(name, self.phase, info, self.why_silent(silent_s) if quiet else "")
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def why_silent(self, silent_s: float) -> str:
        """One line on why no image has come for this long."""
        node = self._config.node
        topic = self.resolve_topic_name(node.image_topic)
        publishers = self.get_publishers_info_by_topic(topic)
        return why_no_images(topic, interfaces.camera(node).type_name, interfaces.image_qos(node), publishers, silent_s)

    def explain(self, error: Exception) -> str:
        """One line; an error nobody foresaw also leaves its trace in the log."""
        if isinstance(error, EtrError):
            return str(error)
        self.get_logger().error("".join(traceback.format_exception(error)), throttle_duration_sec=5.0)
        return f"unexpected {type(error).__name__}: {error}"
