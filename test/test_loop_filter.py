"""Which hypotheses become loop closures: made-up drives with known poses, true and false hypotheses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from etr_ros.chains import Prediction
from etr_ros.config import LoopConfig
from etr_ros.consistency import Hypothesis, contradiction, disagreement
from etr_ros.loop_filter import LoopFilter
from etr_ros.transforms import between, compose
from etr_ros.types import Geometry, LoopClosure, Place, Pose

CONFIG = LoopConfig(min_support=2, first_support=2, support_s=10.0, max_pending=20)
SURE = np.diag([0.02**2] * 3 + [0.01**2] * 3)


def place(number: int, x: float, y: float = 0.0, pose: bool = True, session: str = "") -> Place:
    return Place(number, f"{number}", session, number * 10**9, Pose((x, y, 0.0), frame_id="odom") if pose else None)


def hypothesis(
    query: Place, match: Place, geometry: Geometry | None = None, *, ways: tuple[float, float | None] = (0.0, None)
) -> Hypothesis:
    """By default with the relative pose that the places' poses say."""
    if geometry is None:
        geometry = Geometry(100, 150, between(match.pose, query.pose), SURE, is_metric=True)  # type: ignore[arg-type]
    return Hypothesis(query, match, "map", geometry, 0.9, *ways)


def true_loop(number: int) -> Hypothesis:
    """Query `number`, one metre ahead of the one before, seen 0.5 m beside the place that it passes."""
    return hypothesis(place(100 + number, number, 0.5), place(number, number), ways=(100.0 + number, None))


def moved(h: Hypothesis, x: float) -> Hypothesis:
    """The same query, said to stand `x` metres elsewhere along."""
    assert h.geometry.match_t_query is not None
    wrong = compose(Pose((x, 0.0, 0.0)), h.geometry.match_t_query)
    return dataclasses.replace(h, geometry=dataclasses.replace(h.geometry, match_t_query=wrong))


def drive_on(
    loop_filter: LoopFilter, keyframe: Place, way_m: float, hypotheses: list[Hypothesis], segment: int = 0
) -> list[LoopClosure]:
    loop_filter.add(keyframe, way_m, segment)
    return loop_filter.update(keyframe, hypotheses)


def run(drive: list[list[Hypothesis]], config: LoopConfig = CONFIG, first_lap: int = 0) -> list[LoopClosure]:
    """Queries 100, 101, ... one metre apart; before them `first_lap` keyframes without hypotheses."""
    loop_filter = LoopFilter(config)
    for number in range(first_lap):
        drive_on(loop_filter, place(number, number), float(number), [])
    decided = []
    for i, hypotheses in enumerate(drive):
        segment = hypotheses[0].query_segment if hypotheses else 0
        decided += drive_on(loop_filter, place(100 + i, i, 0.5), 100.0 + i, hypotheses, segment)
    return decided + loop_filter.flush()


def test_true_loops_agree_and_a_moved_one_does_not() -> None:
    a, b = true_loop(0), true_loop(3)
    assert disagreement(a, b, CONFIG) == ""
    assert "5.0 m" in disagreement(moved(a, 5.0), b, CONFIG)


@pytest.mark.parametrize(("sigmas", "is_refused"), [(3.0, False), (3.5, True)])
def test_a_turn_is_judged_alone(sigmas: float, is_refused: bool) -> None:
    """A room with four sides alike is wrong by a quarter turn and by little else."""
    sigma_rad = np.radians(90.0) / sigmas
    half = np.radians(90.0) / 2
    found = Geometry(100, 150, Pose((0.0, 0.0, 0.0), (0.0, 0.0, np.sin(half), np.cos(half))), SURE * 1e-6, True)
    uncertain = np.diag([5.0**2] * 3 + [sigma_rad**2] * 3)
    asked = hypothesis(place(1, 0.0), place(0, 0.0), found)
    reason = contradiction(asked, Prediction(Pose((0.0, 0.0, 0.0)), uncertain, 110.0))
    assert ("90 degrees" in reason) is is_refused and bool(reason) is is_refused


def test_a_row_of_true_loops_is_accepted_from_the_first_on() -> None:
    decided = run([[true_loop(i)] for i in range(5)])
    assert len(decided) == 5 and all(loop.accepted and not loop.reason for loop in decided)
    assert [loop.query.place_id for loop in decided] == [100, 101, 102, 103, 104]
    assert all(loop.support >= 2 for loop in decided)


