"""The lifecycle node: configure loads the map, activate subscribes, each image is converted, queried and published."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from etr_ros.anytime import UNLIMITED
from etr_ros.config import RobotConfig
from etr_ros.errors import EtrError, MapError
from etr_ros.overload import Pacing
from etr_ros.ros import conversions, interfaces, parameters
from etr_ros.ros.backends import Backends
from etr_ros.ros.diagnostics import Health, why_no_images
from etr_ros.ros.gate import QueryGate
from etr_ros.ros.publishers import AnswerPublishers
from etr_ros.ros.sensors import Sensors
from etr_ros.ros.services import Services
from etr_ros.ros.worker import NewestWorker
from etr_ros.types import LoopClosure
from etr_ros_msgs.msg import PlaceMatch, StageTime

if TYPE_CHECKING:
    from etr_ros.pipeline import Recognizer

OpenMap = Callable[[Path | None, RobotConfig], "Recognizer"]


def open_recognizer(path: Path | None, config: RobotConfig) -> Recognizer:
    """The core, warmed up. Imports torch, so that the node is on the graph before that."""
    from etr_ros.loops import LoopDetector
    from etr_ros.pipeline import PlaceRecognizer

    recognizer: Recognizer
    if config.loop.enabled:
        recognizer = LoopDetector.open(path, config)
    elif path is not None:
        recognizer = PlaceRecognizer.open(path, config)
    else:
        raise MapError(
            "no map is given: set the parameter node.map to the folder of one (launch: map:=FOLDER), "
            "or loop.enabled to map while driving"
        )
    recognizer.networks.warm_up()
    runtime = recognizer.networks.extractor.runtime
    get_logger("etr").info(f"{config.extractor.name} runs in {runtime}")
    return recognizer


@dataclass(frozen=True)
class Arrival:
    """An image, and when it came (`time.perf_counter`, seconds)."""

    message: Image | CompressedImage
    at_s: float
    asked: bool  # somebody waits for the answer


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
        self._pacing = Pacing()
        self.recognizer: Recognizer | None = None
        self.worker: NewestWorker[Arrival, PlaceMatch | None] | None = None
        self.sensors: Sensors | None = None
        self.backends: Backends | None = None
        self._listened: Sensors | None = None  # of the activation before
        self.answering = threading.Lock()  # held from the search in a map to the answer that names it being published
        self._restarts = 0
        self._listening: list[Any] = []
        self._answers = AnswerPublishers(self)
        self._diagnostics = self.create_publisher(interfaces.DIAGNOSTICS.type, interfaces.DIAGNOSTICS.name, 10)
        self.requests = Services(self)
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
        result = super().on_activate(state)  # the publishers, before there is anything to publish
        if not self._attempt("activate", self._listen):
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

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
        if self.sensors is not None:
            self.sensors.close()
            self._listened = self.sensors
        if self.worker is not None:
            self.worker.stop()
            self.worker = None
        if self.backends is not None:
            self.backends.close()
        self.sensors = self.backends = None

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
        path = self._config.node.map
        self.recognizer = self._open_map(Path(path).expanduser() if path else None, self._config)
        self.phase = "inactive"
        info = self.recognizer.info
        if info.path:
            self.get_logger().info(f"map {info.path}: {info.places} places of {len(info.sessions)} sessions")
        if self._config.loop.enabled:
            self.get_logger().info("loop mode: every keyframe becomes a place of this session")

    def _listen(self) -> None:
        node, camera = self._config.node, interfaces.camera(self._config.node)
        self.health.activated()
        self._gate, self._pacing = QueryGate(), Pacing()
        needs_pose = self._config.loop.enabled
        self.sensors = Sensors(
            self, self._config.sensor, reliable=node.reliable, needs_pose=needs_pose, after=self._listened
        )
        self.backends = Backends(self, self._config.backend, self.requests.localize_soon)
        self._restarts = 0
        self._answers.restart()
        self.worker = NewestWorker(self._answer, self._on_failed)
        qos = interfaces.image_qos(node)
        self._listening.append(self.create_subscription(camera.type, node.image_topic, self._on_image, qos))
        self.phase = "active"
        self.get_logger().info(f"listening to {self.resolve_topic_name(node.image_topic)} ({camera.type_name})")

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Images

    def _on_image(self, message: Image | CompressedImage) -> None:
        worker, sensors, counters = self.worker, self.sensors, self.health.counters
        if worker is None or sensors is None:
            return
        counters.image_came()
        stamp_ns, asked, now_s = conversions.stamp_ns(message.header.stamp), worker.is_asked, time.perf_counter()
        if now_s < self._pacing.idle_until_s and not asked:
            counters.spared += 1
        elif self._gate.admit(stamp_ns, sensors.newest_pose, self._config.node, always=asked):
            worker.offer(Arrival(message, now_s, asked))
            counters.dropped = worker.dropped
        else:
            counters.skipped += 1

    def _answer(self, arrival: Arrival) -> PlaceMatch | None:
        """Convert, ask the core, publish; runs on the inference thread. None for what is no keyframe in loop mode."""
        recognizer, sensors, counters = self.recognizer, self.sensors, self.health.counters
        if recognizer is None or sensors is None:
            raise MapError("the map was unloaded")
        started_s = time.perf_counter()
        frame = conversions.to_frame(arrival.message, self._config.enough_px)
        decoded_s = time.perf_counter()
        frame = sensors.complete(frame, arrival.message.header.frame_id)
        for line in sensors.warnings():
            self.get_logger().warning(line)
        if sensors.restarted != self._restarts:
            self._restarts = sensors.restarted
            recognizer.restart()
            self._answers.restart()
        completed_s = time.perf_counter()
        pacing, deadline_ms = self._pacing, self._config.node.deadline_ms
        allowance = UNLIMITED if arrival.asked else pacing.allowance(arrival.at_s, deadline_ms)
        with self.answering:
            answer = recognizer.answer(frame, sensors.segment, arrival.asked, allowance)
            if answer is None:
                counters.skipped += 1
                return None
            answered_s = time.perf_counter()
            match = answer.match
            counters.last_wait_ms = (started_s - arrival.at_s) * 1e3
            times = {"wait": counters.last_wait_ms, "decode": (decoded_s - started_s) * 1e3}
            times["sensors"] = (completed_s - decoded_s) * 1e3
            match = dataclasses.replace(match, stage_ms=times | match.stage_ms)
            counters.answered += 1
            info = recognizer.info
            message = conversions.to_match_message(match, arrival.message.header, info.map_id, info.frame_id)
            message.queries, message.dropped = counters.answered, counters.dropped
            message.stages.append(StageTime(name="message", duration_ms=(time.perf_counter() - answered_s) * 1e3))
            message.age_ms = (self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e6
            poses = [self._answers.publish(message, match, frame, recognizer, self._config)]
            poses += [self._publish_loop(loop, message.header.frame_id) for loop in answer.loops]
        for pose in poses:
            if pose is not None and self.backends is not None:
                self.backends.publish_pose(pose)
        counters.last_match, counters.last_age_ms = match, message.age_ms
        if not arrival.asked:  # somebody who waits for it gets all of the work, however long it takes
            pacing.published(match, arrival.at_s, started_s, deadline_ms)
        return message

    def _publish_loop(self, loop: LoopClosure, camera_frame: str) -> PoseWithCovarianceStamped | None:
        self.health.counters.loop_decided(loop)
        if self.backends is not None:
            self.backends.publish_loop(loop)
        return self._answers.publish_loop(loop, camera_frame)

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
        sensors = self.sensors  # a deactivation takes it away from another thread
        if sensors is not None:
            sensors.config = config.sensor
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        node, silent_s = self._config.node, self.health.silent_s()
        quiet = self.phase == "active" and silent_s > node.image_timeout_s
        info = self.recognizer.info if self.recognizer else None
        name = f"{self.get_fully_qualified_name()}: place recognition"
        problems = [self.why_silent(silent_s)] if quiet else []
        for source in (self.sensors, self.backends):
            problems += source.problems() if source is not None else []
        overloaded = self._pacing.problem(node.deadline_ms)
        problems += [overloaded] if overloaded else []
        values = self._pacing.describe(node.deadline_ms)
        status = self.health.status(name, self.phase, info, problems, is_silent=quiet, values=values)
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
