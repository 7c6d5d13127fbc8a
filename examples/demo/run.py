"""`make demo`: map a world, drive through it again, and ask the real node where the robot is.

    a drive -> rosbag2 -> `etr build-map` -> node process <- camera images of a second drive, over DDS

Without --bag or --images a simulated robot drives both rounds, and its true poses judge the matches. With them, every
second picture is mapped and the others are asked for.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from etr_ros.bag_storage import Bag
from etr_ros.bags import IMAGE_TYPES, BagImages
from etr_ros.database import PlaceMap
from etr_ros.datasets import image_folder
from etr_ros.errors import DataError, EtrError
from etr_ros.types import Frame
from examples.demo.node_process import running_node
from examples.demo.report import Answer, Judge, report
from examples.demo.robot import ask
from examples.simulator import bag as drive_bag
from examples.simulator.camera import Camera
from examples.simulator.covisibility import covisible_pairs, sight
from examples.simulator.drive import drive
from examples.simulator.plan import plan_rounds
from examples.simulator.plot import plot_map
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

LEVEL = "E2M2"  # in no training, validation or test set
TRUE_OVERLAP = 0.25
SECOND_LIGHT = {"reach": 14.0, "exposure": 0.8}


def main() -> int:
    """Run the demo; the exit code is 0 when it ran to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bag", type=Path, help="a rosbag2 of your own")
    source.add_argument("--images", type=Path, help="a folder of pictures of your own")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="where everything goes (default: demo_output)"
    )
    parser.add_argument(
        "--length", type=float, default=120.0, metavar="METRES", help="of the simulated rounds (default: 120)"
    )
    parser.add_argument(
        "--rate", type=float, default=2.0, metavar="HZ", help="pictures per second of the second round (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the simulated rounds (default: 1)")
    args = parser.parse_args()
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    try:
        answers = recorded(args) if args.bag or args.images else simulated(args)
    except EtrError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0 if answers else 1


def simulated(args: argparse.Namespace) -> list[Answer]:
    """Two rounds of the simulated robot, judged by true poses."""
    camera = Camera()
    with World(LEVEL, camera, seed=args.seed) as world:
        survey, second = plan_rounds(FreeSpace(world.level.heights), args.length, args.seed)
        print(f"1. the robot surveys level {LEVEL}: {survey.length_m:.0f} m")
        survey_bag = args.output / "survey_bag"
        drive_bag.write_bag(drive(world, survey, "survey", rate_hz=4.0), survey_bag, camera)

        print("2. etr build-map makes the map of its bag")
        place_map = args.output / "map"
        topics = ("--image-topic", drive_bag.IMAGE_TOPIC, "--pose-topic", drive_bag.POSE_TOPIC)
        etr("build-map", "--bag", survey_bag, *topics, "--output", place_map)

        print(f"3. it drives a second round in another light, {second.length_m:.0f} m, and asks the node where it is")
        world.set_light(**SECOND_LIGHT)
        frames = drive(world, second, "second", rate_hz=args.rate)
        answers = query(frames, place_map, args, total=len(second.every(1.0 / args.rate)))

        judge = true_answers(world, answers, place_map)
        matches = report(answers, place_map, args.output, judge)
        plot_map(args.output / "rounds.png", world.level, survey, second, matches)
        print(f"plan of both rounds:  {args.output / 'rounds.png'}")
    return answers


def true_answers(world: World, answers: list[Answer], map_path: Path) -> Judge:
    """Which places show what each published frame shows: those whose views overlap enough, by the true poses."""
    heights, camera = world.level.heights, world.camera
    frames = [answer.frame for answer in answers if answer.frame.pose]
    places = [place for place in PlaceMap(map_path).places if place.pose]
    seen = [sight(heights, camera, frame.pose) for frame in frames if frame.pose]
    mapped = [sight(heights, camera, place.pose) for place in places if place.pose]
    pairs = covisible_pairs(camera, seen, mapped)
    return Judge(frozenset((frames[i].name, places[j].place_id) for i, j, overlap in pairs if overlap >= TRUE_OVERLAP))


def recorded(args: argparse.Namespace) -> list[Answer]:
    """Pictures of the user: every second one is mapped, the others are asked for. Nothing is known to judge them by."""
    frames = BagImages(args.bag, busiest_camera(args.bag)) if args.bag else image_folder(args.images)
    print(f"1. reading {frames.describe()}; every second picture is mapped, the others are asked for")
    survey = args.output / "survey"
    survey.mkdir()
    for i, frame in enumerate(frames):
        if i % 2 == 0:
            cv2.imwrite(str(survey / f"{i:06d}.jpg"), frame.image)
    print("2. etr build-map makes the map")
    place_map = args.output / "map"
    etr("build-map", "--images", survey, "--output", place_map)
    print("3. the node is asked for the other pictures")
    others: Iterator[Frame] = (frame for i, frame in enumerate(frames) if i % 2 == 1)
    answers = query(others, place_map, args, total=None if frames.expected is None else frames.expected // 2)
    report(answers, place_map, args.output, judge=None)
    return answers


def busiest_camera(path: Path) -> str:
    """The image topic of a bag with the most messages. Raises DataError."""
    cameras = {name: topic.messages for name, topic in Bag(path).topics.items() if topic.type in IMAGE_TYPES}
    if not cameras:
        raise DataError(f"{path} has no image topic")
    return max(cameras, key=lambda name: (cameras[name], name))


def query(frames: Iterator[Frame], place_map: Path, args: argparse.Namespace, total: int | None) -> list[Answer]:
    """Start the node in a process of its own, publish the frames to it, and collect what it answers."""
    with running_node(place_map, args.output / "node.log"):
        return ask(frames, rate_hz=args.rate, total=total)


def etr(*arguments: object) -> None:
    """Run the command line as a user would."""
    command = [str(Path(sys.executable).with_name("etr")), *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        raise EtrError(f"'{' '.join(command[:2])}' failed, see above")


if __name__ == "__main__":
    sys.exit(main())
