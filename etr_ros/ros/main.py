"""The process around the node: from start to a clean end on Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import rclpy
from rclpy.executors import MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from etr_ros.errors import EtrError
from etr_ros.ros.node import OpenMap, PlaceRecognitionNode, open_recognizer

# Images and lifecycle, diagnostics, and the two services that may take long
THREADS = 4
# A signal does not end the executor's wait; this is how often it looks up
POLL_S = 0.2


def main(args: Sequence[str] | None = None, open_map: OpenMap = open_recognizer) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit code, 0 then and 1 when it cannot start."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
        node = PlaceRecognitionNode(open_map)
    except (EtrError, RuntimeError) as error:  # rclpy raises RuntimeErrors for bad --ros-args
        sys.stderr.write(f"error: {error}\n")
        rclpy.try_shutdown()
        return 1
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    while not ended.is_set() and rclpy.ok():
        _spin(executor, node)
    node.stop()  # frees a service that waits for an answer
    executor._executor.shutdown(wait=True)  # its own shutdown takes things away from callbacks that still run
    executor.shutdown()
    if node.phase != "finalized":
        node.trigger_shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def _spin(executor: MultiThreadedExecutor, node: PlaceRecognitionNode) -> None:
    try:
        executor.spin_once(timeout_sec=POLL_S)
    except Exception as error:  # of a callback, such as rclpy's own for a lifecycle transition that does not exist
        node.get_logger().error(node.explain(error))


if __name__ == "__main__":
    sys.exit(main())
