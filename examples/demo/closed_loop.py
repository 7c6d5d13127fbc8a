"""`make demo-loops`: loops fed to a SLAM back end, end to end.

    simulated robot --images, camera info, depth, odometry--> etr_node (loop mode) --loops--> iSAM2 back end --> path

The robot drives several rounds through each level in real time; its odometry drifts, as examples/simulator/noise.py
says. Afterwards its true poses judge the loops and the path before and after; one picture shows all drives.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from etr_ros.config import LoopConfig
from etr_ros.errors import DataError, EtrError
from etr_ros.loop_metrics import is_false, judge
from etr_ros.transforms import Matrix, to_matrix
from etr_ros.types import Pose
from examples.back_end.picture import DrawnLoop, Run, plot_runs
from examples.demo.loop_report import Images, Report, judge_path, table
from examples.demo.node_process import DEPTH_CAMERA, ETR_NODE, running
from examples.demo.sensor_robot import Heard, drive_over_dds
from examples.simulator.bag import POSE_TOPIC
from examples.simulator.drive import SensedFrame, drive_with_sensors
from examples.simulator.plan import plan_laps
from examples.simulator.record import recorded_frames, write_recording
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

LEVELS = ["E2M2", "MAP24"]  # in no training, validation or test set
RATE_HZ = 2.0
WALLS_M = 3.0
NODE_PARAMETERS = DEPTH_CAMERA | {"loop.enabled": "true", "sensor.odom_topic": POSE_TOPIC}


def main() -> int:
    """Run the drives; the exit code is 0 when all ran to their end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--levels", nargs="+", default=LEVELS, help=f"simulated levels (default: {' '.join(LEVELS)})")
    source.add_argument(
        "--recordings", type=Path, nargs="+", metavar="DIR", help="drives of examples.simulator.record instead"
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of each drive, at 1 m/s (default: 2)")
    parser.add_argument("--seed", type=int, default=3, help="of the way and of the noise (default: 3)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output/loops"), help="a folder (default: demo_output/loops)"
    )
    args = parser.parse_args()
    reports: list[Report] = []
    runs: list[Run] = []
    try:
        for report, run in drives(args):
            reports.append(report)
            runs.append(run)
            plot_runs(args.output / "closed_loop.png", runs)
    except EtrError as error:
        print(f"closed loop: {error}", file=sys.stderr)
        return 1
    print(table(reports))
    print(f"What to look at: {args.output / 'closed_loop.png'}")
    return 0


def drives(args: argparse.Namespace) -> Iterator[tuple[Report, Run]]:
    """Run each drive that is asked for; a run is what is drawn of it."""
    for folder in args.recordings or ():
        frames = first_minutes(recorded_frames(folder), args.minutes)
        total = min(len(list(folder.glob("*.jpg"))), round(60 * args.minutes * RATE_HZ))
        yield play(frames, folder.name, args.output / folder.name, total=total)
    for level in () if args.recordings else args.levels:
        output = args.output / level
        total, walls = simulate(level, args.minutes, args.seed, output / "drive")
        yield play(recorded_frames(output / "drive"), level, output, walls, total)


def simulate(level: str, minutes: float, seed: int, folder: Path) -> tuple[int, Matrix]:
    """Record a drive, so that drawing it takes no time from the node when it is played; its pictures, and the walls."""
    shutil.rmtree(folder, ignore_errors=True)
    with World(level, seed=seed) as world:
        way = plan_laps(FreeSpace(world.level.heights), 60 * minutes, seed)
        frames = drive_with_sensors(world, way, level, seed, rate_hz=RATE_HZ)
        bar = tqdm(frames, f"draw {level}", len(way.every(1 / RATE_HZ)), unit="image")
        return write_recording(bar, folder), world.level.walls()


def first_minutes(frames: Iterable[SensedFrame], minutes: float) -> Iterator[SensedFrame]:
    """The frames until this long after the first one."""
    end_ns = math.inf
    for sensed in frames:
        end_ns = min(end_ns, sensed.frame.stamp_ns + 60e9 * minutes)
        if sensed.frame.stamp_ns >= end_ns:
            return
        yield sensed


def play(
    frames: Iterable[SensedFrame], name: str, output: Path, walls: Matrix | None = None, total: int | None = None
) -> tuple[Report, Run]:
    """Play one drive to the two nodes in real time, judge what came out, write result.json.

    `walls` (W, 4) are x, y, x, y in the frame of the true poses; `total` frames is what the progress bar ends at.
    Raises EtrError when a node ends early or is silent.
    """
    output.mkdir(parents=True, exist_ok=True)
    path_file = output.resolve() / "corrected.tum"
    path_file.unlink(missing_ok=True)
    with nodes(path_file, output) as require_alive:
        heard = drive_over_dds(tqdm(frames, f"drive {name}", total, unit="image"), require_alive)
    corrected = read_tum(path_file)
    stamps = [stamp for stamp in heard.true_poses if stamp in corrected]
    if not stamps:
        raise DataError(f"{path_file} has no pose at the stamps of the pictures, see {output / 'back_end.log'}")
    tracks = [[track[stamp] for stamp in stamps] for track in (heard.true_poses, heard.odometry, corrected)]
    report = Report(
        name,
        Images(len(heard.true_poses), len(heard.answered), heard.dropped),
        judge(heard.loops, heard.true_poses, heard.answered, LoopConfig()),
        judge_path(*tracks),
    )
    (output / "result.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    truth, before, after = (np.array([to_matrix(pose) for pose in track]) for track in tracks)
    return report, Run(name, truth, before, after, drawn(heard, stamps), near(walls, truth))


@contextmanager
def nodes(path_file: Path, output: Path) -> Iterator[Callable[[], None]]:
    """etr_node in loop mode and the back end; gives a function that raises EtrError when one of them has ended."""
    back_end = [sys.executable, "-m", "examples.back_end.node"]
    parameters = {"odom_topic": POSE_TOPIC, "tum_file": str(path_file)}
    with (
        running([ETR_NODE], NODE_PARAMETERS, output / "etr_node.log") as etr,
        running(back_end, parameters, output / "back_end.log") as isam2,
    ):

        def require_alive() -> None:
            etr.require_alive()
            isam2.require_alive()

        yield require_alive


def read_tum(path: Path) -> dict[int, Pose]:
    """Poses by stamp in nanoseconds, exact."""
    poses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        stamp, *values = line.split()
        x, y, z, qx, qy, qz, qw = map(float, values)
        poses[int(Decimal(stamp) * 10**9)] = Pose((x, y, z), (qx, qy, qz, qw))
    return poses


def near(walls: Matrix | None, truth: Matrix) -> Matrix | None:
    """Those walls (W, 4) that have an end within WALLS_M of the box around the poses (N, 4, 4)."""
    if walls is None:
        return None
    low, high = truth[:, :2, 3].min(axis=0) - WALLS_M, truth[:, :2, 3].max(axis=0) + WALLS_M
    ends = walls.reshape(-1, 2, 2)
    return walls[((low < ends) & (ends < high)).all(axis=2).any(axis=1)]


def drawn(heard: Heard, stamps: list[int]) -> list[DrawnLoop]:
    """The loops between pictures at these stamps."""
    rows = {stamp: row for row, stamp in enumerate(stamps)}
    return [
        DrawnLoop(
            rows[loop.match.stamp_ns],
            rows[loop.query.stamp_ns],
            loop.accepted,
            not is_false(loop, heard.true_poses),
        )
        for loop in heard.loops
        if loop.match.stamp_ns in rows and loop.query.stamp_ns in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
