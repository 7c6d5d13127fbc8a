"""Pictures with true poses as folders: `python -m examples.simulator.export --help`."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from etr_ros.errors import DataError, EtrError
from etr_ros.types import Frame, Pose
from examples.simulator.covisibility import covisible_pairs, sight
from examples.simulator.drive import drive
from examples.simulator.places import VIEWS_PER_PLACE, views_of_places
from examples.simulator.plan import plan_rounds
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

JPEG_QUALITY = 92
POSE_COLUMNS = "file", "stamp_ns", "x_m", "y_m", "z_m", "qx", "qy", "qz", "qw"
SURVEY_LIGHT, SECOND_LIGHT = (24.0, 1.0), (14.0, 0.8)  # reach, exposure
TRUE_OVERLAP = 0.25
PAIR_COLUMNS = "file_a", "file_b", "overlap"


def export_places(level: str, places: int, seed: int, folder: Path) -> None:
    """Write `folder` with groups of views, poses.csv, and pairs.csv with the overlap of views that share surfaces."""
    with World(level, seed=seed) as world:
        views = tqdm(views_of_places(world, places, seed), f"{level} views", places * VIEWS_PER_PLACE, unit="view")
        frames = write_frames(views, folder)
        write_csv(folder / "pairs.csv", PAIR_COLUMNS, _overlaps(world, frames, frames))


def export_rounds(level: str, length_m: float, rate_hz: float, seed: int, folder: Path) -> None:
    """Write `folder`/survey and `folder`/second, each with pictures and poses.csv, driven at 1 m/s.

    Beside them pairs.csv (as for places, second round first) and ground_truth.csv with the pairs that overlap by
    TRUE_OVERLAP or more, columns query,database. The second round has another lighting than the survey.
    """
    with World(level, seed=seed) as world:
        rounds = plan_rounds(FreeSpace(world.level.heights), length_m, seed)
        driven = {}
        for session, way, light in zip(("survey", "second"), rounds, (SURVEY_LIGHT, SECOND_LIGHT), strict=True):
            world.set_light(*light)
            frames = drive(world, way, session, rate_hz=rate_hz)
            views = tqdm(frames, f"{level} {session}", len(way.every(1 / rate_hz)), unit="view")
            driven[session] = write_frames(views, folder / session)
        rows = _overlaps(world, driven["second"], driven["survey"])
    write_csv(folder / "pairs.csv", PAIR_COLUMNS, rows)
    true_pairs = [row[:2] for row in rows if float(row[2]) >= TRUE_OVERLAP]
    write_csv(folder / "ground_truth.csv", ("query", "database"), true_pairs)


def _overlaps(world: World, some: dict[str, Pose], others: dict[str, Pose]) -> list[tuple[str, str, str]]:
    sights = [sight(world.level.heights, world.camera, pose) for pose in some.values()]
    other_sights = sights
    if others is not some:
        other_sights = [sight(world.level.heights, world.camera, pose) for pose in others.values()]
    names, other_names = list(some), list(others)
    pairs = covisible_pairs(world.camera, sights, other_sights)
    return [
        (names[i], other_names[j], f"{overlap:.3f}")
        for i, j, overlap in tqdm(pairs, f"{world.level.name} overlaps", unit="pair")
    ]


def write_frames(frames: Iterable[Frame], folder: Path) -> dict[str, Pose]:
    """Write pictures as JPEG and their true poses as poses.csv; give back the poses by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    poses: dict[str, Pose] = {}
    rows: list[tuple[object, ...]] = []
    for frame in frames:
        if frame.pose is None:
            raise DataError(f"the frame {frame.name} has no pose")
        if not cv2.imwrite(str(folder / frame.name), frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise DataError(f"cannot write {folder / frame.name}")
        poses[frame.name] = frame.pose
        numbers = (f"{number:.6f}" for number in (*frame.pose.position_m, *frame.pose.quat_xyzw))
        rows.append((frame.name, frame.stamp_ns, *numbers))
    write_csv(folder / "poses.csv", POSE_COLUMNS, rows)
    return poses


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(part, path)


def main() -> int:
    """Run the command line; give back the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.simulator.export", description=__doc__)
    parser.add_argument("--levels", nargs="+", required=True, metavar="LEVEL", help="MAP01..MAP32, E1M1..E4M9")
    parser.add_argument("--places", type=int, default=120, help="places per level, three views each (default: 120)")
    parser.add_argument("--sequence", action="store_true", help="two rounds of a robot instead of places")
    parser.add_argument("--length", type=float, default=250.0, metavar="METRES", help="of a round (default: 250)")
    parser.add_argument(
        "--rate", type=float, default=2.0, metavar="HZ", help="pictures per second at 1 m/s (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets one folder per level")
    arguments = parser.parse_args()
    try:
        for level in arguments.levels:
            folder = arguments.output / level
            if arguments.sequence:
                export_rounds(level, arguments.length, arguments.rate, arguments.seed, folder)
            else:
                export_places(level, arguments.places, arguments.seed, folder)
    except EtrError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
