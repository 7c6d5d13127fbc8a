"""Loop mode with input that is missing or bad: named in diagnostics, no invented numbers, and good again afterwards.

One node and one survey for all; each test spoils one sensor on a stretch of its own and drives it once more with
good ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from loop_driver import AGAIN, AWAY, LAP, LOOPS, NODE, SENSORS, Driver, along, camera_info
from robot import NodeProcess, Robot
from sensor_msgs.msg import Image

import sensor_messages
from etr_ros.ros.conversions import stamp_ns
from etr_ros.types import Pose
from etr_ros_msgs.msg import LoopClosure
from landmarks import CAMERA, Landmarks

pytestmark = pytest.mark.timeout(3600)  # the survey belongs to the first test
FAR = AWAY[:1]
MANY = {"geometry.candidates": 8}
STRETCH_M = 3.4
stretches = itertools.count(1.2, STRETCH_M)


class Stretch:
    """A part of the surveyed way that no other test drives, and two ways along it."""

    def __init__(self) -> None:
        start = next(stretches)
        self.bad, self.good = (along(start, start + STRETCH_M - 0.4, y) for y in (-0.3, 0.3))


@pytest.fixture
def stretch() -> Stretch:
    return Stretch()


@pytest.fixture(scope="module")
def mapped(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(robot, Landmarks(seed=1))
    with NodeProcess(tmp_path_factory.mktemp("bad") / "log", NODE, **(SENSORS | LOOPS | MANY)) as process:
        driver.ready()
        driver.drive(*along(1.0, 32.0, 0.0))
        yield driver
        assert process.stop() == 0
        assert "Traceback" not in process.output
    driver.close()


def require_honest(driver: Driver, loops: Sequence[LoopClosure]) -> None:
    """Every number that is told is right, or not there."""
    for loop in loops:
        numbers = [loop.match_t_query.pose.position.x, *loop.match_t_query.covariance]
        if loop.is_metric and loop.accepted:
            assert driver.off_m(loop) < 0.1
        assert np.isfinite(numbers).all() or np.isnan(numbers).all()


def drive_bad(driver: Driver, stretch: Stretch) -> list[LoopClosure]:
    """Come from elsewhere and drive the stretch; the loops of its pictures."""
    driver.drive(*FAR)
    driver.heed()
    before_ns = driver.now_ns
    loops = driver.drive(*stretch.bad)
    return [loop for loop in loops if stamp_ns(loop.query_stamp) > before_ns]


def require_good_again(driver: Driver, stretch: Stretch, words: str) -> None:
    """With good sensors there are metric loops, and the complaint goes."""
    loops = driver.drive(*FAR, *stretch.good)
    require_honest(driver, loops)
    assert any(loop.accepted and loop.is_metric for loop in loops)
    driver.robot.until(lambda: words not in driver.robot.value("problems"), f"'{words}' to go")


def half_size(true: Pose, stamp: int) -> Image:
    return sensor_messages.depth(np.ones((240, 320), np.float32), stamp)


def flat(distance_m: float) -> Callable[[Pose, int], Image]:
    values = np.full((CAMERA.height, CAMERA.width), distance_m, np.float32)
    return lambda true, stamp: sensor_messages.depth(values, stamp)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"width": 320, "height": 240, "k": [200.0, 0, 160, 0, 200, 120, 0, 0, 1]}, "camera info is for 320 x 240"),
        ({"k": [0.0] * 9}, "the camera is not calibrated"),
    ],
)
def test_bad_camera_info(mapped: Driver, stretch: Stretch, changed: dict[str, Any], words: str) -> None:
    mapped.info = lambda stamp: camera_info(stamp, **changed)
    loops = drive_bad(mapped, stretch)
    mapped.info = camera_info
    mapped.named(words)
    require_honest(mapped, loops)
    assert not any(loop.is_metric for loop in loops)
    require_good_again(mapped, stretch, words)


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (half_size, "the depth image has 320 x 240 px, the picture 640 x 480"),
        (flat(0.0), "all zero or NaN"),
        (flat(math.nan), "all zero or NaN"),
    ],
)
def test_bad_depth(mapped: Driver, stretch: Stretch, depth: Callable[[Pose, int], Image], words: str) -> None:
    """The map's own 3-D points, or triangulation, may still tell a metric pose; a wrong one would be invented."""
    mapped.depth = depth
    loops = drive_bad(mapped, stretch)
    mapped.depth = mapped.depth_image
    mapped.named(words)
    require_honest(mapped, loops)
    require_good_again(mapped, stretch, words)


def test_odometry_jumps(mapped: Driver, stretch: Stretch) -> None:
    mapped.drive(*AWAY)
    mapped.heed()
    mapped.odometry = lambda true: Pose((true.position_m[0] + 30.0, true.position_m[1] - 9.0, 0.0), true.quat_xyzw)
    loops = mapped.drive(AWAY[-1])
    mapped.named("odometry jumped")
    loops += mapped.drive(*stretch.bad)
    require_honest(mapped, loops)
    assert any(loop.accepted for loop in loops), "within the new piece of odometry queries support each other"
    mapped.odometry = lambda true: true
    mapped.drive(AWAY[1])
    require_good_again(mapped, stretch, "odometry jumped")


@pytest.mark.parametrize(
    ("odometry", "words"),
    [
        (lambda true: None, "odometry on /odom stopped"),
        (lambda true: Pose((math.nan, 0.0, 0.0)), "odometry on /odom holds NaN"),
    ],
)
def test_odometry_that_stops(
    mapped: Driver, stretch: Stretch, odometry: Callable[[Pose], Pose | None], words: str
) -> None:
    """Pictures without odometry are no keyframes: nothing could contradict their loops."""
    mapped.drive(*AWAY)
    mapped.heed()
    mapped.odometry = odometry
    before = len(mapped.robot.matches), len(mapped.loops)
    for pose in stretch.bad[:3]:
        mapped.move(pose)
        mapped.settle()
    mapped.named(words)
    assert (len(mapped.robot.matches), len(mapped.loops)) == before
    mapped.odometry = lambda true: true
    require_good_again(mapped, stretch, words)


def test_time_goes_back(mapped: Driver) -> None:
    """A bag that is started again is another session: nothing of before is matched."""
    mapped.drive(*AWAY)
    places = int(mapped.robot.value("places"))
    mapped.heed()
    mapped.now_ns -= 3600 * 10**9
    mapped.drive(AWAY[-1])
    mapped.named("time went back by")
    assert int(mapped.robot.value("places")) < 10 < places
    loops = mapped.drive(*LAP, *AWAY)
    assert not any(loop.accepted for loop in loops)
    loops += mapped.drive(*AGAIN)
    require_honest(mapped, loops)
    assert any(loop.accepted for loop in loops)
