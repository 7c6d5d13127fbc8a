"""What is accepted, and why not the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from builders import make_place
from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.decision import SAME_STRETCH_S, decide
from etr_ros.types import Candidate, Geometry, Pose, State

CONFIG = DecisionConfig(min_probability=0.6, ambiguity_m=3.0)
GEOMETRY = GeometryConfig(min_inliers=20)
LATER_NS = round((SAME_STRETCH_S + 1) * 1e9)
BACK = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))


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


def seen(number: int, inliers: int, x_m: float, probability: float = 0.9, sigma_m: float = 0.01) -> Candidate:
    """A verified candidate whose place stands at `number` metres and which puts the robot at `x_m`."""
    geometry = Geometry(inliers, 200, Pose((x_m - number, 0.0, 0.0)), np.eye(6) * sigma_m**2, is_metric=True)
    return dataclasses.replace(candidate(number, probability, float(number)), geometry=geometry)


def test_beside_verified_candidates_one_that_was_not_looked_at_is_not_accepted() -> None:
    """Probable, but far away: it would make the true place ambiguous."""
    state, judged = decide([seen(0, 50, 0.0), candidate(9, 0.95, 90.0)], CONFIG, GEOMETRY)
    assert state is State.LOCALIZED
    assert judged[1].reason == "it is not among the best 8, whose geometry is computed"
    assert decide([candidate(0, 0.9, 0.0), candidate(9, 0.95, 90.0)], CONFIG, GEOMETRY)[0] is State.AMBIGUOUS


def test_of_poses_that_contradict_each_other_the_one_with_more_matches_counts() -> None:
    """A wall with a texture that repeats every 1.6 m: the most probable place is one period off."""
    state, judged = decide([seen(0, 27, 1.6), seen(1, 54, 0.0), seen(2, 40, 0.01)], CONFIG, GEOMETRY)
    assert state is State.LOCALIZED
    assert [each.accepted for each in judged] == [False, True, True]
    assert judged[0].reason == "another place explains the same picture better"


def test_places_that_agree_on_a_pose_count_together() -> None:
    """The one place that is off has more matches than any other, but fewer than the neighbours of the true one."""
    state, judged = decide([seen(0, 45, 3.2), seen(1, 36, 0.01), seen(2, 36, 0.0), seen(3, 22, 0.03)], CONFIG, GEOMETRY)
    assert state is State.LOCALIZED
    assert [each.accepted for each in judged] == [False, True, True, True]


def test_poses_with_as_many_matches_that_contradict_each_other_are_ambiguous() -> None:
    state, judged = decide([seen(0, 50, 1.6), seen(1, 54, 0.0)], CONFIG, GEOMETRY)
    assert state is State.AMBIGUOUS
    assert [each.weight for each in judged] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("inliers", "state"), [(80, State.UNKNOWN), (40, State.UNKNOWN), (30, State.LOCALIZED)])
def test_a_verified_rival_that_is_not_probable_leaves_a_doubt(inliers: int, state: State) -> None:
    assert decide([seen(0, 50, 1.6), seen(1, inliers, 0.0, probability=0.5)], CONFIG, GEOMETRY)[0] is state


def test_poses_contradict_each_other_only_beyond_what_is_known_of_them() -> None:
    unsure = seen(0, 27, 1.6, sigma_m=0.3)
    assert decide([unsure, seen(1, 54, 0.0)], CONFIG, GEOMETRY)[1][0].accepted
    later = dataclasses.replace(seen(0, 27, 1.6), place=dataclasses.replace(make_place(0, 0.0), stamp_ns=LATER_NS))
    assert decide([later, seen(1, 54, 0.0)], CONFIG, GEOMETRY)[1][0].accepted, "the map may have drifted since"
    turned = dataclasses.replace(seen(0, 27, 0.0), geometry=Geometry(27, 200, BACK, np.eye(6) * 1e-4, is_metric=True))
    assert not decide([turned, seen(1, 54, 0.0)], CONFIG, GEOMETRY)[1][0].accepted


@pytest.mark.parametrize(("agreement", "accepted"), [(math.nan, True), (0.9, True), (0.86, False)])
def test_places_where_the_rest_of_the_view_stands_elsewhere_are_not_accepted(agreement: float, accepted: bool) -> None:
    each = seen(0, 58, 0.0)
    geometry = dataclasses.replace(each.geometry, agreement=agreement)  # type: ignore[type-var]
    _, (judged,) = decide([dataclasses.replace(each, geometry=geometry)], CONFIG, GEOMETRY)
    assert judged.accepted == accepted
    assert judged.reason == ("" if accepted else "query and place agree on 86 % of the depths, 90 % are needed")


def test_weak_views_count_where_they_agree() -> None:
    """No view of the true place is verified by itself; together they keep a look-alike from being believed."""
    candidates = [seen(0, 18, 0.01), seen(1, 21, 2.27), seen(2, 14, 0.07), seen(3, 8, 0.1)]
    state, judged = decide(candidates, CONFIG, GEOMETRY)
    assert state is State.UNKNOWN
    assert judged[1].reason == "another place explains the same picture better"
