"""The simulated robot: what its camera sees on a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from etr_ros.errors import DataError
from etr_ros.transforms import OPTICAL, compose, inverse
from etr_ros.types import Frame, Pose
from examples.simulator.depth import DepthCamera
from examples.simulator.noise import Odometry, noisy_depth
from examples.simulator.plan import Round
from examples.simulator.world import View, World

START_NS = 1_700_000_000_000_000_000
BODY_T_MOUNT = Pose((0.20, 0.0, 0.30), frame_id="base_link")  # the camera's body axes, which `World.look` moves
MOUNT_T_BODY = inverse(BODY_T_MOUNT, "camera")
BODY_T_CAMERA = compose(BODY_T_MOUNT, OPTICAL)
LIGHTS = (24.0, 1.0), (14.0, 0.8), (40.0, 1.2)  # reach, exposure; for equal shares of a drive


@dataclass(frozen=True, eq=False)
class SensedFrame:
    """What the robot knows, its pose being drifting odometry, and where it truly is (`map_t_base_link`)."""

    frame: Frame
    true_pose: Pose


def drive(
    world: World, way: Round, session: str, speed_mps: float = 1.0, rate_hz: float = 4.0, start_ns: int = START_NS
) -> Iterator[Frame]:
    """Frames along the round with the camera's true poses, at `rate_hz` pictures per second of the robot's time.

    Where something has moved into the way, the picture is left out.
    """
    for number, (x, y, yaw) in enumerate(way.every(speed_mps / rate_hz)):
        try:
            view = world.look(x, y, yaw)
        except DataError:
            continue
        yield frame_of(view, number, session, start_ns + round(number * 1e9 / rate_hz))


def drive_with_sensors(
    world: World,
    way: Round,
    session: str,
    seed: int,
    speed_mps: float = 1.0,
    rate_hz: float = 4.0,
    start_ns: int = START_NS,
) -> Iterator[SensedFrame]:
    """As `drive`, with noisy depth and odometry, and with the LIGHTS one after the other. Same seed, same frames."""
    depth_camera, odometry = DepthCamera(world.level, world.camera), Odometry(seed)
    stops = way.every(speed_mps / rate_hz)
    for number, (x, y, yaw) in enumerate(stops):
        world.set_light(*LIGHTS[number * len(LIGHTS) // len(stops)])
        try:
            view = world.look(x, y, yaw)
        except DataError:
            continue
        stamp_ns = start_ns + round(number * 1e9 / rate_hz)
        frame, true_pose = sense(world, depth_camera, view, frame_of(view, number, session, stamp_ns), (seed, number))
        yield SensedFrame(replace(frame, pose=odometry.move(true_pose)), true_pose)


def sense(
    world: World, depth_camera: DepthCamera, view: View, frame: Frame, seed: tuple[int, ...]
) -> tuple[Frame, Pose]:
    """The frame of a view with intrinsics, mount, noisy depth and the true pose of the body, which is given besides."""
    true_pose = compose(view.pose, MOUNT_T_BODY)
    depth_m = noisy_depth(depth_camera.see(view.pose), seed)
    rig = {"camera": world.camera.intrinsics, "body_t_camera": BODY_T_CAMERA}
    return replace(frame, pose=true_pose, depth_m=depth_m, **rig), true_pose


def frame_of(view: View, number: int, session: str, stamp_ns: int) -> Frame:
    """The picture of a view with the camera's true pose."""
    return Frame(view.image, stamp_ns, f"{session}_{number:05d}.jpg", session, view.pose)
