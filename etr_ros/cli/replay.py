"""`etr replay`: a bag through the recognizer, dropping nothing, with the same result every time."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from etr_ros.cli.bag_options import add_bag_options, sensors_from
from etr_ros.cli.options import SHORT_FORMS, add_config_options, config_from
from etr_ros.cli.progress import track
from etr_ros.errors import ConfigError

if TYPE_CHECKING:
    from etr_ros.bag_replay import Request, WriteBag
    from etr_ros.measure import Protocol


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "replay",
        help="run a bag through the recognizer, dropping nothing, and judge what came out",
        description="Answer every picture of a bag as the node would, as fast as the machine can. With --map: where in "
        "the map is the robot? Without: loops within the recording (loop mode); with --map and --set "
        "loop.enabled=true: both.\nThe result folder holds queries.csv, predictions.csv, loops.csv, a bag of the "
        "node's messages, g2o and TUM files, and with ground truth metrics.json; the same input gives the same bytes, "
        "and the hash of them is printed.\nAn interrupted replay goes on where it was when it is started again.",
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--output", type=Path, required=True, metavar="RESULT", help="folder of the result")
    add_replay_options(parser)
    parser.add_argument(
        "--simulate-live",
        type=float,
        metavar="MS",
        help="also drop pictures as a live node whose answers take MS milliseconds, into RESULT/live, and compare",
    )
    parser.add_argument("--restart", action="store_true", help="do not go on with what an interrupted replay left")
    add_config_options(parser, tuple(SHORT_FORMS))
    parser.set_defaults(run=run)


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Map, topics and ground truth."""
    parser.add_argument("--map", type=Path, metavar="MAP", help="map to localize in, see build-map")
    add_bag_options(parser, "the bag")
    truth = parser.add_argument_group("ground truth (one of)")
    truth.add_argument(
        "--truth-topic",
        metavar="TOPIC",
        help="true poses: Odometry, PoseStamped, PoseWithCovarianceStamped, or NavSatFix; with --map in the map's "
        "frame; in loop mode in any",
    )
    truth.add_argument("--ground-truth", type=Path, metavar="CSV", help="positive pairs, header query,database")
    truth.add_argument("--frame-tolerance", type=int, metavar="N", help="pictures at most N apart show the same place")
    truth.add_argument(
        "--radius-m", type=float, metavar="R", help="with --truth-topic: places at most R metres away are correct"
    )


def run(args: argparse.Namespace) -> int:
    """Replay, and say what came out. Raises EtrError."""
    if args.simulate_live is not None and not args.simulate_live > 0:
        raise ConfigError("--simulate-live takes how long an answer takes, in milliseconds more than 0")
    require_one_truth(args)
    config = config_from(args)

    from etr_ros.bag_replay import LIVE, NOT_MEASURED, replay_bag
    from etr_ros.cli.replay_summary import summary
    from etr_ros.result_diff import compare

    write_bag, why_not = bag_writer()
    request = request_from(args, args.bag, args.output)
    request = dataclasses.replace(request, compute_ms=args.simulate_live, restart=args.restart)
    result, live = replay_bag(request, config, track, write_bag)
    for line in (*result.notes, *why_not, *summary(result, args.output)):
        print(line)
    if live is not None:
        print(f"a live node that answers within {args.simulate_live:g} ms ({args.output / LIVE}):")
        for line in (*summary(live, args.output / LIVE), *compare(result, live).lines()):
            print(f"  {line}")
    return 1 if any(note.startswith(NOT_MEASURED) for note in result.notes) else 0


def require_one_truth(args: argparse.Namespace) -> None:
    """Raises ConfigError when the options name more than one ground truth, or a radius that is none."""
    if sum(given is not None for given in (args.truth_topic, args.ground_truth, args.frame_tolerance)) > 1:
        raise ConfigError("give one ground truth only: a topic, a CSV of pairs, or a frame tolerance")
    if args.frame_tolerance is not None and args.frame_tolerance < 0:
        raise ConfigError("--frame-tolerance is 0 or more")
    if args.radius_m is not None and (args.truth_topic is None or not args.radius_m > 0):
        raise ConfigError("--radius-m is more than 0 and goes with --truth-topic")


def request_from(args: argparse.Namespace, bag: Path, output: Path) -> Request:
    """What the options ask to replay. Raises EtrError."""
    from etr_ros.bag_replay import Request

    return Request(
        bag=bag,
        output=output,
        image_topic=args.image_topic or "",
        pose_topic=args.pose_topic,
        truth_topic=args.truth_topic,
        map_path=args.map,
        sensors=sensors_from(args),
        protocol=protocol_from(args),
    )


def protocol_from(args: argparse.Namespace) -> Protocol:
    """What counts as correct. Raises DataError for a CSV that cannot be read."""
    from etr_ros.ground_truth import read_pairs
    from etr_ros.measure import Protocol

    protocol = Protocol(frame_tolerance=args.frame_tolerance)
    if args.ground_truth is not None:
        protocol = dataclasses.replace(protocol, pairs=tuple(read_pairs(args.ground_truth)))
    if args.radius_m is not None:
        protocol = dataclasses.replace(protocol, correct_m=args.radius_m)
    return protocol


def bag_writer() -> tuple[WriteBag | None, list[str]]:
    """What writes the node's messages, or why nothing does."""
    try:
        from etr_ros.ros.answer_bag import write_answers
    except ImportError as error:
        return None, [f"no bag of answers is written: {error.name} is not installed (source a ROS 2 workspace)"]
    return write_answers, []
