"""What the true poses say of loops: hand-made drives whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.config import LoopConfig
from etr_ros.loop_metrics import Judgement, LoopProtocol, judge, true_revisits
from etr_ros.transforms import Matrix, between, compose, exp, quaternion, rotation
from etr_ros.types import Geometry, LoopClosure, Place, Pose
from lap_drive import planar

S = 1_000_000_000
T0 = 1_700_000_000 * S
LAP_M = 40
SIGMAS = np.array([0.03, 0.02, 0.01, 0.001, 0.002, 0.003])


def on_circle(way_m: float, height_m: float = 0.0) -> Pose:
    """A lap of 40 m: 9 degrees each metre."""
    angle, radius = 2 * math.pi * way_m / LAP_M, LAP_M / (2 * math.pi)
    return Pose(
        (radius * math.cos(angle), radius * math.sin(angle), height_m), quaternion(exp([0, 0, angle + math.pi / 2]))
    )


# Two laps at 1 m/s, a keyframe each second
TRUE = {T0 + second * S: on_circle(second) for second in range(2 * LAP_M)}
KEYFRAMES = list(TRUE)


def place(row: int) -> Place:
    return Place(row, "", "today", KEYFRAMES[row])


def loop(query: int, match: int, off: Matrix | None = None, **changes: object) -> LoopClosure:
    """An accepted metric loop whose relative pose is off by (6,) metres and radians about the match's axes."""
    off = np.zeros(6) if off is None else off
    true = between(TRUE[KEYFRAMES[match]], TRUE[KEYFRAMES[query]])
    x, y, z = (np.array(true.position_m) + off[:3]).tolist()
    relative = Pose((x, y, z), quaternion(exp(off[3:]) @ rotation(true.quat_xyzw)))
    values: dict[str, object] = {"match_t_query": relative, "covariance": np.diag(SIGMAS**2), "is_metric": True}
    geometry = Geometry(80, 100, **(values | changes))  # type: ignore[arg-type]
    return LoopClosure(place(query), place(match), geometry, 0.99, 3, accepted=True)


def judged(*loops: LoopClosure) -> Judgement:
    return judge(loops, TRUE, KEYFRAMES, LoopConfig())


def test_the_second_lap_revisits_the_first() -> None:
    assert true_revisits(TRUE, KEYFRAMES, LoopConfig()) == set(KEYFRAMES[LAP_M - 1 :])  # 1 m before the start, too


def test_a_place_is_no_revisit_while_it_is_excluded() -> None:
    assert not true_revisits(TRUE, KEYFRAMES, dataclasses.replace(LoopConfig(), exclusion_s=80.0))
    assert not true_revisits(TRUE, KEYFRAMES, dataclasses.replace(LoopConfig(), exclusion_m=80.0))


def test_standing_still_revisits_nothing() -> None:
    standing = {stamp: planar(1.0, 2.0, 0.5) for stamp in KEYFRAMES}
    assert not true_revisits(standing, KEYFRAMES, LoopConfig())


def test_the_way_back_looks_the_other_way_and_revisits_nothing() -> None:
    there = {T0 + second * S: planar(second, 0.0, 0.0) for second in range(30)}
    back = {T0 + (59 - second) * S: planar(second, 0.0, math.pi) for second in range(30)}
    assert not true_revisits(there | back, list(there | back), LoopConfig())


def test_only_keyframes_count_as_revisits() -> None:
    assert judge([], TRUE, KEYFRAMES[LAP_M + 1 :], LoopConfig()).revisits == 0


def test_recall_counts_each_revisit_once_and_only_right_accepted_loops() -> None:
    rejected = dataclasses.replace(loop(50, 10), accepted=False, reason="no support")
    wrong = loop(51, 11, np.array([0.0, 0.6, 0, 0, 0, 0]))
    result = judged(loop(60, 20), loop(60, 21), loop(61, 21), rejected, wrong)
    assert (result.revisits, result.accepted, result.false_loops) == (41, 4, (wrong,))
    assert result.recall == pytest.approx(2 / 41)


