"""Loops in recorded drives through simulated levels, and the path that a SLAM back end makes of them.

    python benchmarks/loops.py MAP29 E3M5 --work WORK

A drive of each level is recorded once and its features are kept, so that a second run with other values (--set) takes
less time. Every picture goes through the loop detector in its order and none is dropped; accepted loops go to the
GTSAM back end of examples/back_end when they are decided. The true poses judge both (see `etr_ros.loop_metrics`).
The table is in WORK/loops.md, everything about a drive in WORK/results, a picture pair of each false loop beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.cli.options import add_config_options, config_from
from etr_ros.config import Config
from etr_ros.errors import DataError, EtrError
from etr_ros.journal import remembering
from etr_ros.loop_metrics import is_false, judge, pose_error
from etr_ros.loops import LoopDetector
from etr_ros.pipeline import Networks
from etr_ros.transforms import from_matrix
from etr_ros.types import LoopClosure, Pose
from examples.back_end.pose_graph import PoseGraph
from examples.demo.loop_report import Images, Report, judge_path
from examples.simulator.drive import SensedFrame, drive_with_sensors
from examples.simulator.plan import plan_laps
from examples.simulator.record import recorded_frames, write_recording
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

RATE_HZ = 2.0
COLUMNS = "level", "seed", "keyframes", "true revisits", "accepted", "false", "recall", "median error", "NEES (6)"
PATH_COLUMNS = "ATE odometry", "ATE corrected", "ratio"


def main() -> int:
    """Measure level after level; exit code 0 when all could be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("levels", nargs="+", metavar="LEVEL", help="MAP01..MAP32, E1M1..E4M9")
    parser.add_argument("--work", type=Path, required=True, help="folder of recordings, features and results")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each drive, at 1 m/s (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the way and of the noise (default: 0)")
    args = parser.parse_args()
    rows = []
    try:
        config = config_from(args).replace(**{"loop.enabled": True})
        torch.set_num_threads(config.compute.threads or torch.get_num_threads())
        networks = remembering(Networks.load(config), args.work / "features")
        for level in args.levels:
            recording = record(level, args.minutes, args.seed, args.work / "drives")
            drive = drive_through(recording, networks, config)
            report = judged(level, drive, config)
            rows.append(row(report, args.seed))
            write(args.work / "results" / recording.name, report, drive, recording)
            (args.work / "loops.md").write_text(table(rows), encoding="utf-8")
    except EtrError as error:
        print(f"loops: {error}", file=sys.stderr)
        return 1
    print(table(rows), end="")
    return 0


def record(level: str, minutes: float, seed: int, folder: Path) -> Path:
    """The recording of a drive with all sensors; made when it is not there yet."""
    recording = folder / f"{level}_{minutes:g}min_{seed}"
    if not recording.exists():
        with World(level, seed=seed) as world:
            way = plan_laps(FreeSpace(world.level.heights), 60 * minutes, seed)
            frames = drive_with_sensors(world, way, level, seed, rate_hz=RATE_HZ)
            write_recording(tqdm(frames, f"record {level}", len(way.every(1 / RATE_HZ)), unit="image"), recording)
    return recording


@dataclass
class Drive:
    """A drive and what was made of it; poses by stamp in nanoseconds, the corrected ones in the order of stamps."""

    true_poses: dict[int, Pose] = field(default_factory=dict)
    odometry: dict[int, Pose] = field(default_factory=dict)
    keyframes: list[int] = field(default_factory=list)
    loops: list[LoopClosure] = field(default_factory=list)
    corrected: list[Pose] = field(default_factory=list)


def drive_through(recording: Path, networks: Networks, config: Config) -> Drive:
    """Replay a recording through the loop detector and, as they are decided, its loops into the back end."""
    drive, detector, graph = Drive(), LoopDetector(networks, config), PoseGraph()
    total = len(list(recording.glob("*.jpg")))
    for sensed in tqdm(recorded_frames(recording), recording.name, total, unit="image"):
        stamp, pose = sensed.frame.stamp_ns, _odometry(sensed)
        drive.true_poses[stamp], drive.odometry[stamp] = sensed.true_pose, pose
        graph.add_odometry(stamp, pose)
        answer = detector.answer(sensed.frame)
        if answer is None:
            continue
        drive.keyframes.append(stamp)
        drive.loops += answer.loops
        for loop in answer.loops:
            relative, covariance = loop.geometry.match_t_query, loop.geometry.covariance
            if loop.accepted and loop.geometry.is_metric and relative is not None and covariance is not None:
                graph.add_loop(loop.match.stamp_ns, loop.query.stamp_ns, relative, covariance)
    drive.loops += detector.finish()
    drive.corrected = [from_matrix(pose, "map") for pose in graph.trajectory()[1]]
    return drive


def _odometry(sensed: SensedFrame) -> Pose:
    if sensed.frame.pose is None:
        raise DataError(f"the frame {sensed.frame.name} has no odometry")
    return sensed.frame.pose


def judged(level: str, drive: Drive, config: Config) -> Report:
    """What the true poses say of the loops and of the path before and after."""
    images = Images(len(drive.true_poses), len(drive.keyframes), 0)
    loops = judge(drive.loops, drive.true_poses, drive.keyframes, config.loop)
    path = judge_path([*drive.true_poses.values()], [*drive.odometry.values()], drive.corrected)
    return Report(level, images, loops, path)


def write(folder: Path, report: Report, drive: Drive, recording: Path) -> None:
    """result.json, loops.jsonl with every loop that was decided, and <query>_<match>.jpg of each false one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    lines = (json.dumps(values) for values in _loop_rows(drive))
    (folder / "loops.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for old in folder.glob("*.jpg"):
        old.unlink()
    for loop in report.loops.false_loops:
        pair = [cv2.imread(str(recording / place.name)) for place in (loop.query, loop.match)]
        file = f"{Path(loop.query.name).stem}_{Path(loop.match.name).stem}.jpg"
        cv2.imwrite(str(folder / file), np.hstack(pair))


def _loop_rows(drive: Drive) -> Iterator[dict[str, Any]]:
    for loop in drive.loops:
        off = pose_error(loop, drive.true_poses)
        yield {
            "query": loop.query.place_id,
            "match": loop.match.place_id,
            "accepted": loop.accepted,
            "false": is_false(loop, drive.true_poses),
            "metric": loop.geometry.is_metric,
            "probability": loop.probability,
            "inliers": loop.geometry.inliers,
            "coverage": loop.geometry.coverage,
            "support": loop.support,
            "off_m": None if np.isnan(off).any() else float(np.linalg.norm(off[:3])),
            "off_deg": None if np.isnan(off).any() else float(np.degrees(np.linalg.norm(off[3:]))),
            "reason": loop.reason,
        }


def row(report: Report, seed: int) -> tuple[str, ...]:
    """The cells of one drive. Median error and NEES are those of right loops."""
    loops, path = report.loops, report.path
    return (
        report.name,
        str(seed),
        str(loops.keyframes),
        str(loops.revisits),
        str(loops.accepted),
        str(len(loops.false_loops)),
        f"{loops.recall:.2f}",
        f"{100 * loops.median_m:.1f} cm, {loops.median_deg:.2f} deg",
        f"{loops.nees_right:.1f}",
        f"{path.odometry_m:.2f} m",
        f"{path.corrected_m:.2f} m",
        f"{path.corrected_m / path.odometry_m:.2f}",
    )


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown, a row per drive."""
    columns = COLUMNS + PATH_COLUMNS
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
