"""What is accepted, and why not the rest."""

from __future__ import annotations

import dataclasses

import pytest

from builders import make_place
from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.decision import decide
from etr_ros.types import Candidate, Geometry, State

CONFIG = DecisionConfig(min_probability=0.6, ambiguity_m=3.0)
GEOMETRY = GeometryConfig(min_inliers=20)


def candidate(number: int, probability: float | None, x_m: float | None = 0.0) -> Candidate:
    return Candidate(make_place(number, x_m), retrieval_score=0.5, etr_score=1.0, probability=probability)


def test_no_candidates_is_unknown() -> None:
    assert decide([], CONFIG, GEOMETRY) == (State.UNKNOWN, ())


def test_a_probable_candidate_localizes() -> None:
    state, judged = decide([candidate(0, 0.6), candidate(1, 0.59)], CONFIG, GEOMETRY)
    assert state is State.LOCALIZED
    assert [c.accepted for c in judged] == [True, False]
    assert judged[0].reason == ""
    assert judged[1].reason == "match probability 0.59 is below 0.60"


def test_accepted_places_far_apart_are_ambiguous() -> None:
    assert decide([candidate(0, 0.9, 0.0), candidate(1, 0.8, 10.0)], CONFIG, GEOMETRY)[0] is State.AMBIGUOUS
    assert decide([candidate(0, 0.9, 0.0), candidate(1, 0.8, 2.0)], CONFIG, GEOMETRY)[0] is State.LOCALIZED


def test_a_rejected_place_far_away_does_not_make_it_ambiguous() -> None:
    assert decide([candidate(0, 0.9, 0.0), candidate(1, 0.1, 10.0)], CONFIG, GEOMETRY)[0] is State.LOCALIZED


def test_without_poses_places_of_one_session_are_told_apart_by_time() -> None:
    near, far = candidate(1, 0.9, None), candidate(20 * 10**9, 0.9, None)
    assert decide([candidate(0, 0.9, None), near], CONFIG, GEOMETRY)[0] is State.LOCALIZED
    assert decide([candidate(0, 0.9, None), far], CONFIG, GEOMETRY)[0] is State.AMBIGUOUS


def weights(*candidates: Candidate, calibrated: bool = True) -> tuple[State, list[float]]:
    state, judged = decide(candidates, CONFIG, GEOMETRY, is_calibrated=calibrated)
    return state, [each.weight for each in judged]


def test_weights_are_of_places_and_sum_to_one() -> None:
    assert weights(candidate(0, 0.9, 0.0), candidate(1, 0.8, 1.0), candidate(2, 0.1, 50.0)) == (
        State.LOCALIZED,
        [1.0, 0.0, 0.0],
    )
    state, (a, b, c) = weights(candidate(0, 0.9, 0.0), candidate(1, 0.85, 1.0), candidate(2, 0.75, 50.0))
    assert state is State.AMBIGUOUS and b == 0.0
    assert a / c == pytest.approx((0.9 / 0.1) / (0.75 / 0.25)) and a + c == pytest.approx(1.0)
    assert weights(candidate(0, 0.3)) == (State.UNKNOWN, [0.0])


def test_look_alike_places_that_share_the_probability_are_ambiguous_together() -> None:
    """Neither is believed by itself; together they are. Without calibration probabilities must not be added."""
    twins = candidate(0, 0.4, 0.0), candidate(1, 0.35, 1.0), candidate(2, 0.4, 50.0), candidate(3, 0.01, 90.0)
    state, judged = decide(twins, CONFIG, GEOMETRY, is_calibrated=True)
    assert state is State.AMBIGUOUS and not any(each.accepted for each in judged)
    assert [each.weight for each in judged] == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert judged[0].reason == "one of 2 places that explain the picture as well"
    assert weights(*twins, calibrated=False)[0] is State.UNKNOWN
    assert weights(candidate(0, 0.3, 0.0), candidate(1, 0.2, 50.0))[0] is State.UNKNOWN


def test_a_place_whose_geometry_does_not_verify_is_no_part_of_the_set() -> None:
    few = dataclasses.replace(candidate(0, 0.4, 0.0), geometry=Geometry(19, 50))
    assert weights(few, candidate(1, 0.4, 50.0))[0] is State.UNKNOWN


def test_the_least_probability_can_come_from_elsewhere() -> None:
    assert decide([candidate(0, 0.7)], CONFIG, GEOMETRY, 0.8)[0] is State.UNKNOWN
    assert decide([candidate(0, 0.5)], CONFIG, GEOMETRY, 0.4)[0] is State.LOCALIZED


def test_without_a_probability_nothing_is_accepted_and_the_reason_says_so() -> None:
    state, judged = decide([candidate(0, None)], CONFIG, GEOMETRY)
    assert state is State.UNKNOWN
    assert not judged[0].accepted and "no match probability" in judged[0].reason
