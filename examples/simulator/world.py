"""A headless 3-D world with a camera that can be put anywhere and always tells its true pose.

The engine is ViZDoom (PyPI `vizdoom`, MIT). The levels come inside that package: Freedoom, free content under a
BSD 3-clause licence. Nothing of either is copied here; both are installed from the package index.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import numpy as np
import vizdoom
from numpy.typing import NDArray
from vizdoom import GameVariable

from etr_ros.errors import DataError
from etr_ros.types import Pose
from examples.simulator.camera import Camera, level_pose
from examples.simulator.level import HEIGHT_STRETCH, METRES_PER_UNIT, Level, Sector
from examples.simulator.wad import Material, materials

WADS = {"MAP": "freedoom2.wad", "E": "freedoom1.wad"}
MAX_MISS_UNITS = 1.5
POSE_VARIABLES = (
    GameVariable.CAMERA_POSITION_X,
    GameVariable.CAMERA_POSITION_Y,
    GameVariable.CAMERA_POSITION_Z,
    GameVariable.CAMERA_ANGLE,
)
WARM_UP_TICKS = 10  # the engine ignores turns in the first few
SETTLING_TICKS = 2  # until the eye is back at its height after a warp
TARGET_BRIGHTNESS, MAX_GAIN = 90.0, 4.0


@dataclass(frozen=True, eq=False)
class View:
    """What the camera sees.

    `image` is (H, W, 3) uint8 BGR. `pose` is the true pose of the camera as a body (x forward, y left, z up) in
    frame "map".
    """

    image: NDArray[np.uint8]
    pose: Pose


class World:
    """One level (`MAP01`..`MAP32` or `E1M1`..`E4M9`), empty of things and monsters.

    Use as a context manager, or `close()` it. Raises DataError for an unknown level.
    """

    def __init__(self, level: str, camera: Camera | None = None, seed: int = 0) -> None:
        self.camera = camera or Camera()
        wad = _archive(level)
        self._scratch = TemporaryDirectory(prefix="simulator-")
        self._game = _start(wad, level, self.camera, seed, self._scratch.name)
        self.level = _read_level(level, self._game, materials(wad, level))
        self.set_light()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine."""
        self._game.close()
        self._scratch.cleanup()

    def set_light(self, reach: float = 24.0, exposure: float = 1.0) -> None:
        """Change the lighting of the pictures to come.

        `reach` says how far the level's lamps carry: 8 leaves far walls in the dark, 64 lights everything evenly.
        `exposure` is the brightness that the camera's automatic gain aims at, 1 being its normal setting.
        """
        self._game.send_game_command(f"r_visibility {reach:.3f}")
        self._exposure = exposure

    def look(self, x_m: float, y_m: float, yaw_rad: float) -> View:
        """Stand on the floor at (x, y), look along yaw, and see.

        The engine rounds the position to 25 mm and the angle to 0.006 degrees; the view's pose is what it reached.
        Raises DataError when that is in a wall, or when something has moved into the way.
        """
        target = round(x_m / METRES_PER_UNIT), round(y_m / METRES_PER_UNIT)
        if not self.level.heights.is_inside(x_m, y_m):
            raise DataError(f"({x_m:.2f}, {y_m:.2f}) m is in a wall of {self.level.name}")
        self._game.send_game_command(f"warp {target[0]} {target[1]}")
        turn_left = math.degrees(yaw_rad) - self._variable(GameVariable.ANGLE)
        self._game.make_action([-math.remainder(turn_left, 360.0)])
        self._game.make_action([0.0], SETTLING_TICKS)
        pose = self._pose()
        miss = math.hypot(pose.position_m[0] - x_m, pose.position_m[1] - y_m)
        if miss > MAX_MISS_UNITS * METRES_PER_UNIT:
            raise DataError(f"the camera cannot stand at ({x_m:.2f}, {y_m:.2f}) m of {self.level.name}")
        state = self._game.get_state()
        return View(_expose(state.screen_buffer, self._exposure), pose)

    def _variable(self, name: GameVariable) -> float:
        return float(self._game.get_game_variable(name))

    def _pose(self) -> Pose:
        x, y, z, angle = (self._variable(name) for name in POSE_VARIABLES)
        height = z * METRES_PER_UNIT * HEIGHT_STRETCH
        return level_pose(x * METRES_PER_UNIT, y * METRES_PER_UNIT, height, math.radians(angle))


def _archive(level: str) -> Path:
    for prefix, file in WADS.items():
        if level.startswith(prefix):
            return Path(vizdoom.__file__).parent / file
    raise DataError(f"unknown level '{level}'; take MAP01..MAP32 or E1M1..E4M9")


def _start(wad: Path, level: str, camera: Camera, seed: int, scratch: str) -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(wad))
    game.set_doom_map(level)
    game.set_seed(seed)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_episode_timeout(0)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    try:
        resolution = getattr(vizdoom.ScreenResolution, f"RES_{camera.width_px}X{camera.height_px}")
    except AttributeError:
        raise DataError(f"the engine has no {camera.width_px}x{camera.height_px} pictures; take 640x480") from None
    game.set_screen_resolution(resolution)
    game.set_screen_format(vizdoom.ScreenFormat.BGR24)
    game.set_sectors_info_enabled(True)
    game.set_objects_info_enabled(True)
    for part in ("hud", "weapon", "crosshair", "particles", "effects_sprites", "messages", "decals", "screen_flashes"):
        getattr(game, f"set_render_{part}")(False)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    game.add_game_args("+sv_cheats 1 +cl_showsecretmessage 0 -nomonsters")
    game.set_doom_config_path(os.devnull)
    home = Path.cwd()
    os.chdir(scratch)  # the engine leaves its caches where it is started
    try:
        game.init()
    finally:
        os.chdir(home)
    game.send_game_command("god")
    for kind in {thing.name for thing in game.get_state().objects} - {"DoomPlayer"}:
        game.send_game_command(f"remove {kind}")
    game.make_action([0.0], WARM_UP_TICKS)
    return game


def _read_level(name: str, game: vizdoom.DoomGame, of_sectors: list[Material]) -> Level:
    unit, height = METRES_PER_UNIT, METRES_PER_UNIT * HEIGHT_STRETCH
    sectors = tuple(
        Sector(
            sector.floor_height * height,
            sector.ceiling_height * height,
            tuple((line.x1 * unit, line.y1 * unit, line.x2 * unit, line.y2 * unit) for line in sector.lines),
            tuple(line.is_blocking for line in sector.lines),
            material.is_liquid,
            material.is_open_sky,
        )
        for sector, material in zip(game.get_state().sectors, of_sectors, strict=True)
    )
    return Level(name, sectors)


def _expose(image: NDArray[np.uint8], exposure: float) -> NDArray[np.uint8]:
    gain = min(max(exposure * TARGET_BRIGHTNESS / max(float(image.mean()), 1.0), 0.25), MAX_GAIN)
    return np.minimum(image * np.float32(gain), 255).astype(np.uint8)
