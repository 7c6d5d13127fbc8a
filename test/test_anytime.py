"""Re-ranking against the clock: in chunks, best first, until the answer is due or settled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_features, make_place
from etr_ros.anytime import CHUNK, SETTLED, TOO_LATE, UNLIMITED, Allowance, Effort, Pace, is_settled
from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.decision import decide
from etr_ros.evidence import are_apart
from etr_ros.ranking import ranked
from etr_ros.rerank import Calibration, Scores
from etr_ros.types import Candidate, Features, State, View

CONFIG = DecisionConfig(min_probability=0.5, ambiguity_m=5.0)


class SlowScorer:
    """Scores by the seed that made the features; each candidate takes a second of a clock that only it moves."""

    def __init__(self) -> None:
        self.now_s, self.asked = 0.0, list[int]()

    def __call__(self, query: Features, candidates: Sequence[Features]) -> Scores:
        self.now_s += len(candidates)
        self.asked.append(len(candidates))
        values = np.array([candidate.image_size[0] for candidate in candidates], np.float32)
        return Scores(values, Calibration().probabilities(values))


def view_of(place_id: int) -> View:
    """The larger the id, the higher its score: the opposite of how the candidates are proposed."""
    return View(dataclasses.replace(make_features(0, 8), image_size=(place_id, 480)))


def run(
    scorer: SlowScorer,
    count: int,
    due_s: float | None,
    pace: Pace | None = None,
    expected: Sequence[int] = (),
    settled: bool = False,
) -> list[Candidate]:
    proposed = [Candidate(make_place(i), 1 - i / 100) for i in range(count)]
    allowance = UNLIMITED
    if due_s is not None:
        allowance = Allowance(due_s, pace=pace or Pace(), clock=lambda: scorer.now_s)
    return ranked(scorer, make_features(0, 8), proposed, expected, view_of, allowance, lambda *_: settled)


def ids(candidates: Sequence[Candidate]) -> list[int]:
    return [each.place.place_id for each in candidates]


def test_without_a_deadline_all_are_scored_at_once() -> None:
    scorer = SlowScorer()
    assert ids(run(scorer, 30, None)) == list(range(30))[::-1]
    assert scorer.asked == [30]


@pytest.mark.parametrize("due_s", [12.0, 20.0, 27.0])
def test_the_best_are_scored_until_the_answer_is_due(due_s: float) -> None:
    scorer = SlowScorer()
    found = run(scorer, 30, due_s)
    scored, left = found[: int(due_s)], found[int(due_s) :]
    assert scorer.now_s == due_s
    assert ids(scored) == list(range(int(due_s)))[::-1]
    assert ids(left) == list(range(int(due_s), 30))
    assert {each.reason for each in left} == {TOO_LATE}
    assert all(each.probability is None and each.etr_score is None for each in left)


def test_a_deadline_that_has_passed_leaves_the_order_of_retrieval_and_says_so() -> None:
    scorer = SlowScorer()
    found = run(scorer, 5, -1.0)
    assert (ids(found), scorer.asked) == ([0, 1, 2, 3, 4], [])
    state, judged = decide(found, CONFIG, GeometryConfig())
    assert state is State.UNKNOWN
    assert [each.reason for each in judged] == [TOO_LATE] * 5


def test_time_is_kept_for_what_follows_re_ranking() -> None:
    pace = Pace()
    pace.ranked(1, 0.0, 1.0)
    pace.published(6.0)
    assert pace.rest_s == 5.0
    found = run(SlowScorer(), 30, 20.0, pace)
    assert sum(each.probability is not None for each in found) == 15


def test_a_slow_answer_counts_at_once_and_is_forgotten_slowly() -> None:
    pace = Pace()
    for took_s in (1.0, 4.0, 1.0):
        pace.ranked(2, 0.0, 2 * took_s)
    assert pace.candidate_s == pytest.approx(3.4)


def test_expected_places_come_first() -> None:
    scorer = SlowScorer()
    found = run(scorer, 30, 3.0, expected=[29], pace=_known_pace())
    assert ids(found)[:3] == [29, 1, 0]


def _known_pace() -> Pace:
    pace = Pace()
    pace.ranked(1, 0.0, 1.0)
    pace.ranked_s = None
    return pace


def test_what_is_settled_needs_no_more_scores() -> None:
    scorer = SlowScorer()
    found = run(scorer, 30, 100.0, settled=True)
    assert scorer.asked == [CHUNK // 2]
    assert {each.reason for each in found[CHUNK // 2 :]} == {SETTLED}


positions = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 1)), min_size=1, max_size=8)


@given(positions, st.integers(1, 8), st.randoms())
def test_a_settled_answer_is_the_same_whatever_the_others_score(
    drawn: list[tuple[float, float]], cut: int, random: object
) -> None:
    every = [Candidate(make_place(i, x_m), 0.9, 1.0, p) for i, (x_m, p) in enumerate(drawn)]
    scored = every[:cut]
    waiting = [dataclasses.replace(each, etr_score=None, probability=None) for each in every[cut:]]
    if not is_settled(scored, waiting, CONFIG, CONFIG.min_probability):
        return
    state, judged = decide(sorted(every, key=lambda each: -(each.probability or 0)), CONFIG, GeometryConfig())
    early, first = decide(scored + waiting, CONFIG, GeometryConfig())
    assert state is early is State.LOCALIZED
    best = next(each for each in first if each.accepted)
    assert not any(are_apart(best, each, CONFIG) for each in judged if each.accepted)


def test_two_accepted_places_are_not_settled_as_a_third_may_join_them() -> None:
    apart = [Candidate(make_place(i, x_m), 0.9, 1.0, 0.8) for i, x_m in enumerate((0.0, 8.0))]
    between = Candidate(make_place(2, 4.0), 0.9, 2.0, 0.9)
    assert decide(apart, CONFIG, GeometryConfig())[0] is State.AMBIGUOUS
    assert decide([between, *apart], CONFIG, GeometryConfig())[0] is State.LOCALIZED
    assert not is_settled(apart, [between], CONFIG, 0.5)


def test_a_share_is_never_nothing() -> None:
    assert Effort.share(1, 0.25) == 1
    assert Effort.share(20, 0.25) == 5
