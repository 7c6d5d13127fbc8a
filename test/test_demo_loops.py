"""What the demo says of a drive's loops: hand-made drives whose answer is known. And that its processes end."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.config import LoopConfig
from etr_ros.errors import EtrError
from etr_ros.transforms import Matrix, between, compose, exp, quaternion, rotation
from etr_ros.types import Geometry, LoopClosure, Place, Pose
from examples.demo.loop_report import Images, Judgement, Report, judge, judge_path, table, true_revisits
from examples.demo.node_process import running
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


def test_path_is_judged_before_and_after() -> None:
    true = list(TRUE.values())
    bent = [Pose((x, y, 0.5 * (-1) ** row)) for row, (x, y, _) in enumerate(pose.position_m for pose in true)]
    moved = [compose(planar(3.0, -2.0, 1.0), pose) for pose in true]
    result = judge_path(true, bent, moved)
    assert result.odometry_m == pytest.approx(0.5, rel=0.01)
    assert result.corrected_m == pytest.approx(0.0, abs=1e-9)
    assert result.removed_per_loop_m(10) == pytest.approx(0.05, rel=0.01)
    assert math.isnan(result.removed_per_loop_m(0))


def test_a_drive_without_loops_can_be_reported() -> None:
    true = list(TRUE.values())
    report = Report("E1M1", Images(100, 80, 3), judged(), judge_path(true, true, true))
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["loops"]["nees"] is None and values["loops"]["accepted"] == 0 and values["images"]["dropped"] == 3
    header, line, row = table([report]).splitlines()
    assert header.count("|") == line.count("|") == row.count("|") and "E1M1" in row


def test_false_loops_are_named_in_the_report() -> None:
    true = list(TRUE.values())
    wrong = judged(loop(61, 21, np.array([0.6, 0, 0, 0, 0, 0])))
    report = Report("E1M1", Images(80, 80, 0), wrong, judge_path(true, true, true))
    assert report.to_dict()["loops"]["false_loops"] == [{"query_id": 61, "match_id": 21}]


def test_a_node_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    dies = [sys.executable, "-c", "print('why', flush=True); raise SystemExit(3)"]
    with pytest.raises(EtrError, match=r"code 3, see .*node\.log"):
        watch(dies, log)
    assert log.read_text() == "why\n"


def test_a_node_is_ended_when_something_else_fails(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    waits = "import time\ntry:\n print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n print('down')"
    with pytest.raises(ZeroDivisionError):
        fail_when_up([sys.executable, "-c", waits], log)
    assert log.read_text() == "up\ndown\n"


def watch(command: list[str], log: Path) -> None:
    with running(command, {}, log) as require_alive:
        while True:
            require_alive()
            time.sleep(0.01)


def fail_when_up(command: list[str], log: Path) -> None:
    with running(command, {"a.b": "1"}, log):
        while not log.read_text():
            time.sleep(0.01)
        raise ZeroDivisionError
