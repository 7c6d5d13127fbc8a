"""Drives with all sensors as folders, to be replayed without the engine: `python -m examples.simulator.record --help`.

A folder has the pictures (<name>.jpg), depth (<name>.png, 16 bits, millimetres, 0 where unknown), camera.json, and
poses.csv with the pose of base_link for each, true and by odometry.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from tqdm import tqdm

from etr_ros.camera import Camera
from etr_ros.errors import DataError, EtrError
from etr_ros.types import Frame, Pose
from examples.simulator.bag import write_bag
from examples.simulator.camera import Camera as SimulatedCamera
from examples.simulator.depth import to_millimetres
from examples.simulator.drive import SensedFrame, drive_with_sensors
from examples.simulator.export import JPEG_QUALITY, write_csv
from examples.simulator.plan import plan_laps
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

VALUES = "x_m", "y_m", "z_m", "qx", "qy", "qz", "qw"
COLUMNS = "name", "stamp_ns", *(f"true_{value}" for value in VALUES), *(f"odom_{value}" for value in VALUES)


def write_recording(frames: Iterable[SensedFrame], folder: Path) -> int:
    """Write the frames, which must have all sensors, to a new folder; give back how many.

    Raises DataError when the folder exists or a frame lacks something.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already; remove it or write to another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        part.mkdir()
        rows = [_write(sensed, part, is_first=not number) for number, sensed in enumerate(frames)]
        write_csv(part / "poses.csv", COLUMNS, rows)
        os.replace(part, folder)
    return len(rows)


def _write(sensed: SensedFrame, folder: Path, is_first: bool) -> tuple[object, ...]:
    """Write pictures and, with the first, camera.json; give back the row of poses.csv."""
    frame = sensed.frame
    if frame.pose is None or frame.camera is None or frame.body_t_camera is None or frame.depth_m is None:
        raise DataError(f"the frame {frame.name} lacks a pose, a camera or depth")
    if is_first:
        rig = {"camera": asdict(frame.camera), "body_t_camera": asdict(frame.body_t_camera)}
        text = json.dumps({"session": frame.session, **rig}, indent=1)
        (folder / "camera.json").write_text(text, encoding="utf-8")
    name = Path(frame.name).stem
    is_written = cv2.imwrite(str(folder / f"{name}.jpg"), frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not is_written or not cv2.imwrite(str(folder / f"{name}.png"), to_millimetres(frame.depth_m)):
        raise DataError(f"cannot write the pictures of {name} to {folder}")
    poses = (f"{value:.9f}" for pose in (sensed.true_pose, frame.pose) for value in _numbers(pose))
    return name, frame.stamp_ns, *poses


def recorded_frames(folder: Path) -> Iterator[SensedFrame]:
    """The frames of a recording, in their order. Raises DataError when something of it is missing or damaged."""
    try:
        rig = json.loads((folder / "camera.json").read_text(encoding="utf-8"))
        camera, mount = _camera(**rig["camera"]), _mount(**rig["body_t_camera"])
        with (folder / "poses.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            image = cv2.imread(str(folder / f"{row['name']}.jpg"), cv2.IMREAD_COLOR)
            depth = cv2.imread(str(folder / f"{row['name']}.png"), cv2.IMREAD_UNCHANGED)
            if image is None or depth is None:
                raise DataError(f"{folder} has no pictures of {row['name']}")
            depth_m = np.where(depth == 0, np.nan, depth / 1000).astype(np.float32)
            frame = Frame(
                image.astype(np.uint8, copy=False),
                int(row["stamp_ns"]),
                f"{row['name']}.jpg",
                rig["session"],
                _pose(row, "odom", "odom"),
                camera,
                mount,
                depth_m,
            )
            yield SensedFrame(frame, _pose(row, "true", "map"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no recording: {error}") from error


def _camera(
    width: int,
    height: int,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    distortion_model: str,
    distortion: list[float],
) -> Camera:
    matrix = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    return Camera.create(width, height, matrix, distortion_model, distortion)


def _mount(position_m: list[float], quat_xyzw: list[float], frame_id: str) -> Pose:
    (x, y, z), (qx, qy, qz, qw) = position_m, quat_xyzw
    return Pose((x, y, z), (qx, qy, qz, qw), frame_id)


def _numbers(pose: Pose) -> tuple[float, ...]:
    return *pose.position_m, *pose.quat_xyzw


def _pose(row: dict[str, str], kind: str, frame_id: str) -> Pose:
    x, y, z, *quat = (float(row[f"{kind}_{value}"]) for value in VALUES)
    return Pose((x, y, z), (quat[0], quat[1], quat[2], quat[3]), frame_id)


def main() -> int:
    """Run the command line; give back the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.simulator.record", description=__doc__)
    parser.add_argument("level", metavar="LEVEL", help="MAP01..MAP32, E1M1..E4M9")
    parser.add_argument("--minutes", type=float, default=5.0, help="of driving at 1 m/s (default: 5)")
    parser.add_argument("--rate", type=float, default=2.0, metavar="HZ", help="pictures per second (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist yet")
    parser.add_argument("--bag", action="store_true", help="write a rosbag2 with the true poses instead")
    arguments = parser.parse_args()
    try:
        with World(arguments.level, seed=arguments.seed) as world:
            way = plan_laps(FreeSpace(world.level.heights), 60 * arguments.minutes, arguments.seed)
            frames = drive_with_sensors(world, way, arguments.level, arguments.seed, rate_hz=arguments.rate)
            total = len(way.every(1 / arguments.rate))
            bar = tqdm(frames, arguments.level, total, unit="frame")
            if arguments.bag:
                write_bag(bar, arguments.output, SimulatedCamera())
            else:
                write_recording(bar, arguments.output)
    except EtrError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
