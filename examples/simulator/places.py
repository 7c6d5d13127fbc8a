"""Groups of views of the same place: the training and evaluation pictures of a level."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from etr_ros.errors import DataError
from etr_ros.types import Frame
from examples.simulator.camera import level_pose
from examples.simulator.covisibility import sight
from examples.simulator.space import FreeSpace, Points
from examples.simulator.world import World

EYE_M = 1.23
VIEWS_PER_PLACE = 3
MAX_SHIFT_M = 1.5
MAX_TURN_RAD = math.radians(35)
LIGHT_REACH = 10.0, 48.0
EXPOSURE = 0.6, 1.4
MIN_DEPTH_M = 2.0
ATTEMPTS = 8


def views_of_places(world: World, places: int, seed: int) -> Iterator[Frame]:
    """VIEWS_PER_PLACE frames for each of `places` places spread over the level.

    The first view of a place looks into the open; the others are moved by up to MAX_SHIFT_M and turned by up to
    MAX_TURN_RAD from it. Each has its own lighting. Same seed, same frames.
    """
    rng = np.random.default_rng(seed)
    space = FreeSpace(world.level.heights)
    for place, point in enumerate(space.spread_points(places, rng)):
        yaw = _open_direction(space, world, point, rng)
        for view in range(VIEWS_PER_PLACE):
            world.set_light(math.exp(rng.uniform(*np.log(LIGHT_REACH))), rng.uniform(*EXPOSURE))
            position = point if view == 0 else _nearby(space, point, rng)
            turn = 0.0 if view == 0 else rng.uniform(-MAX_TURN_RAD, MAX_TURN_RAD)
            try:
                seen = world.look(float(position[0]), float(position[1]), yaw + turn)
            except DataError:  # a lift or door has moved into the way
                continue
            stamp_ns = (place * VIEWS_PER_PLACE + view) * 1_000_000_000
            yield Frame(seen.image, stamp_ns, f"p{place:04d}_{view}.jpg", world.level.name, seen.pose)


def _open_direction(space: FreeSpace, world: World, point: Points, rng: np.random.Generator) -> float:
    """A random yaw from which something can be seen; the best of a few when the place is narrow."""
    floor_m = float(space.heights.floor_m[space.heights.cells(point[0], point[1])])
    best, best_depth = 0.0, -1.0
    for yaw in rng.uniform(-math.pi, math.pi, ATTEMPTS):
        pose = level_pose(float(point[0]), float(point[1]), floor_m + EYE_M, yaw)
        depth = float(np.median(sight(space.heights, world.camera, pose).depth_m))
        if depth > best_depth:
            best, best_depth = yaw, depth
        if MIN_DEPTH_M <= depth < math.inf:
            return float(yaw)
    return float(best)


def _nearby(space: FreeSpace, point: Points, rng: np.random.Generator) -> Points:
    for _ in range(ATTEMPTS):
        shift, direction = MAX_SHIFT_M * math.sqrt(rng.uniform()), rng.uniform(-math.pi, math.pi)
        moved = point + shift * np.array([math.cos(direction), math.sin(direction)])
        if space.is_straight_way_free(point, moved):
            return moved
    return point
