"""Replay against the live node: how fast each answers the pictures of one bag in one map, in the same run.

    python benchmarks/replay_rate.py BAG --map MAP --image-topic TOPIC --work DIR

The node gets the compressed pictures over DDS, each as soon as the one before is answered, so that it never waits for
the camera. Then `etr replay` answers them in this process. The first picture of each, which warms up, is not counted.
Pictures per second depend on what else the machine does; the processor time of an answer hardly does.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.bag_replay import Request, replay_bag
from etr_ros.bag_storage import Bag
from etr_ros.cli.options import add_config_options, config_from
from etr_ros.config import Config
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError, EtrError
from etr_ros.options import options
from etr_ros.types import Frame
from etr_ros_msgs.msg import PlaceMatch
from examples.demo.node_process import ETR_NODE, running

START_S, ANSWER_S = 1500.0, 900.0  # a machine may be busy
Mark = tuple[float, float]  # clock in seconds, processor time in milliseconds


def main() -> int:
    """Measure both, and print a table; exit code 0 when both answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("bag", type=Path, metavar="BAG")
    parser.add_argument("--map", type=Path, required=True, help="map to localize in")
    parser.add_argument("--image-topic", required=True, metavar="TOPIC", help="compressed images of the bag")
    parser.add_argument("--work", type=Path, required=True, help="folder of the node's log and the replay's result")
    args = parser.parse_args()
    try:
        config = config_from(args)
        torch.set_num_threads(config.compute.threads or torch.get_num_threads())
        args.work.mkdir(parents=True, exist_ok=True)
        found = {"live node": live(args, config), "etr replay": replayed(args, config)}
    except EtrError as error:
        print(f"replay_rate: {error}", file=sys.stderr)
        return 1
    print("| what | pictures | pictures per second | processor time of an answer, ms |\n| --- | --- | --- | --- |")
    rates, times = [], []
    for name, marks in found.items():
        count, (first, last) = len(marks) - 1, (marks[0], marks[-1])
        rates.append(count / (last[0] - first[0]))
        times.append((last[1] - first[1]) / count)
        print(f"| {name} | {count} | {rates[-1]:.2f} | {times[-1]:.0f} |")
    print(f"replay / live: {rates[1] / rates[0]:.2f} times the rate, {times[1] / times[0]:.2f} of the processor time")
    return 0


def live(args: argparse.Namespace, config: Config) -> list[Mark]:
    """A mark after each answer of the node. Raises EtrError when it does not answer."""
    changed = [
        each for each, plain in zip(options(config), options(Config()), strict=True) if each.value != plain.value
    ]
    parameters = {each.name: str(each.value) for each in changed} | {
        "node.autostart": "true",
        "node.map": str(args.map.resolve()),
        "node.image_topic": args.image_topic,
        "node.compressed": "true",
    }
    answers: list[PlaceMatch] = []
    marks: list[Mark] = []
    with running([ETR_NODE], parameters, args.work / "node.log") as process:
        rclpy.init()
        node = rclpy.create_node("camera")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.create_subscription(PlaceMatch, "/etr/match", answers.append, 10)
        publisher = node.create_publisher(CompressedImage, args.image_topic, 10)

        def wait(count: int, limit_s: float) -> None:
            end_s = time.monotonic() + limit_s
            while not publisher.get_subscription_count() or len(answers) < count:
                process.require_alive()
                if time.monotonic() > end_s:
                    raise DataError(f"the node does not answer, see {args.work / 'node.log'}")
                executor.spin_once(timeout_sec=0.01)

        wait(0, START_S)
        for number, (_, data) in enumerate(Bag(args.bag).messages(args.image_topic)):
            publisher.publish(bytes(data))
            wait(number + 1, ANSWER_S)
            marks.append((time.monotonic(), process.cpu_ms))
        rclpy.shutdown()
    return marks


def replayed(args: argparse.Namespace, config: Config) -> list[Mark]:
    """A mark after each answer of the replay, which reads one picture ahead, but the last."""
    marks: list[Mark] = []

    def track(source: FrameSource, _: str) -> Iterable[Frame]:
        return marked(source)

    def marked(source: FrameSource) -> Iterator[Frame]:
        for number, frame in enumerate(source):
            if number > 1:
                marks.append((time.monotonic(), 1e3 * time.process_time()))
            yield frame
        marks.append((time.monotonic(), 1e3 * time.process_time()))

    output = args.work / "replay"
    shutil.rmtree(output, ignore_errors=True)
    replay_bag(Request(args.bag, output, args.image_topic, map_path=args.map), config, track)
    return marks


if __name__ == "__main__":
    sys.exit(main())
