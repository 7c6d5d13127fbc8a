"""TF as the node reads it: subscribed to when it is first needed, asked at an image's stamp."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile

from etr_ros.ros.conversions import stamp_ns
from etr_ros.ros.feeds import Link
from etr_ros.sensor_conversions import to_transform
from etr_ros.tf import Transform, TransformBuffer
from etr_ros.track import TransformError

WRONG_S = 5.0  # how long diagnostics show a transform that cannot be used


class Frames:
    """The frames of /tf and /tf_static."""

    def __init__(self, link: Link, jump_m: float) -> None:
        self._link = link
        self._buffer = TransformBuffer(jump_m)
        self._subscriptions: list[Any] = []

    def listen(self) -> None:
        """Subscribe, once. Raises TransformError when tf2_msgs is not installed."""
        if self._subscriptions:
            return
        try:
            kind = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError as error:
            raise TransformError("tf2_msgs is not installed: install it") from error
        moving = QoSProfile(depth=100)
        fixed = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            self._link.subscribe(kind, "/tf", partial(self._on_message, is_static=False), moving),
            self._link.subscribe(kind, "/tf_static", partial(self._on_message, is_static=True), fixed),
        ]

    def lookup(self, target: str, source: str, image_ns: int, tolerance_ns: int, instead: str) -> Transform:
        """target_t_source, as `TransformBuffer.lookup`. Raises TransformError; `instead` is what else one may do."""
        try:
            self.listen()
            with self._link.changed:
                return self._buffer.lookup(target, source, image_ns, tolerance_ns)
        except TransformError as error:
            raise TransformError(f"'{source}' in '{target}' is not known: {error}, or {instead}") from error

    def newest_ns(self, target: str, source: str) -> int | None:
        """Up to when there are poses; None when there are none, or none that move."""
        return self._buffer.newest_ns(target, source)

    def clear(self) -> None:
        """Forget all but the fixed transforms."""
        self._buffer.clear()

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._link.node.destroy_subscription(subscription)

    def _on_message(self, message: Any, *, is_static: bool) -> None:
        wrong = ""
        with self._link.changed:
            for each in message.transforms:
                child, pose = to_transform(each)
                try:
                    if pose is None:
                        raise TransformError(f"TF of '{child}' holds NaN or no unit quaternion: check its publisher")
                    if is_static:
                        self._buffer.set_static(child, pose)
                    else:
                        self._buffer.set(child, stamp_ns(each.header.stamp), pose)
                except TransformError as error:
                    wrong = str(error)
            self._link.changed.notify_all()
        if wrong:
            self._link.problems.report("tf", wrong, WRONG_S)
