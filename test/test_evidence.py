"""What speaks for a candidate, worked out by hand: margins to other places, and support by the queries before."""

from __future__ import annotations

import dataclasses

import pytest

from etr_ros.config import DecisionConfig
from etr_ros.evidence import NEIGHBOURS, Past, are_apart, score_of, weigh
from etr_ros.types import Candidate, Geometry, Place, PlaceMatch, Pose, State

S = 10**9
CONFIG = DecisionConfig(ambiguity_m=3.0, ambiguity_s=10.0)


def place(x_m: float | None, stamp_s: float = 0.0, session: str = "map", number: int = 0) -> Place:
    return Place(number, "", session, round(stamp_s * S), None if x_m is None else Pose((x_m, 0.0, 0.0)))


def candidate(at: Place, score: float | None = 1.0, cosine: float = 0.5, inliers: int | None = None) -> Candidate:
    return Candidate(at, cosine, score, inliers=inliers)


def test_the_score_is_that_of_the_re_ranker() -> None:
    assert score_of(candidate(place(0), 2.5)) == 2.5
    assert score_of(candidate(place(0), None, inliers=40)) == 40.0
    assert score_of(candidate(place(0), None, cosine=0.25)) == 0.25


def test_margin_is_to_the_best_of_another_place() -> None:
    at = [(0.0, 5.0), (1.0, 4.5), (50.0, 3.0), (90.0, -1.0)]
    found = weigh([candidate(place(x), score) for x, score in at], CONFIG, place(0))
    assert [each.margin for each in found] == [2.0, 1.5, -2.0, -6.0]
    assert [each.support for each in found] == [None] * 4


def test_without_a_rival_the_margin_is_not_known() -> None:
    found = weigh([candidate(place(0.0), 5.0), candidate(place(1.0), 4.5)], CONFIG, place(0))
    assert [each.margin for each in found] == [None, None]


def test_a_metric_relative_pose_says_where_the_robot_would_be() -> None:
    """Two places 4 m apart that put the robot at one spot are one place."""
    import numpy as np

    ahead = Geometry(50, 60, Pose((4.0, 0.0, 0.0)), np.eye(6), is_metric=True)
    a = dataclasses.replace(candidate(place(0.0)), geometry=ahead)
    assert not are_apart(a, candidate(place(4.0)), CONFIG)
    assert are_apart(candidate(place(0.0)), candidate(place(4.0)), CONFIG)


@pytest.mark.parametrize(
    ("session", "stamp_s", "apart"), [("map", 10.0, False), ("map", 10.1, True), ("other", 500.0, False)]
)
def test_without_poses_time_tells_places_of_one_session_apart(session: str, stamp_s: float, apart: bool) -> None:
    assert are_apart(candidate(place(None)), candidate(place(None, stamp_s, session)), CONFIG) is apart


def answered(past: Past, query: Place, best: Place | None, segment: int = 0) -> None:
    candidates = () if best is None else (candidate(place(500.0), 1.0), candidate(best, 3.0))
    past.add(query, PlaceMatch(query.stamp_ns, State.UNKNOWN, candidates), segment)


def test_support_counts_queries_whose_best_place_fits_the_way() -> None:
    past = Past()
    assert past.support(place(0.0), place(20.0)) is None
    answered(past, place(0.0, 0), place(20.0))
    answered(past, place(1.0, 1), place(21.0))
    answered(past, place(2.0, 2), place(400.0))
    answered(past, place(3.0, 3), None)
    assert past.support(place(4.0, 4), place(24.0)) == 2 / 4
    assert past.support(place(4.0, 4), place(400.0)) == 1 / 4
    assert past.support(place(4.0, 4), place(800.0)) == 0.0


def test_support_forgets() -> None:
    past = Past()
    for number in range(NEIGHBOURS + 3):
        answered(past, place(0.0, number), place(20.0 if number >= NEIGHBOURS - 1 else 300.0))
    assert past.support(place(0.0, NEIGHBOURS + 3), place(20.0)) == 4 / NEIGHBOURS
    assert past.support(place(0.0, 100), place(20.0)) is None
    assert past.support(place(0.0, NEIGHBOURS + 3), place(20.0), segment=1) is None
    answered(past, place(0.0, 9), place(20.0), segment=1)
    assert past.support(place(0.0, 10), place(20.0), segment=1) == 1.0


def test_support_without_poses_goes_by_time() -> None:
    past = Past()
    answered(past, place(None, 100), place(None, 7))
    assert past.support(place(None, 101), place(None, 8)) == 1.0
    assert past.support(place(None, 101), place(None, 60)) == 0.0
