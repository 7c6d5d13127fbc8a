"""Key-frame rules: distance, angle, time, and frames without a pose."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.config import KeyframeConfig
from etr_ros.keyframes import angle_deg, select
from etr_ros.types import Frame, Pose

IMAGE = np.zeros((32, 32, 3), np.uint8)
OFF = 1e4


def pose(x_m: float = 0.0, yaw_deg: float = 0.0) -> Pose:
    half = math.radians(yaw_deg) / 2
    return Pose((x_m, 0.0, 0.0), (0.0, 0.0, math.sin(half), math.cos(half)))


def frame(second: float, place: Pose | None = None) -> Frame:
    return Frame(IMAGE, round(second * 1e9), f"{second:g}", pose=place)


def kept(frames: list[Frame], config: KeyframeConfig) -> list[float]:
    return [item.stamp_ns / 1e9 for item in select(frames, config)]


def test_distance_is_measured_from_the_last_keyframe() -> None:
    frames = [frame(i, pose(x_m=0.25 * i)) for i in range(9)]
    assert kept(frames, KeyframeConfig(distance_m=0.5, angle_deg=180)) == [0, 2, 4, 6, 8]


def test_turning_on_the_spot() -> None:
    frames = [frame(i, pose(yaw_deg=8 * i)) for i in range(7)]
    assert kept(frames, KeyframeConfig(distance_m=OFF, angle_deg=15)) == [0, 2, 4, 6]


def test_time_when_standing_still() -> None:
    frames = [frame(0.5 * i, pose()) for i in range(9)]
    assert kept(frames, KeyframeConfig(distance_m=OFF, angle_deg=180, period_s=2)) == [0, 2, 4]
    assert kept(frames, KeyframeConfig(distance_m=OFF, angle_deg=180, period_s=0)) == [0]


def test_without_poses_time_decides_and_zero_keeps_all() -> None:
    frames = [frame(0.5 * i) for i in range(5)]
    assert kept(frames, KeyframeConfig(period_s=1)) == [0, 1, 2]
    assert len(kept(frames, KeyframeConfig(period_s=0))) == 5


def test_a_frame_without_pose_among_posed_ones() -> None:
    frames = [frame(0, pose()), frame(1), frame(2, pose()), frame(3, pose())]
    assert kept(frames, KeyframeConfig(distance_m=1, angle_deg=90)) == [0, 1, 2]
    assert kept(frames, KeyframeConfig(distance_m=1, angle_deg=90, period_s=10)) == [0]


def test_no_frames() -> None:
    assert kept([], KeyframeConfig()) == []


@given(st.floats(-180, 180), st.floats(-180, 180))
def test_angle_is_the_short_way_round(a: float, b: float) -> None:
    difference = abs((a - b + 180) % 360 - 180)
    assert angle_deg(pose(yaw_deg=a), pose(yaw_deg=b)) == pytest.approx(difference, abs=1e-4)


@given(st.lists(st.floats(-5, 5), max_size=30), st.floats(0.1, 3))
def test_kept_frames_are_apart_and_left_out_ones_are_near(steps: list[float], distance_m: float) -> None:
    positions = np.cumsum([0.0, *steps]).tolist()
    frames = [frame(i, pose(x)) for i, x in enumerate(positions)]
    last = None
    for i, item in enumerate(frames):
        is_kept = item.stamp_ns / 1e9 in kept(frames[: i + 1], KeyframeConfig(distance_m=distance_m, angle_deg=180))
        assert is_kept == (last is None or abs(positions[i] - last) >= distance_m)
        last = positions[i] if is_kept else last
