"""The simulated robot: what its camera sees on a round."""

from __future__ import annotations

from collections.abc import Iterator

from etr_ros.errors import DataError
from etr_ros.types import Frame
from examples.simulator.plan import Round
from examples.simulator.world import World

START_NS = 1_700_000_000_000_000_000


def drive(
    world: World, way: Round, session: str, speed_mps: float = 1.0, rate_hz: float = 4.0, start_ns: int = START_NS
) -> Iterator[Frame]:
    """Frames along the round with their true poses, at `rate_hz` pictures per second of the robot's time.

    Where something has moved into the way, the picture is left out.
    """
    for number, (x, y, yaw) in enumerate(way.every(speed_mps / rate_hz)):
        try:
            view = world.look(x, y, yaw)
        except DataError:
            continue
        stamp_ns = start_ns + round(number * 1e9 / rate_hz)
        yield Frame(view.image, stamp_ns, f"{session}_{number:05d}.jpg", session, view.pose)