def test_a_lone_hypothesis_is_rejected_and_says_why() -> None:
    decided = run([[true_loop(0)], *[[]] * 15])
    assert [(loop.accepted, loop.reason) for loop in decided] == [(False, "0 neighbouring queries agree, 2 are needed")]


def test_false_hypotheses_that_do_not_agree_are_all_rejected() -> None:
    drive = [[moved(true_loop(i), x)] for i, x in enumerate((7.0, -9.0, 20.0, -30.0, 12.0))]
    assert not any(loop.accepted for loop in run(drive))


def test_a_false_one_among_true_ones_is_rejected() -> None:
    drive = [[true_loop(0)], [true_loop(1)], [moved(true_loop(2), 6.0)], [true_loop(3)], [true_loop(4)]]
    decided = {loop.query.place_id: loop for loop in run(drive)}
    assert [decided[100 + i].accepted for i in range(5)] == [True, True, False, True, True]


def test_odometry_since_an_accepted_loop_refuses_a_consistent_wrong_row() -> None:
    """A look-alike corridor: the wrong row agrees with itself, but lies 5 m from where odometry leads."""
    right = [[true_loop(i)] for i in range(4)]
    wrong = [[moved(true_loop(i), 5.0)] for i in range(5, 10)]
    decided = run([*right, [], *wrong])
    assert [loop.accepted for loop in decided] == [True] * 4 + [False] * 5
    assert all("odometry contradicts" in loop.reason for loop in decided[4:])


def test_within_a_session_odometry_speaks_before_any_loop_was_accepted() -> None:
    """100 m of way, drifting by 2 %: 1 m beside is possible, 90 m is not."""

    def in_session(h: Hypothesis, number: int) -> Hypothesis:
        return dataclasses.replace(h, map="", match_way_m=float(number))

    for off_m, is_possible in ((0.0, True), (1.0, True), (90.0, False)):
        drive = [[in_session(moved(true_loop(i), off_m), i)] for i in range(4)]
        decided = run(drive, first_lap=100)
        assert len(decided) == 4 and all(loop.accepted == is_possible for loop in decided)


def test_an_accepted_loop_makes_the_prediction_for_later_ones_sharp() -> None:
    """What was possible before the first loop is refused after it, also over the chain of the loop."""

    def in_session(h: Hypothesis, number: int) -> Hypothesis:
        return dataclasses.replace(h, map="", match_way_m=float(number))

    right = [[in_session(true_loop(i), i)] for i in range(4)]
    wrong = [[in_session(moved(true_loop(i), 1.0), i)] for i in range(4, 8)]
    assert [loop.accepted for loop in run(right + wrong, first_lap=100)] == [True] * 4 + [False] * 4


def test_two_stories_of_equal_support_are_both_rejected() -> None:
    drive = [[true_loop(i), moved(true_loop(i), 15.0)] for i in range(4)]
    decided = run(drive)
    assert len(decided) == 8 and not any(loop.accepted for loop in decided)
    assert any("another place explains" in loop.reason for loop in decided)


def test_nothing_is_lost_and_the_queue_stays_bounded() -> None:
    config = dataclasses.replace(CONFIG, max_pending=3, support_s=1000.0)
    loop_filter = LoopFilter(config)
    decided: list[LoopClosure] = []
    for i in range(30):
        lonely = [moved(true_loop(i), 40.0 * (i + 1))]
        decided += drive_on(loop_filter, place(100 + i, i, 0.5), 100.0 + i, lonely)
        assert loop_filter.pending <= 3
    decided += loop_filter.flush()
    assert len({loop.query.place_id for loop in decided}) == len(decided) == 30 and loop_filter.pending == 0


def test_the_same_query_does_not_support_itself() -> None:
    first = true_loop(0)
    beside = hypothesis(first.query, place(1, 1.0), ways=(100.0, None))
    assert not any(loop.accepted for loop in run([[first, beside], [first, beside]]))


def test_rotation_alone_is_compared_when_there_is_no_scale() -> None:
    def unscaled(h: Hypothesis, degrees: float = 0.0) -> Hypothesis:
        half = np.radians(degrees) / 2
        pose = Pose((1.0, 0.0, 0.0), (0.0, 0.0, float(np.sin(half)), float(np.cos(half))))
        return dataclasses.replace(h, geometry=Geometry(100, 150, pose, SURE, is_metric=False))

    assert all(loop.accepted for loop in run([[unscaled(true_loop(i))] for i in range(4)]))
    wrong = [[unscaled(true_loop(i), 40.0 * i)] for i in range(4)]
    assert not any(loop.accepted for loop in run(wrong))


