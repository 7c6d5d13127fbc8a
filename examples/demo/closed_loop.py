"""Loops fed to a SLAM back end, end to end: `python examples/demo/closed_loop.py --help`.

    simulated robot --images, camera info, depth, odometry--> etr_node (loop mode) --loops--> GTSAM node --> path

The robot drives several rounds in real time; its odometry drifts. Afterwards its true poses judge the loops and both
trajectories, and one picture shows them.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import cv2
import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from etr_ros.config import LoopConfig
from etr_ros.errors import EtrError
from etr_ros.ros.conversions import from_pose_message, stamp_ns, to_pose_message, to_stamp
from etr_ros.transforms import to_matrix
from etr_ros.types import Geometry, Place, Pose
from etr_ros.types import LoopClosure as Loop
from etr_ros_msgs.msg import LoopClosure, PlaceMatch
from examples.back_end.picture import DrawnLoop, Run, plot_run
from examples.demo.loop_report import Judgement, judge, table
from examples.simulator.bag import CAMERA_FRAME, JPEG_QUALITY
from examples.simulator.depth import to_millimetres
from examples.simulator.drive import SensedFrame, drive_with_sensors
from examples.simulator.plan import plan_laps
from examples.simulator.record import recorded_frames
from examples.simulator.space import FreeSpace
from examples.simulator.world import World

LEVEL = "E2M2"
START_TIMEOUT_S, END_TIMEOUT_S = 90.0, 15.0
IMAGE, INFO, DEPTH, ODOM = "/camera/image_raw/compressed", "/camera/camera_info", "/camera/depth/image_raw", "/odom"
NODE_PARAMETERS = {
    "node.autostart": "true",
    "node.image_topic": IMAGE,
    "node.compressed": "true",
    "loop.enabled": "true",
    "sensor.camera_info_topic": INFO,
    "sensor.depth_topic": DEPTH,
    "sensor.odom_topic": ODOM,
    "sensor.camera_mount": "'0.2 0.0 0.3 0.0 0.0 0.0'",
}


def main() -> int:
    """Run the drives; the exit code is 0 when all ran to their end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", default=LEVEL, help=f"simulated level (default: {LEVEL})")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="drives that were recorded instead")
    parser.add_argument("--minutes", type=float, default=2.0, help="of driving at 1 m/s (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the way and of the noise (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("demo_output/loops"), help="where everything goes")
    args = parser.parse_args()
    judgements = {}
    try:
        if args.recordings:
            for folder in args.recordings:
                frames = list(recorded_frames(folder))[: round(120 * args.minutes)]
                judgements[folder.name] = run(frames, folder.name, args.output / folder.name)
        else:
            judgements[args.level] = run(simulated(args), args.level, args.output)
    except EtrError as error:
        print(f"closed loop: {error}", file=sys.stderr)
        return 1
    print(table(judgements))
    return 0


def simulated(args: argparse.Namespace) -> list[SensedFrame]:
    """The drive, rendered before it is played, so that rendering takes no time from the node."""
    with World(args.level, seed=args.seed) as world:
        way = plan_laps(FreeSpace(world.level.heights), 60 * args.minutes, args.seed)
        frames = drive_with_sensors(world, way, args.level, args.seed, rate_hz=2.0)
        return list(tqdm(frames, "render", len(way.every(0.5)), unit="image"))


def run(frames: Sequence[SensedFrame], name: str, output: Path) -> Judgement:
    """Play one drive to the two nodes, judge what came out, and draw it. Raises EtrError when a node is silent."""
    output.mkdir(parents=True, exist_ok=True)
    tum = output.resolve() / "corrected.tum"
    parameters = {"odom_topic": ODOM, "tum_file": str(tum)}
    back_end = [sys.executable, "-m", "examples.back_end.node"]
    node = [str(Path(sys.executable).with_name("etr_node"))]
    with (
        process(node, NODE_PARAMETERS, output / "node.log"),
        process(back_end, parameters, output / "back_end.log"),
    ):
        loops, answered, true = play(frames, name)
    path = read_tum(tum)
    believed = {ns: sensed.frame.pose for ns, sensed in true.items() if sensed.frame.pose}
    truth = {ns: sensed.true_pose for ns, sensed in true.items()}
    result = judge(loops, truth, answered, believed, path, LoopConfig())
    (output / "result.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    draw(output / "closed_loop.png", name, result, loops, truth, believed, path)
    print(f"{name}: {output / 'closed_loop.png'}")
    return result


def read_tum(path: Path) -> dict[int, Pose]:
    """Positions by stamp in nanoseconds, exact."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {int(Decimal(row[0]) * 10**9): Pose((float(row[1]), float(row[2]), float(row[3]))) for row in rows}


@contextmanager
def process(command: list[str], parameters: dict[str, str], log: Path) -> Iterator[None]:
    """A ROS node in a process of its own; its output goes to `log`."""
    arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    root = Path(__file__).resolve().parents[2]
    with log.open("w") as output:
        running = subprocess.Popen(
            [*command, "--ros-args", *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=root
        )
        try:
            yield
            if running.poll() is not None:
                raise EtrError(f"a node ended early with code {running.returncode}, see {log}")
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def play(frames: Iterable[SensedFrame], name: str) -> tuple[list[Loop], list[int], dict[int, SensedFrame]]:
    """Publish a drive in real time; the loops, the stamps of the pictures that were answered, and all by its stamp."""
    rclpy.init()
    node = rclpy.create_node("simulated_robot")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        loops: list[Loop] = []
        answered: list[int] = []
        node.create_subscription(LoopClosure, "/etr/loop_closures", lambda m: loops.append(from_message(m)), 1000)
        node.create_subscription(PlaceMatch, "/etr/match", lambda m: answered.append(stamp_ns(m.header.stamp)), 1000)
        kinds = {IMAGE: CompressedImage, INFO: CameraInfo, DEPTH: Image, ODOM: Odometry}
        publishers = {topic: node.create_publisher(kind, topic, 10) for topic, kind in kinds.items()}
        save = node.create_client(Trigger, "/isam2_back_end/save")
        end_s = time.monotonic() + START_TIMEOUT_S
        while not (
            save.service_is_ready()
            and publishers[ODOM].get_subscription_count() > 1
            and all(publisher.get_subscription_count() for publisher in publishers.values())
        ):
            if time.monotonic() > end_s:
                raise EtrError("the nodes did not start to listen, see their logs")
            executor.spin_once(timeout_sec=0.1)
        true: dict[int, SensedFrame] = {}
        frames = list(frames)
        first_ns, began_s = frames[0].frame.stamp_ns, time.monotonic()
        start_ns = time.time_ns()
        for sensed in tqdm(frames, f"drive {name}", unit="image"):
            due_s = began_s + (sensed.frame.stamp_ns - first_ns) / 1e9
            while time.monotonic() < due_s:
                executor.spin_once(timeout_sec=max(0.0, due_s - time.monotonic()))
            now_ns = start_ns + sensed.frame.stamp_ns - first_ns
            true[now_ns] = sensed
            for topic, message in messages(sensed, now_ns).items():
                publishers[topic].publish(message)
        settled_s = time.monotonic() + 3.0
        while time.monotonic() < settled_s:
            executor.spin_once(timeout_sec=0.1)
        future = save.call_async(Trigger.Request())
        executor.spin_until_future_complete(future, timeout_sec=END_TIMEOUT_S)
        reply = future.result()
        if reply is None or not reply.success:
            raise EtrError(f"the back end saved no path: {reply.message if reply else 'no answer'}")
        return loops, answered, true
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def messages(sensed: SensedFrame, now_ns: int) -> dict[str, CompressedImage | CameraInfo | Image | Odometry]:
    """What the robot's sensors say at one moment; odometry and depth first, as they are what the image waits for."""
    frame = sensed.frame
    if frame.pose is None or frame.camera is None or frame.depth_m is None:
        raise EtrError(f"the frame {frame.name} lacks a sensor")
    odometry = Odometry(child_frame_id="base_link")
    odometry.header.frame_id = frame.pose.frame_id
    odometry.pose.pose = to_pose_message(frame.pose)
    depth_mm = to_millimetres(frame.depth_m)
    height, width = depth_mm.shape
    depth = Image(height=height, width=width, encoding="16UC1", step=2 * width, data=depth_mm.tobytes())
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = frame.camera.matrix.ravel().tolist()
    _, jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    image = CompressedImage(format="jpeg", data=jpeg.tobytes())
    for message in (depth, info, image):
        message.header.frame_id = CAMERA_FRAME
    result = {ODOM: odometry, INFO: info, DEPTH: depth, IMAGE: image}
    for message in result.values():
        message.header.stamp = to_stamp(now_ns)
    return result


def from_message(message: LoopClosure) -> Loop:
    """A loop as the core's value."""
    query = Place(message.query_id, "", message.query_session, stamp_ns(message.query_stamp))
    match = Place(message.match_id, "", message.match_session, stamp_ns(message.match_stamp))
    pose = from_pose_message(message.match_t_query.pose, "")
    covariance = np.reshape(message.match_t_query.covariance, (6, 6))
    is_known = bool(np.isfinite(pose.position_m).all())
    found = Geometry(
        message.inliers, -1, pose if is_known else None, covariance if is_known else None, message.is_metric
    )
    return Loop(query, match, found, message.probability, message.support, message.accepted, message.reason)


def draw(
    path: Path,
    name: str,
    result: Judgement,
    loops: list[Loop],
    truth: dict[int, Pose],
    believed: dict[int, Pose],
    corrected: dict[int, Pose],
) -> None:
    """One picture: plan with truth, odometry, corrected path and loops, and the error over the way."""
    stamps = [ns for ns in truth if ns in believed and ns in corrected]
    tracks = [np.array([to_matrix(poses[ns]) for ns in stamps]) for poses in (truth, believed, corrected)]
    index = {ns: i for i, ns in enumerate(stamps)}
    drawn = [
        DrawnLoop(
            index[loop.match.stamp_ns],
            index[loop.query.stamp_ns],
            loop.accepted,
            loop not in result.false_loops,
        )
        for loop in loops
        if loop.accepted and loop.match.stamp_ns in index and loop.query.stamp_ns in index
    ]
    plot_run(path, Run(name, *tracks, loops=drawn))


if __name__ == "__main__":
    sys.exit(main())
