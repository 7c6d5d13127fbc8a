"""Topics that the node reads beside its images. Callbacks only store; the inference thread reads at an image's stamp.

`changed` is one condition for all feeds of a node: it guards what they store, and is notified when they store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node, SubscriptionEventCallbacks
from rclpy.qos import (
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from etr_ros.errors import CameraError
from etr_ros.ros.conversions import from_odometry, stamp_ns
from etr_ros.ros.interfaces import Endpoint
from etr_ros.ros.problems import Problems
from etr_ros.sensor_conversions import frame_name
from etr_ros.track import BACK_NS, Track, TransformError
from etr_ros.types import Pose

KEEP = 15  # pictures; they are large
# An executor that waits for the events of a subscription fails when it is destroyed (ros2/rclpy issue 1142)
_NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
ODOMETRY_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)  # a second of fast odometry
LATE_NS = 1_000_000_000  # a feed that is further behind is not waited for


def is_late(newest_ns: int | None, image_ns: int) -> bool:
    """Whether a feed whose newest stamp is this is about to reach an image's stamp."""
    return newest_ns is not None and image_ns - LATE_NS < newest_ns < image_ns


@dataclass(frozen=True)
class Link:
    """What every feed needs: the node, its callback group, and the lock of what is stored."""

    node: Node
    group: CallbackGroup
    changed: threading.Condition
    problems: Problems

    def subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> Any:
        """A subscription in the callback group."""
        return self.node.create_subscription(
            kind, topic, callback, qos, callback_group=self.group, event_callbacks=_NO_EVENTS
        )


class Feed:
    """The newest messages of a topic whose type has a header."""

    def __init__(self, link: Link, topic: str, kind: Any, *, reliable: bool, keep: int = KEEP) -> None:
        self.topic = link.node.resolve_topic_name(topic)
        self._link = link
        self._type_name = Endpoint(topic, kind, "").type_name
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._qos = QoSProfile(depth=10, reliability=reliability)
        self._stored: deque[tuple[int, Any]] = deque(maxlen=keep)
        self._subscription = link.subscribe(kind, topic, self._on_message, self._qos)

    def newest(self) -> Any:
        """The newest message. Raises CameraError when none has come."""
        with self._link.changed:
            if self._stored:
                return self._stored[-1][1]
        raise CameraError(self.why_nothing())

    def near(self, image_ns: int, tolerance_ns: int) -> Any:
        """The message nearest in time. Raises CameraError when it is further away than the tolerance."""
        with self._link.changed:
            found = self._nearest(image_ns)
        if found is None:
            raise CameraError(self.why_nothing())
        apart_ms = (found[0] - image_ns) / 1e6
        if abs(apart_ms) * 1e6 > tolerance_ns:
            side = "after" if apart_ms > 0 else "before"
            advice = "raise sensor.sync_ms" if abs(apart_ms) < 1e3 else "check its publisher and the clocks"
            raise CameraError(f"the nearest message is {abs(apart_ms):.0f} ms {side} the image: {advice}")
        return found[1]

    def awaits(self, image_ns: int, tolerance_ns: int) -> bool:
        """Whether the message for an image may still be on its way."""
        found = self._nearest(image_ns)
        return found is not None and abs(found[0] - image_ns) > tolerance_ns and is_late(self._stored[-1][0], image_ns)

    def clear(self) -> None:
        """Forget all messages."""
        self._stored.clear()

    def close(self) -> None:
        """Unsubscribe."""
        self._link.node.destroy_subscription(self._subscription)

    def why_nothing(self) -> str:
        """One line on why nothing has come, and what to do."""
        publishers = self._link.node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return "nobody publishes there: check the name of the topic"
        fitting = [each for each in publishers if each.topic_type == self._type_name]
        if not fitting:
            return f"it carries {publishers[0].topic_type}, not {self._type_name}: choose another topic"
        if all(qos_check_compatible(each.qos_profile, self._qos)[0] == QoSCompatibility.ERROR for each in fitting):
            return "it is only published as best effort: set node.reliable to false"
        return "nothing has come yet: its publisher is silent, or too fast for the network"

    def _on_message(self, message: Any) -> None:
        with self._link.changed:
            self._stored.append((stamp_ns(message.header.stamp), message))
            self._link.changed.notify_all()

    def _nearest(self, image_ns: int) -> tuple[int, Any] | None:
        return min(self._stored, key=lambda stored: abs(stored[0] - image_ns), default=None)


class OdometryFeed:
    """nav_msgs/Odometry as a track of the pose of `child_frame` in the frame that the messages name."""

    def __init__(self, link: Link, topic: str, jump_m: float, went_back: Callable[[int], None]) -> None:
        """`went_back` is called, with `changed` held, when the stamps go back by that many nanoseconds."""
        self.topic = link.node.resolve_topic_name(topic)
        self.track = Track(jump_m)
        self.frame = self.child_frame = ""
        self._link, self._jump_m, self._went_back = link, jump_m, went_back
        self._subscription = link.subscribe(Odometry, topic, self._on_message, ODOMETRY_QOS)

    def at(self, image_ns: int, tolerance_ns: int) -> tuple[Pose, str, tuple[str, str, int]]:
        """The pose of the child frame, that frame's name, and the path as in `tf.Transform`. Raises TransformError."""
        with self._link.changed:
            sample = self.track.at(image_ns, tolerance_ns)
            if sample is None:
                raise TransformError(f"odometry on {self.topic} {self.track.why_not(image_ns)}")
            return sample.pose, self.child_frame, (self.frame, self.child_frame, sample.segment)

    def clear(self) -> None:
        """Forget all poses."""
        self.track.clear()

    def close(self) -> None:
        """Unsubscribe."""
        self._link.node.destroy_subscription(self._subscription)

    def _on_message(self, message: Odometry) -> None:
        pose, now_ns = from_odometry(message), stamp_ns(message.header.stamp)
        if pose is None:
            line = f"odometry on {self.topic} holds NaN or no unit quaternion: it is not used, check its publisher"
            self._link.problems.report("odometry numbers", line)
            return
        self._link.problems.clear("odometry numbers")
        with self._link.changed:
            newest_ns = self.track.newest_ns
            if newest_ns is not None and now_ns < newest_ns - BACK_NS:
                self._went_back(newest_ns - now_ns)
            frames = frame_name(message.header.frame_id), frame_name(message.child_frame_id)
            if frames != (self.frame, self.child_frame):
                self.frame, self.child_frame = frames
                self.track = Track(self._jump_m)
            self.track.add(now_ns, pose)
            self._link.changed.notify_all()