def test_without_poses_the_places_must_follow_each_other_as_the_queries_do() -> None:
    bare = Geometry(100, 150)

    def unposed(number: int, match: int) -> Hypothesis:
        return hypothesis(place(100 + number, 0.0, pose=False), place(match, 0.0, pose=False), bare)

    assert all(loop.accepted for loop in run([[unposed(i, i)] for i in range(4)]))
    assert all(loop.accepted for loop in run([[unposed(i, 20 - i)] for i in range(4)])), "driven the other way"
    assert not any(loop.accepted for loop in run([[unposed(i, m)] for i, m in enumerate((0, 50, 10, 80))]))
    config = dataclasses.replace(CONFIG, first_support=8)
    assert all(loop.accepted for loop in run([[unposed(i, i // 2)] for i in range(12)], config)), "half as fast"
    assert not any(loop.accepted for loop in run([[unposed(i, 0)] for i in range(12)], config)), "one place for all"


@pytest.mark.parametrize("side", ["query_segment", "match_segment"])
def test_poses_on_both_sides_of_an_odometry_break_are_not_compared(side: str) -> None:
    drive = [[dataclasses.replace(true_loop(i), **{side: i})] for i in range(4)]
    assert not any(loop.accepted for loop in run(drive))


def test_where_odometry_does_not_tell_the_place_the_first_loop_needs_more_support() -> None:
    """A repeating texture misleads a few queries in a row; once a loop is accepted, `min_support` is enough again."""
    config = dataclasses.replace(CONFIG, first_support=6)
    assert not any(loop.accepted for loop in run([[true_loop(i)] for i in range(6)], config))
    decided = run([[true_loop(i)] for i in range(7)], config)
    assert len(decided) == 7 and all(loop.accepted for loop in decided)
    later = [[true_loop(i)] if i < 7 or i > 9 else [] for i in range(13)]
    assert all(loop.accepted for loop in run(later, config))


def test_without_scale_the_first_support_is_always_needed() -> None:
    config = dataclasses.replace(CONFIG, first_support=6)

    def unscaled(h: Hypothesis) -> Hypothesis:
        return dataclasses.replace(h, geometry=dataclasses.replace(h.geometry, is_metric=False))

    assert not any(loop.accepted for loop in run([[unscaled(true_loop(i))] for i in range(6)], config))
    assert all(loop.accepted for loop in run([[unscaled(true_loop(i))] for i in range(7)], config))


def test_what_odometry_refuses_leaves_its_turn_to_the_next_hypothesis() -> None:
    """A look-alike with more inliers than the true place: it is told as rejected, the true one is followed up."""
    accepted = [[true_loop(i)] for i in range(4)]
    misled = [[moved(true_loop(4), 5.0), moved(true_loop(4), 6.0), true_loop(4)]]
    decided = run(accepted + misled)
    last = [loop for loop in decided if loop.query.place_id == 104]
    assert [loop.accepted for loop in last] == [False, True]
    assert "odometry contradicts" in last[0].reason


def test_of_one_query_two_stories_are_followed_up() -> None:
    stories = [true_loop(0), moved(true_loop(0), 0.01), moved(true_loop(0), 9.0), moved(true_loop(0), 20.0)]
    decided = run([stories])
    assert [loop.geometry for loop in decided] == [stories[0].geometry, stories[2].geometry]


def in_session(query: Place, match: Place, segments: tuple[int, int], x_off: float = 0.0) -> Hypothesis:
    """Query and match stand at one spot of the world; odometry broke off between their segments."""
    geometry = Geometry(100, 150, Pose((x_off, 0.0, 0.0)), SURE, is_metric=True)
    ways = float(query.place_id), float(match.place_id)
    return Hypothesis(query, match, "", geometry, 0.9, *ways, *segments)


@pytest.mark.parametrize(("x_off", "expected"), [(0.0, True), (4.0, False)])
def test_one_place_in_two_pieces_of_odometry_is_no_rival_of_itself(x_off: float, expected: bool) -> None:
    """Loops accepted before tell that the two are one; said to be 4 m apart, each is as good as the other."""
    loop_filter = LoopFilter(CONFIG)
    laps = [[place(100 * lap + i, i + 30.0 * lap) for i in range(5)] for lap in range(3)]
    for keyframe in laps[0]:
        drive_on(loop_filter, keyframe, float(keyframe.place_id), [])
    joined = []
    for match, query in zip(laps[0], laps[1], strict=True):
        loops = [in_session(query, match, (1, 0))]
        joined += drive_on(loop_filter, query, float(query.place_id), loops, segment=1)
    assert sum(loop.accepted for loop in joined) == 5
    decided = []
    for first, second, query in zip(*laps, strict=True):
        loops = [in_session(query, first, (2, 0), x_off), in_session(query, second, (2, 1))]
        decided += drive_on(loop_filter, query, float(query.place_id), loops, segment=2)
    assert any(loop.accepted for loop in decided) == expected


def weaker(h: Hypothesis) -> Hypothesis:
    return dataclasses.replace(h, geometry=dataclasses.replace(h.geometry, inliers=50))


def test_a_row_of_matches_one_period_off_is_not_believed_before_the_true_one() -> None:
    """Where the robot came from is not mapped; there only the texture's repetition matches, later also the place."""
    config = dataclasses.replace(CONFIG, first_support=7, support_s=20.0)
    drive = []
    for i in range(14):
        true, repeated = true_loop(i), weaker(moved(true_loop(i), 3.0))
        drive.append([repeated] if i < 5 else [true, repeated])
    decided = run(drive, config)
    accepted = [loop for loop in decided if loop.accepted]
    assert accepted and all(loop.geometry.inliers == 100 for loop in accepted)
    assert {loop.query.place_id for loop in accepted} == {100 + i for i in range(5, 14)}


def test_the_place_that_explains_a_picture_worse_is_told_why() -> None:
    config = dataclasses.replace(CONFIG, first_support=7)
    decided = run([[true_loop(i), weaker(moved(true_loop(i), 3.0))] for i in range(3)], config)
    assert {(loop.geometry.inliers, loop.reason) for loop in decided} == {
        (100, "2 neighbouring queries agree, 7 are needed"),
        (50, "another place explains the same picture better"),
    }


def agreeing(h: Hypothesis, agreement: float = 0.95) -> Hypothesis:
    return dataclasses.replace(h, geometry=dataclasses.replace(h.geometry, agreement=agreement))


@pytest.mark.parametrize(
    ("count", "agreement", "expected"), [(7, 0.95, 6), (6, 0.95, 0), (7, 0.8, 0), (7, float("nan"), 0)]
)
def test_a_short_row_that_nothing_spoke_against_is_accepted_in_the_end(
    count: int, agreement: float, expected: int
) -> None:
    """Three quarters of the first support are enough after the wait, where the depths of both views agree.

    The first of the row is too far from the last for a sharp comparison, and has too little when its wait is over.
    """
    loop_filter = LoopFilter(dataclasses.replace(CONFIG, first_support=8), min_agreement=0.9)
    decided: list[LoopClosure] = []
    for i in range(count + 12):
        hypotheses = [agreeing(true_loop(i), agreement)] if i < count else []
        decided += drive_on(loop_filter, place(100 + i, i, 0.5), 100.0 + i, hypotheses)
        assert i > 10 or not decided, "it waits"
    assert len(decided) == count
    assert sum(loop.accepted for loop in decided) == expected


def test_a_short_row_with_a_rival_is_not_accepted_in_the_end() -> None:
    loop_filter = LoopFilter(dataclasses.replace(CONFIG, first_support=8), min_agreement=0.9)
    decided: list[LoopClosure] = []
    for i in range(19):
        two = [agreeing(true_loop(i)), agreeing(moved(true_loop(i), 3.2))] if i < 7 else []
        decided += drive_on(loop_filter, place(100 + i, i, 0.5), 100.0 + i, two)
    assert len(decided) == 14
    assert not any(loop.accepted for loop in decided)


def test_places_of_two_rounds_that_loops_join_support_each_other() -> None:
    """The third round matches now the first, now the second; odometry alone does not tell how these lie."""

    def session_loop(query: int, match: int) -> Hypothesis:
        (q, q_way), (m, m_way) = (at(query), at(match))
        return dataclasses.replace(hypothesis(q, m, ways=(q_way, m_way)), map="")

    def at(number: int) -> tuple[Place, float]:
        lap, x = divmod(number, 10)
        return place(number, float(x)), 100.0 * lap + x

    loop_filter = LoopFilter(CONFIG)
    accepted = [0, 0, 0]
    for number in range(30):
        lap = number // 10
        if lap == 2:
            loop_filter.configure(dataclasses.replace(CONFIG, first_support=8))
        match = number - 10 * (1 + (lap == 2 and number % 2))
        loops = drive_on(loop_filter, *at(number), [session_loop(number, match)] if lap else [])
        accepted[lap] += sum(loop.accepted for loop in loops)
    assert accepted == [0, 10, 10]
