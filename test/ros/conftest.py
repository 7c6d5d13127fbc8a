"""Real processes over a real DDS, in a domain of this test session only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

try:
    import rclpy

    from etr_ros_msgs.msg import PlaceMatch  # noqa: F401 - the folder of its sources can be imported, too
except ImportError as error:
    collect_ignore_glob = ["test_*.py"]
    REASON = f"ROS 2 with etr_ros_msgs is not here ({error}): `make setup` or source an overlay"
else:
    REASON = ""

    from robot import Robot

from builders import SPEC, make_features, make_frame
from etr_ros.map_writer import MapWriter
from etr_ros.types import Pose


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REASON:
        terminalreporter.write_line(f"test/ros skipped: {REASON}")


def write_map(path: Path, places: int, *, posed: bool = True) -> Path:
    with MapWriter(path, SPEC, "exact", {}) as writer:
        for number in range(places):
            pose = Pose((float(number), 2.0, 0.0)) if posed else None
            writer.add(make_frame(number, pose), make_features(number))
        writer.commit()
    return path


@pytest.fixture(scope="session")
def map_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 5 places along x, one metre apart."""
    return write_map(tmp_path_factory.mktemp("maps") / "first", 5)


@pytest.fixture(scope="session")
def other_map_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 3 places without poses."""
    return write_map(tmp_path_factory.mktemp("maps") / "second", 3, posed=False)


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """The other side: camera, subscribers and service clients, in this process."""
    rclpy.init()
    robot = Robot()
    yield robot
    robot.close()
    rclpy.shutdown()
