"""What is accepted, and why not the rest."""

from __future__ import annotations

from builders import make_place
from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.decision import decide
from etr_ros.types import Candidate, State

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


def test_without_poses_nothing_is_called_ambiguous() -> None:
    assert decide([candidate(0, 0.9, None), candidate(1, 0.9, None)], CONFIG, GEOMETRY)[0] is State.LOCALIZED


def test_without_a_probability_nothing_is_accepted_and_the_reason_says_so() -> None:
    state, judged = decide([candidate(0, None)], CONFIG, GEOMETRY)
    assert state is State.UNKNOWN
    assert not judged[0].accepted and "no match probability" in judged[0].reason
