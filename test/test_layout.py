"""Whether two views agree on where things stand: made-up scenes with known poses."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from etr_ros.camera import Camera
from etr_ros.layout import LEAST, agreement
from etr_ros.transforms import Matrix, compose, inverse_matrix, to_matrix
from etr_ros.types import Pose, View
from landmarks import BODY_T_CAMERA, CAMERA, Landmarks

WORLD = Landmarks(seed=3, per_m=200)


def view(true: Pose, world: Landmarks = WORLD) -> View:
    return View(world(world.frame(true, 0).image), CAMERA, BODY_T_CAMERA)


def between_cameras(match: Pose, query: Pose) -> Matrix:
    matrix: Matrix = inverse_matrix(to_matrix(compose(match, BODY_T_CAMERA))) @ to_matrix(compose(query, BODY_T_CAMERA))
    return matrix


def test_a_true_pose_is_confirmed_and_both_ways_are_the_same() -> None:
    match, query = Pose((5.0, 0.0, 0.0)), Pose((5.3, 0.2, 0.0))
    there = agreement(view(query), view(match), between_cameras(match, query))
    back = agreement(view(match), view(query), between_cameras(query, match))
    assert there == back
    assert there > 0.75, "landmarks stand before each other here, on no surface"


def test_a_pose_that_is_wrong_is_not() -> None:
    match, query = Pose((5.0, 0.0, 0.0)), Pose((5.3, 0.2, 0.0))
    right = agreement(view(query), view(match), between_cameras(match, query))
    wrong = agreement(view(query), view(match), between_cameras(match, Pose((6.9, 0.2, 0.0))))
    assert wrong < right - 0.2


def test_the_same_view_agrees_with_itself() -> None:
    here = view(Pose((5.0, 0.0, 0.0)))
    assert agreement(here, here, np.eye(4)) == pytest.approx(1.0)


@pytest.mark.parametrize("kept", [0, LEAST // 2 - 1])
def test_with_few_points_nothing_is_said(kept: int) -> None:
    here = view(Pose((5.0, 0.0, 0.0)))
    assert here.features.points_m is not None
    points = here.features.points_m.copy()
    points[kept:] = np.nan
    few = dataclasses.replace(here, features=dataclasses.replace(here.features, points_m=points))
    assert math.isnan(agreement(few, few, np.eye(4)))
    none = dataclasses.replace(here, features=dataclasses.replace(here.features, points_m=None))
    assert math.isnan(agreement(none, here, np.eye(4)))


def test_views_that_share_nothing_say_nothing() -> None:
    here = view(Pose((5.0, 0.0, 0.0)))
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert math.isnan(agreement(here, here, turned))


def test_a_wide_camera_sees_no_point_beside_itself() -> None:
    fisheye = Camera.create(640, 480, (200, 0, 320, 0, 200, 240, 0, 0, 1), "equidistant", (0.1, 0.0, 0.0, 0.0))
    here = dataclasses.replace(view(Pose((5.0, 0.0, 0.0))), camera=fisheye)
    assert 0.0 <= agreement(here, here, np.eye(4)) <= 1.0
