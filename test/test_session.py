"""The map of the drive that is going on: what is excluded, what is found, and what is saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from builders import SPEC, make_features, make_frame
from etr_ros.camera import Camera
from etr_ros.database import PlaceMap
from etr_ros.errors import MapError
from etr_ros.session import SessionMap
from etr_ros.types import Pose, View

CAMERA = Camera.create(640, 480, (400, 0, 320, 0, 400, 240, 0, 0, 1), "plumb_bob", ())
MOUNT = Pose((0.1, 0.0, 0.5), (-0.5, 0.5, -0.5, 0.5), "base_link")


def driven(xs: list[float | None], segments: list[int] | None = None) -> SessionMap:
    """One place a second at these x; None: without pose."""
    session = SessionMap(SPEC, "today")
    for number, x in enumerate(xs):
        frame = make_frame(number, None if x is None else Pose((x, 0.0, 0.0), frame_id="odom"))
        session.add(frame, View(make_features(number)), segments[number] if segments else 0)
    return session


def test_young_and_near_places_are_no_candidates() -> None:
    session = driven([0.0, 1.0, 2.0, 3.0, 4.0])
    assert session.places_before(10 * 10**9, 10.0, exclusion_s=8.0, exclusion_m=0.0) == 3
    assert session.places_before(10 * 10**9, 10.0, exclusion_s=0.0, exclusion_m=8.5) == 2
    assert session.places_before(10 * 10**9, 10.0, exclusion_s=100.0, exclusion_m=0.0) == 0


def test_a_robot_that_waits_does_not_find_where_it_waits() -> None:
    session = driven([0.0, 1.0, 2.0] + [2.0] * 50)
    assert session.places_before(60 * 10**9, 2.0, exclusion_s=5.0, exclusion_m=1.5) == 1


def test_without_poses_only_time_excludes() -> None:
    assert driven([None] * 5).places_before(10 * 10**9, 0.0, exclusion_s=8.0, exclusion_m=5.0) == 3


def test_the_way_adds_up_and_stops_where_odometry_breaks() -> None:
    session = driven([0.0, 3.0, 1.0, 100.0, 101.0, None, 102.0], [0, 0, 0, 1, 1, 1, 1])
    assert [keyframe.way_m for keyframe in session.keyframes] == [0.0, 3.0, 5.0, 5.0, 6.0, 6.0, 6.0]


def test_search_finds_the_place_itself_unless_it_is_excluded() -> None:
    session = driven([0.0, 1.0, 2.0])
    places, cosines = session.search(make_features(1), 3)
    assert places[0].place_id == 1 and cosines[0] == pytest.approx(1.0, abs=1e-3)
    assert [place.place_id for place in session.search(make_features(1), 3, places_before=1)[0]] == [0]
    assert session.search(make_features(1), 3, places_before=0)[0] == []


def test_what_is_saved_is_what_was_driven(tmp_path: Path) -> None:
    session = SessionMap(SPEC, "today")
    for number in range(4):
        features = make_features(number)
        depth = np.where(np.arange(40) % 3 == 0, np.nan, 2.0 + number)[:, None].astype(np.float32)
        rays = np.hstack([CAMERA.rays(features.keypoints), np.ones((40, 1))]).astype(np.float32)
        view = View(dataclasses.replace(features, points_m=rays * depth), CAMERA, MOUNT)
        session.add(make_frame(number, Pose((float(number), 0.0, 0.0), frame_id="odom")), view)
    info = session.save(tmp_path / "map", "exact", {})
    saved = PlaceMap(tmp_path / "map")
    assert info.places == 4 and info.frame_id == "odom" and info.sessions == ("today",)
    for number, place in enumerate(saved.places):
        mine, theirs = session.view(number), saved.view(number)
        assert place == session.places[number]
        assert theirs.camera == CAMERA and theirs.body_t_camera == MOUNT
        assert np.array_equal(mine.features.descriptors, theirs.features.descriptors)
        assert np.allclose(mine.features.points_m, theirs.features.points_m, rtol=1e-3, equal_nan=True)
        assert saved.thumbnail(number) is not None


def test_an_empty_session_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="drive first"):
        SessionMap(SPEC, "today").save(tmp_path / "map", "exact", {})
    assert not (tmp_path / "map").exists()
