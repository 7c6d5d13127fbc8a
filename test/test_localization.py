"""Where an accepted candidate puts the robot: frames and covariance, checked by sampling."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from etr_ros.localization import pose_of, pose_of_match
from etr_ros.transforms import compose, error, exp, quaternion, rotation
from etr_ros.types import Candidate, Geometry, Place, PlaceMatch, Pose, State

HALF = math.sqrt(0.5)
PLACE = Pose((10.0, 5.0, 0.0), (0.0, 0.0, HALF, HALF), "map")  # it looks along y
MATCH_T_QUERY = Pose((2.0, 0.5, 0.0), (0.0, 0.0, math.sin(0.2), math.cos(0.2)))
COVARIANCE = np.diag([0.04, 0.0001, 0.0004, 1e-6, 4e-6, 1e-4])


def candidate(*, is_metric: bool) -> Candidate:
    geometry = Geometry(80, 100, MATCH_T_QUERY, COVARIANCE, is_metric)
    return Candidate(Place(3, "", "survey", 0, PLACE), 0.9, geometry=geometry)


def test_metric_pose_is_composed_in_the_map_frame() -> None:
    known = pose_of(candidate(is_metric=True), 1.0, 20.0)
    assert known is not None
    pose, _ = known
    assert pose.frame_id == "map"
    assert pose.position_m == pytest.approx((9.5, 7.0, 0.0))


def test_covariance_is_about_the_axes_of_the_map() -> None:
    """What was uncertain along the place's x is uncertain along the map's y."""
    known = pose_of(candidate(is_metric=True), 1.0, 20.0)
    assert known is not None
    pose, covariance = known
    rng = np.random.default_rng(0)
    errors = []
    for draw in rng.multivariate_normal(np.zeros(6), COVARIANCE, 20_000):
        x, y, z = (np.array(MATCH_T_QUERY.position_m) + draw[:3]).tolist()
        turned = quaternion(exp(draw[3:]) @ rotation(MATCH_T_QUERY.quat_xyzw))
        errors.append(error(compose(PLACE, Pose((x, y, z), turned)), pose))
    assert np.allclose(np.cov(np.array(errors).T), covariance, atol=0.03 * 0.04)
    assert covariance[1, 1] == pytest.approx(0.04) and covariance[0, 0] == pytest.approx(0.0001)


def test_without_a_scale_it_is_the_pose_of_the_place_as_sure_as_the_map_is_dense() -> None:
    known = pose_of(candidate(is_metric=False), 1.5, 20.0)
    assert known is not None
    assert known[0] == PLACE
    assert np.allclose(known[1], np.diag([1.5**2] * 3 + [math.radians(20.0) ** 2] * 3))


def answer(*candidates: Candidate, state: State = State.LOCALIZED) -> PlaceMatch:
    return PlaceMatch(0, state, tuple(dataclasses.replace(each, accepted=True) for each in candidates))


def ahead(metres: float) -> Candidate:
    """A place further along the view, y in the map, with no scale."""
    place = dataclasses.replace(PLACE, position_m=(10.0, 5.0 + metres, 0.0))
    return dataclasses.replace(candidate(is_metric=False), place=Place(4, "", "survey", 0, place))


def test_of_the_accepted_a_metric_one_says_the_pose() -> None:
    known = pose_of_match(answer(ahead(0.0), candidate(is_metric=True)), 1.0, 20.0)
    assert known is not None and known[0].position_m == pytest.approx((9.5, 7.0, 0.0))


def test_places_apart_that_show_the_same_view_make_the_pose_less_sure_where_they_lie() -> None:
    known = pose_of_match(answer(ahead(0.0), ahead(4.0)), 1.0, 20.0)
    assert known is not None and known[0] == PLACE
    assert np.diag(known[1])[:3] == pytest.approx([1.0, 1.0 + 4.0**2 / 2, 1.0])
    alone = pose_of_match(answer(ahead(0.0)), 1.0, 20.0)
    assert alone is not None and np.diag(alone[1])[:3] == pytest.approx([1.0, 1.0, 1.0])


def test_an_answer_that_does_not_localize_says_no_pose() -> None:
    assert pose_of_match(answer(ahead(0.0), state=State.AMBIGUOUS), 1.0, 20.0) is None
    unposed = dataclasses.replace(candidate(is_metric=True), place=Place(3, "", "survey", 0, None))
    assert pose_of_match(answer(unposed), 1.0, 20.0) is None
