"""Which images are worth a query."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.config import NodeConfig
from etr_ros.ros.gate import QueryGate
from etr_ros.types import Pose

SECOND = 10**9


def at(x_m: float, turn_deg: float = 0.0) -> Pose:
    half = math.radians(turn_deg) / 2
    return Pose((x_m, 0.0, 0.0), (0.0, 0.0, math.sin(half), math.cos(half)))


@given(st.lists(st.integers(-(10**18), 10**18)))
def test_by_default_every_image_passes(stamps_ns: list[int]) -> None:
    gate = QueryGate()
    assert all(gate.admit(stamp_ns, None, NodeConfig()) for stamp_ns in stamps_ns)


def test_least_time_is_measured_from_the_last_that_passed() -> None:
    gate, config = QueryGate(), NodeConfig(min_period_s=1.0)
    stamps = [0.0, 0.6, 1.0, 1.9, 2.0]
    assert [gate.admit(round(s * SECOND), None, config) for s in stamps] == [True, False, True, False, True]


@pytest.mark.parametrize("stamp_ns", [10 * SECOND, 3 * SECOND, 0, -SECOND])
def test_stamp_that_is_not_later_passes(stamp_ns: int) -> None:
    gate, config = QueryGate(), NodeConfig(min_period_s=1.0)
    assert gate.admit(10 * SECOND, None, config)
    assert gate.admit(stamp_ns, None, config)


@pytest.mark.parametrize(
    ("metres", "degrees", "pose", "passes"),
    [
        (1.0, 0.0, at(0.9), False),
        (1.0, 0.0, at(1.0), True),
        (1.0, 0.0, at(0.0, 170.0), False),
        (0.0, 30.0, at(50.0, 29.0), False),
        (0.0, 30.0, at(0.0, 31.0), True),
        (1.0, 30.0, at(0.5, 31.0), True),
        (1.0, 30.0, at(0.5, -31.0), True),
        (1.0, 30.0, at(0.5, 29.0), False),
        (1.0, 30.0, None, True),
    ],
)
def test_least_motion(metres: float, degrees: float, pose: Pose | None, passes: bool) -> None:
    gate, config = QueryGate(), NodeConfig(min_motion_m=metres, min_motion_deg=degrees)
    assert gate.admit(0, at(0.0), config)
    assert gate.admit(SECOND, pose, config) is passes


def test_slow_motion_adds_up() -> None:
    gate, config = QueryGate(), NodeConfig(min_motion_m=1.0)
    passed = [gate.admit(i, at(0.25 * i), config) for i in range(9)]
    assert [i for i, yes in enumerate(passed) if yes] == [0, 4, 8]


def test_always_passes_and_counts_as_the_last_query() -> None:
    gate, config = QueryGate(), NodeConfig(min_period_s=1.0)
    assert gate.admit(0, None, config)
    assert gate.admit(SECOND // 2, None, config, always=True)
    assert not gate.admit(SECOND, None, config)
