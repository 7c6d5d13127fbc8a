"""A node with `Sensors` and, as on another machine, everything that it listens to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import MultiThreadedExecutor
from sensor_source import START_NS, SensorSource

from etr_ros.config import SensorConfig
from etr_ros.ros.sensors import Sensors
from etr_ros.types import Frame
from sensor_messages import CAMERA_FRAME, HEIGHT, WIDTH

MS, S = 1_000_000, 1_000_000_000
TIMEOUT_S = 30.0
MOUNT = "0.2 0 0.5 0 0 0"


class Rig:
    """A node with sensors, spun by threads, and a node that publishes to it."""

    def __init__(self) -> None:
        rclpy.init()
        self._context = rclpy.Context()  # a DDS participant of its own, as another process has
        rclpy.init(context=self._context)
        self.node, self.other = rclpy.create_node("rig"), rclpy.create_node("rig_source", context=self._context)
        self.source = SensorSource(self.other)
        self._executor = MultiThreadedExecutor(num_threads=3)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        self._sensors: Sensors | None = None
        self._sent: dict[Any, tuple[Any, ...]] = {}

    @property
    def sensors(self) -> Sensors:
        assert self._sensors is not None
        return self._sensors

    def listen(self, needs_pose: bool = False, after: Sensors | None = None, **config: Any) -> Sensors:
        """New sensors, once the publishers here are connected to them."""
        self.stop()
        self._sent.clear()
        self._sensors = Sensors(self.node, SensorConfig(**config), needs_pose=needs_pose, after=after)
        for publisher in self.source.publishers:
            if publisher.topic_name in config.values():
                until(publisher.get_subscription_count, f"the subscription of {publisher.topic_name}")
        return self._sensors

    def stop(self) -> None:
        if self._sensors is not None:
            self._sensors.close()
            self._sensors = None

    def close(self) -> None:
        self.stop()
        self._executor.shutdown()
        self._thread.join()
        for node in (self.node, self.other):
            node.destroy_node()
        rclpy.shutdown(context=self._context)
        rclpy.shutdown()

    def complete(
        self, stamp: int = START_NS, size: tuple[int, int] = (WIDTH, HEIGHT), frame: str = CAMERA_FRAME
    ) -> Frame:
        return self.sensors.complete(Frame(np.zeros((size[1], size[0], 3), np.uint8), stamp), frame)

    def send(self, publisher: Any, *messages: Any) -> None:
        """Publish; `eventually` does so again, for what is published before both sides know each other gets lost."""
        self._sent[publisher] = messages
        for message in messages:
            publisher.publish(message)

    def eventually(self, good: Callable[[Frame], Any], stamp: int = START_NS, **image: Any) -> Frame:
        """The first completed frame of this stamp for which `good` holds: messages take a moment to arrive."""
        last: list[Frame] = []

        def is_good() -> bool:
            last.append(self.complete(stamp, **image))
            if len(last) % 50 == 0:
                for publisher, messages in self._sent.items():
                    self.send(publisher, *messages)
            return bool(good(last[-1]))

        until(is_good, "a good frame", self.sensors.problems)
        return last[-1]

    def named(self, words: str, stamp: int = START_NS, **image: Any) -> Frame:
        """The first frame with a problem in these words."""
        return self.eventually(lambda _: any(words in line for line in self.sensors.problems()), stamp, **image)


def until(condition: Callable[[], Any], what: str, state: Callable[[], Any] = str) -> None:
    """Wait until `condition()` is true; fails the test with `what` and `state()` after the timeout."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, f"timed out waiting for {what} {state()}"
        time.sleep(0.02)
