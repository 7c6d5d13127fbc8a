"""Results of real replays of the made-up world of landmarks, for the report: as large as asked for, in seconds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from etr_ros import measure, result_files
from etr_ros.config import Config
from etr_ros.database import PlaceMap
from etr_ros.loops import LoopDetector
from etr_ros.map_writer import MapWriter
from etr_ros.pipeline import PlaceRecognizer
from etr_ros.replay import replay
from etr_ros.result import Result
from etr_ros.types import Frame, Pose
from landmarks import SHORT_LAPS, Landmarks

SESSION = "drive"
CONFIG = Config().replace(**SHORT_LAPS | {"loop.enabled": True})
ABSENT = 60.0  # where the world has no landmark


def laps(count: int, length_m: float = 8.0, step_m: float = 0.6) -> list[Pose]:
    """Along the walls, through places that show nothing known, and again a little beside; as often as `count` needs."""
    steps = round(length_m / step_m)
    poses = []
    for number in range(count):
        lap, at = divmod(number, steps + 4)
        side = 0.15 * math.sin(2.4 * lap)
        x = 1.0 + 0.11 * math.sin(1.7 * lap) + step_m * min(at, steps)
        turned = (0.0, 0.0, math.sin(0.02 * lap), math.cos(0.02 * lap))
        poses.append(Pose((x, side if at < steps else ABSENT + at, 0.0), turned))
    return poses


def loop_result(
    folder: Path, poses: Sequence[Pose], *, has_truth: bool = True, has_odometry: bool = True, bag: str = "walk"
) -> Result:
    """Loop mode over the poses; what `etr replay` would have written."""
    world = Landmarks(length_m=2 + max(pose.position_m[0] for pose in poses), seed=1)
    return _replayed(
        folder, world, LoopDetector(world.networks, CONFIG, None, SESSION), poses, has_truth, has_odometry, bag
    )


def place_result(folder: Path, place_map: Path, poses: Sequence[Pose], *, has_truth: bool = True) -> Result:
    """Localization of the poses in a map of their first lap, which is written to `place_map`."""
    world = Landmarks(length_m=2 + max(pose.position_m[0] for pose in poses), seed=1)
    frames = _frames(world, [pose for pose in poses[:20] if pose.position_m[1] < ABSENT], True)
    _write_map(place_map, world, [dataclasses.replace(frame, session="survey") for frame in frames])
    config = CONFIG.replace(**{"loop.enabled": False})
    recognizer = PlaceRecognizer(PlaceMap(place_map), world.networks, config)
    return _replayed(folder, world, recognizer, poses[20:], has_truth, True, "walk")


def _replayed(
    folder: Path,
    world: Landmarks,
    recognizer: LoopDetector | PlaceRecognizer,
    poses: Sequence[Pose],
    has_truth: bool,
    has_odometry: bool,
    bag: str,
) -> Result:
    frames = _frames(world, poses, has_odometry)
    truth = {frame.stamp_ns: pose for frame, pose in zip(frames, poses, strict=True)} if has_truth else {}
    answered: list[Frame] = []
    played = replay(frames, recognizer, truth_at=truth.get, answered=answered.append)
    _write_map(folder / result_files.PICTURES, world, answered)
    is_loops = isinstance(recognizer, LoopDetector)
    info = None if is_loops else recognizer.info
    manifest = {
        "mode": "loops" if is_loops else "localization",
        "bag": {"name": bag, "image_topic": "/camera"},
        "map": info and {"path": info.path, "map_id": info.map_id, "places": info.places},
        "session": SESSION,
        "simulate": None,
        "config": CONFIG.replace(**{"loop.enabled": is_loops}).to_dict(),
        "versions": {"python": "3"},
    }
    result = Result(manifest, tuple(played.queries), tuple(played.loops), tuple(played.notes))
    if has_truth:
        places = () if is_loops else recognizer.places
        measured = measure.measure_result(result, places)
        (folder / "metrics.json").write_text(json.dumps(measured), encoding="utf-8")
    return result_files.write(folder, result)


def _frames(world: Landmarks, poses: Sequence[Pose], has_odometry: bool) -> list[Frame]:
    return [
        dataclasses.replace(
            world.frame(pose, number, dataclasses.replace(pose, frame_id="odom") if has_odometry else None),
            session=SESSION,
        )
        for number, pose in enumerate(poses)
    ]


def _write_map(path: Path, world: Landmarks, frames: Sequence[Frame]) -> None:
    with MapWriter(path, world.spec, "exact", CONFIG.to_dict(), map_id="pictures") as writer:
        for frame in frames:
            writer.add(frame, world(frame.image))
        writer.commit()