@pytest.mark.parametrize(
    ("off", "wrong"),
    [
        ([0.3, 0.39, 0, 0, 0, 0], False),
        ([0.3, 0.41, 0, 0, 0, 0], True),
        ([0, 0, 0, 0, 0, math.radians(9.9)], False),
        ([0, 0, 0, math.radians(7.2), 0, math.radians(-7.2)], True),
    ],
)
def test_a_loop_is_false_beyond_half_a_metre_or_ten_degrees(off: list[float], wrong: bool) -> None:
    assert len(judged(loop(60, 20, np.array(off))).false_loops) == wrong


def test_without_scale_rotation_and_distance_of_the_places_are_judged() -> None:
    turned = np.array([0, 0, 0, 0, 0, math.radians(11)])

    def direction(query: int, match: int, off: Matrix | None = None) -> LoopClosure:
        return loop(query, match, off, is_metric=False)

    def nothing(query: int, match: int) -> LoopClosure:
        return loop(query, match, is_metric=False, match_t_query=None, covariance=None)

    right = [direction(60, 20), nothing(61, 17)]
    wrong = [direction(60, 20, turned), direction(62, 12), nothing(63, 13)]
    result = judged(*right, *wrong)
    assert result.false_loops == tuple(wrong)
    assert math.isnan(result.median_m) and math.isnan(result.nees)


def test_errors_of_one_standard_deviation_have_a_nees_of_their_dimension() -> None:
    result = judged(loop(60, 20, SIGMAS), loop(61, 21, -SIGMAS), loop(62, 22, SIGMAS))
    assert result.nees == pytest.approx(6.0, rel=1e-4) == result.nees_right
    assert result.median_m == pytest.approx(np.linalg.norm(SIGMAS[:3]))
    assert result.median_deg == pytest.approx(math.degrees(np.linalg.norm(SIGMAS[3:])))


def test_a_false_loop_counts_in_nees_but_not_in_that_of_right_loops() -> None:
    result = judged(loop(60, 20, SIGMAS), loop(61, 21, np.array([0.6, 0, 0, 0, 0, 0])))
    assert result.nees == pytest.approx((6 + 20**2) / 2, rel=1e-4)
    assert result.nees_right == pytest.approx(6.0, rel=1e-4)


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_the_frame_of_the_true_poses_does_not_matter(motion: list[float]) -> None:
    x, y, z, *turn = motion
    moved = Pose((x, y, z), quaternion(exp(turn)))
    loops = [loop(60, 20, SIGMAS), loop(61, 21, np.array([0.6, 0, 0, 0, 0, 0]))]
    elsewhere = judge(loops, {at: compose(moved, pose) for at, pose in TRUE.items()}, KEYFRAMES, LoopConfig())
    here = judged(*loops)
    assert elsewhere.false_loops == here.false_loops
    assert (elsewhere.revisits, elsewhere.recall) == (here.revisits, here.recall)
    assert elsewhere.nees == pytest.approx(here.nees, rel=1e-5)


def test_a_loop_whose_true_pose_is_missing_is_no_silent_zero() -> None:
    with pytest.raises(KeyError):
        judge([loop(60, 20)], {at: TRUE[at] for at in KEYFRAMES[30:]}, KEYFRAMES[30:], LoopConfig())


def test_where_the_truth_knows_no_rotation_only_distances_are_judged() -> None:
    gps = LoopProtocol(knows_rotation=False)
    turned = {at: Pose(pose.position_m) for at, pose in TRUE.items()}
    off, wrong = loop(60, 20, np.array([3.0, 0, 0, 0, 0, 0])), loop(62, 12)
    result = judge([off, wrong], turned, KEYFRAMES, LoopConfig(), gps)
    assert result.false_loops == (wrong,)
    assert math.isnan(result.nees) and math.isnan(result.median_m)


def test_a_place_of_another_session_is_judged_by_its_own_pose() -> None:
    inner = loop(60, 20)
    mapped = dataclasses.replace(inner.match, session="yesterday", stamp_ns=5, pose=TRUE[KEYFRAMES[20]])
    assert not judged(dataclasses.replace(inner, match=mapped)).false_loops
    elsewhere = dataclasses.replace(mapped, pose=TRUE[KEYFRAMES[25]])
    assert judged(dataclasses.replace(inner, match=elsewhere)).false_loops
    with pytest.raises(KeyError):
        judged(dataclasses.replace(inner, match=dataclasses.replace(mapped, pose=None)))
