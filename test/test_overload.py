"""Doing less when answers are late, and more again when there is time to spare."""

from __future__ import annotations

import pytest

from builders import make_place
from etr_ros.anytime import TOO_LATE
from etr_ros.overload import CALM_IN_A_ROW, STEPS, STRAINED_IN_A_ROW, Overload, Pacing
from etr_ros.types import Candidate, PlaceMatch, State


def late(overload: Overload, times: int = STRAINED_IN_A_ROW) -> None:
    for _ in range(times):
        overload.answered(1.5, 0.0)


def calm(overload: Overload, times: int = CALM_IN_A_ROW) -> None:
    for _ in range(times):
        overload.answered(0.3, 0.0)


def test_each_step_does_no_more_than_the_one_before() -> None:
    cost = [(step.effort.candidates, step.effort.locals, -step.rest) for step in STEPS]
    assert cost == sorted(cost, reverse=True)
    assert cost[0] == (1.0, 1.0, 0.0)
    assert len({step.words for step in STEPS}) == len(STEPS)


def test_late_answers_in_a_row_step_down_to_the_last_step() -> None:
    overload = Overload()
    late(overload, STRAINED_IN_A_ROW - 1)
    calm(overload, 1)
    late(overload, STRAINED_IN_A_ROW - 1)
    assert overload.level == 0
    for level in range(1, len(STEPS) + 2):
        overload = overload if level > 1 else Overload()
        late(overload)
        assert overload.level == min(level, len(STEPS) - 1)


def test_candidates_that_found_no_time_count_as_late() -> None:
    overload = Overload()
    for _ in range(STRAINED_IN_A_ROW):
        overload.answered(0.9, 0.6)
    assert overload.level == 1


def test_time_to_spare_steps_up_again_and_a_full_deadline_does_not() -> None:
    overload = Overload()
    late(overload, 2 * STRAINED_IN_A_ROW)
    for _ in range(100):
        overload.answered(0.95, 0.0)
    assert overload.level == 2
    calm(overload)
    assert overload.level == 1
    calm(overload)
    assert overload.level == 0


def test_a_step_up_that_did_not_hold_takes_twice_as_long_the_next_time() -> None:
    overload = Overload()
    late(overload)
    calm(overload)
    late(overload)
    assert overload.level == 1
    calm(overload)
    assert overload.level == 1
    calm(overload)
    assert overload.level == 0


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def answer(pacing: Pacing, clock: Clock, took_s: float, deadline_ms: float, unranked: int = 0) -> float:
    """Answer an image that came just now; the time that was allowed."""
    came_s = clock()
    allowance = pacing.allowance(came_s, deadline_ms)
    clock.now_s += took_s
    reasons = [TOO_LATE] * unranked + [""] * (4 - unranked)
    candidates = tuple(Candidate(make_place(i), 0.5, reason=reason) for i, reason in enumerate(reasons))
    pacing.published(PlaceMatch(0, State.UNKNOWN, candidates), came_s, came_s, deadline_ms)
    return allowance.due_s - came_s


def test_without_a_deadline_nothing_is_limited_or_late() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    for _ in range(10):
        assert answer(pacing, clock, 60.0, 0.0) == float("inf")
    assert pacing.problem(0.0) == ""
    assert pacing.describe(0.0) == {
        "deadline (ms)": "none",
        "answers after the deadline": 0,
        "answers without re-ranking": 0,
        "answers get": "all",
    }


def test_an_overloaded_node_says_so_idles_and_recovers() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    for _ in range(STRAINED_IN_A_ROW):
        assert answer(pacing, clock, 0.2, 100.0) == pytest.approx(0.1)
    assert "overloaded: answers get half of the candidates, to keep to node.deadline_ms of 100 ms" in pacing.problem(
        100
    )
    assert pacing.idle_until_s < clock()
    while pacing.overload.level < len(STEPS) - 1:
        answer(pacing, clock, 0.2, 100.0, unranked=4)
    assert pacing.idle_until_s == pytest.approx(clock() + 3 * 0.2)
    assert pacing.allowance(clock(), 100.0).effort == STEPS[-1].effort
    assert pacing.unranked > 0 and pacing.late > 0
    for _ in range((len(STEPS) - 1) * CALM_IN_A_ROW):
        answer(pacing, clock, 0.01, 100.0)
    assert pacing.problem(100.0) == "" and pacing.idle_until_s < clock()


def test_taking_the_deadline_away_ends_the_overload() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    for _ in range(STRAINED_IN_A_ROW):
        answer(pacing, clock, 0.2, 100.0)
    answer(pacing, clock, 0.2, 0.0)
    assert pacing.overload.level == 0


@pytest.mark.parametrize("stalled", ["while ranking", "after it"])
def test_one_stall_does_not_end_re_ranking_for_good(stalled: str) -> None:
    clock = Clock()
    pacing = Pacing(clock)
    ranked = []
    for number in range(40):
        came_s, stall_s = clock(), 2.0 * (number == 3)
        allowance = pacing.allowance(came_s, 200.0)
        clock.now_s += 0.05
        count = allowance.next_chunk(10)
        ranked.append(count)
        if count:
            started_s = clock()
            clock.now_s += 0.002 * count + stall_s * (stalled == "while ranking")
            allowance.pace.ranked(count, started_s, clock())
        clock.now_s += 0.03 + stall_s * (stalled == "after it")
        reasons = ["" if i < count else TOO_LATE for i in range(10)]
        candidates = tuple(Candidate(make_place(i), 0.5, reason=reason) for i, reason in enumerate(reasons))
        pacing.published(PlaceMatch(0, State.UNKNOWN, candidates), came_s, came_s, 200.0)
    assert 0 in ranked[4:]
    assert min(ranked[-10:]) > 0
