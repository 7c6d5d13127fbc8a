"""The kidnapped robot: put down anywhere, it asks ~/localize of a real node, over DDS, where it is on a prebuilt map.

    python benchmarks/kidnapped.py MAP29 E3M5 --work WORK

A simulated robot with depth surveys each level with its true poses; the node localizes in that map, in a process of
its own. Then the robot is put down where it drove (up to 0.5 m beside the way, turned by up to 15 degrees) and, as
often, where nothing of the map is in view; each time in one of three lights, standing still, 4 pictures a second.
A trial on the map succeeds when it is localized within 1 s, and not wrong. Wrong is an answer that localizes off the
map; or one whose ~/pose is more than 0.5 m or 10 degrees off, and further than the covariance that it says allows
(chi-square with 6 degrees of freedom, 0.999): where no depth is within reach the node tells which place it sees, and
that its pose is that of the place. Times are those that the service tells, from the request to the answer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.build import build_map
from etr_ros.cli.options import add_config_options, config_from
from etr_ros.config import Config
from etr_ros.consistency import CHI2_6
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError, EtrError
from etr_ros.options import options
from etr_ros.transforms import compose, error
from etr_ros.types import Frame, Pose
from examples.demo.asking_robot import AskingRobot, Told
from examples.demo.node_process import DEPTH_CAMERA, ETR_NODE, running
from examples.simulator.covisibility import Sight, covisible_pairs, sight
from examples.simulator.depth import DepthCamera
from examples.simulator.drive import BODY_T_MOUNT, LIGHTS, drive_with_sensors, frame_of, sense
from examples.simulator.plan import Round, plan_rounds
from examples.simulator.space import FreeSpace
from examples.simulator.world import View, World

RATE_HZ = 2.0
BESIDE_M, TURNED_RAD = 0.5, math.radians(15)
LEAST_SPREAD = 200  # points among which those off the map are sought
RIGHT_M, RIGHT_DEG, SOON_MS = 0.5, 10.0, 1000.0
WARM_UP_S = 3.0
COLUMNS = (
    "level",
    "places",
    "trials on the map",
    "localized",
    "right within 1 s",
    "to 0.5 m and 10 deg",
    "median, slowest",
    "CPU of the node, median",
    "median error",
    "wrong",
    "trials off the map",
    "wrong off the map",
)


@dataclass(frozen=True)
class Trial:
    """Where the robot stood, what it was told, and by how much that is wrong: None when it was not localized."""

    on_map: bool
    true: Pose
    told: Told
    cpu_ms: float  # that the node took
    off: tuple[float, float] | None  # metres, degrees

    @property
    def is_exact(self) -> bool:
        return self.on_map and self.off is not None and self.off[0] <= RIGHT_M and self.off[1] <= RIGHT_DEG

    @property
    def is_right(self) -> bool:
        if self.is_exact or self.told.pose is None or not self.on_map:
            return self.is_exact
        difference = error(self.told.pose, self.true)
        return bool(difference @ np.linalg.solve(np.reshape(self.told.covariance, (6, 6)), difference) <= CHI2_6)


def main() -> int:
    """Measure level after level; exit code 0 when all could be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("levels", nargs="+", metavar="LEVEL", help="MAP01..MAP32, E1M1..E4M9")
    parser.add_argument("--work", type=Path, required=True, help="folder of maps and results")
    parser.add_argument("--length", type=float, default=150.0, metavar="METRES", help="of the survey (default: 150)")
    parser.add_argument("--trials", type=int, default=24, help="on the map, and as many off it (default: 24)")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="S", help="of each request (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of way, poses and noise (default: 0)")
    args = parser.parse_args()
    rows = []
    try:
        config = config_from(args)
        for level in args.levels:
            folder = args.work / level
            folder.mkdir(parents=True, exist_ok=True)
            places, frames = prepare(level, folder / "map", config, args)
            trials = ask(frames, folder, config, args.timeout)
            values = [dataclasses.asdict(trial) for trial in trials]
            (folder / "trials.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
            rows.append(row(level, places, trials))
            (args.work / "kidnapped.md").write_text(table(rows), encoding="utf-8")
    except EtrError as error:
        print(f"kidnapped: {error}", file=sys.stderr)
        return 1
    print(table(rows), end="")
    return 0


def prepare(
    level: str, place_map: Path, config: Config, args: argparse.Namespace
) -> tuple[int, list[tuple[Frame, bool]]]:
    """Make the map, if it is not there yet; the number of its places, and what the robot sees where it is put down.

    Each time it is said whether that is on the map.
    """
    with World(level, seed=args.seed) as world:
        space = FreeSpace(world.level.heights)
        way, _ = plan_rounds(space, args.length, args.seed)

        def surveyed() -> Iterator[Frame]:
            frames = drive_with_sensors(world, way, level, args.seed, rate_hz=RATE_HZ)
            for sensed in tqdm(frames, f"survey {level}", len(way.every(1 / RATE_HZ)), unit="image"):
                yield dataclasses.replace(sensed.frame, pose=sensed.true_pose)

        if not place_map.exists():
            build_map(surveyed(), place_map, config)
        at = [compose(place.pose, BODY_T_MOUNT) for place in PlaceMap(place_map).places if place.pose]
        mapped = [sight(world.level.heights, world.camera, pose) for pose in at]
        rng = np.random.default_rng(args.seed)
        views = [(view, True) for view in put_down(world, beside(space, way, rng), args.trials)]
        views += [(view, False) for view in put_down(world, elsewhere(world, space, mapped, rng), args.trials)]
        depth_camera = DepthCamera(world.level, world.camera)
        frames = [
            (sense(world, depth_camera, view, frame_of(view, number, "kidnapped", 0), (args.seed, number))[0], on_map)
            for number, (view, on_map) in enumerate(views)
        ]
    return len(mapped), frames


def put_down(world: World, stops: Iterator[tuple[float, float, float]], count: int) -> Iterator[View]:
    """The views of the first stops at which the robot can stand, in changing light."""
    found = 0
    for stop in stops:
        world.set_light(*LIGHTS[found % len(LIGHTS)])
        try:
            view = world.look(*stop)
        except DataError:
            continue
        yield view
        found += 1
        if found == count:
            return


def beside(space: FreeSpace, way: Round, rng: np.random.Generator) -> Iterator[tuple[float, float, float]]:
    """x, y, yaw of stops about the way, without end."""
    stops = way.every(1 / RATE_HZ)
    while True:
        x, y, yaw = stops[rng.integers(len(stops))]
        aside, turned = rng.uniform(-BESIDE_M, BESIDE_M), rng.uniform(-TURNED_RAD, TURNED_RAD)
        stop = x - aside * math.sin(yaw), y + aside * math.cos(yaw)
        if space.contains(np.array([stop]))[0]:
            yield *stop, yaw + turned


def elsewhere(
    world: World, space: FreeSpace, mapped: Sequence[Sight], rng: np.random.Generator
) -> Iterator[tuple[float, float, float]]:
    """Stops from which no mapped place sees the same, as far as the level has such."""
    for x, y in space.spread_points(LEAST_SPREAD, rng):
        yaw = rng.uniform(-math.pi, math.pi)
        try:
            seen = sight(world.level.heights, world.camera, world.look(x, y, yaw).pose)
        except DataError:
            continue
        if not any(covisible_pairs(world.camera, [seen], mapped)):
            yield x, y, yaw


def ask(frames: Sequence[tuple[Frame, bool]], folder: Path, config: Config, timeout_s: float) -> list[Trial]:
    """Start the node on the map in `folder` and ask it at every frame; it looks at pictures only when asked."""
    default = {option.name: option.value for option in options(Config())}
    changed = {each.name: str(each.value) for each in options(config) if each.value != default[each.name]}
    parameters = DEPTH_CAMERA | changed | {"node.map": str((folder / "map").resolve()), "node.min_period_s": "3600.0"}
    trials = []
    rclpy.init()
    try:
        with running([ETR_NODE], parameters, folder / "node.log") as node:
            robot = AskingRobot(node.require_alive)
            robot.wait_for_node()
            robot.look(frames[0][0], WARM_UP_S)
            for frame, on_map in tqdm(frames, folder.name, unit="trial"):
                before_ms = node.cpu_ms
                told = robot.ask(frame, timeout_s)
                cpu_ms = node.cpu_ms - before_ms
                trials.append(Trial(on_map, frame.pose, told, cpu_ms, off(told.pose, frame.pose)))
            robot.close()
    finally:
        rclpy.try_shutdown()
    return trials


def off(told: Pose | None, true: Pose) -> tuple[float, float] | None:
    """Metres and degrees between two poses."""
    if told is None:
        return None
    difference = error(told, true)
    return float(np.linalg.norm(difference[:3])), math.degrees(float(np.linalg.norm(difference[3:])))


def row(level: str, places: int, trials: Sequence[Trial]) -> tuple[str, ...]:
    """The cells of one level; times and errors are those of right answers."""
    on_map = [trial for trial in trials if trial.on_map]
    off_map = [trial for trial in trials if not trial.on_map]
    right = [trial for trial in on_map if trial.is_right]
    times = [trial.told.elapsed_ms for trial in right] or [math.nan]
    errors = np.array([trial.off for trial in right if trial.off] or [(math.nan, math.nan)])
    return (
        level,
        str(places),
        str(len(on_map)),
        str(sum(trial.told.localized for trial in on_map)),
        f"{sum(trial.told.elapsed_ms <= SOON_MS for trial in right) / max(len(on_map), 1):.2f}",
        str(sum(trial.is_exact for trial in on_map)),
        f"{np.median(times):.0f} ms, {max(times):.0f} ms",
        f"{np.median([trial.cpu_ms for trial in right] or [math.nan]):.0f} ms",
        f"{100 * np.median(errors[:, 0]):.1f} cm, {np.median(errors[:, 1]):.2f} deg",
        str(sum(trial.told.localized and not trial.is_right for trial in on_map)),
        str(len(off_map)),
        str(sum(trial.told.localized for trial in off_map)),
    )


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown, a row per level."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
