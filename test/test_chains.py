"""What odometry and accepted loops predict: exact on exact input, sharp along short chains, silent across breaks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from etr_ros.chains import Chains
from etr_ros.config import LoopConfig
from etr_ros.transforms import between, error
from etr_ros.types import Geometry, Place, Pose

CONFIG = LoopConfig(drift_m_per_m=0.02, drift_deg_per_m=0.2)
SURE = np.diag([0.01**2] * 3 + [0.005**2] * 3)


def circle(number: int, per_lap: int = 40, drift_m: float = 0.0) -> Pose:
    """Where a robot is that drives in circles of 4 m radius; its odometry drifts along x by `drift_m` a keyframe."""
    angle = 2 * math.pi * number / per_lap
    quat = (0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2))
    return Pose((4 * math.sin(angle) + number * drift_m, 4 - 4 * math.cos(angle), 0.0), quat, "odom")


def driven(count: int, drift_m: float = 0.0, broken_at: int | None = None) -> tuple[Chains, list[Place]]:
    chains = Chains(CONFIG)
    places = [Place(i, str(i), "", i * 10**9, circle(i, drift_m=drift_m)) for i in range(count)]
    for place in places:
        segment = int(broken_at is not None and place.place_id >= broken_at)
        chains.add(place, 0.63 * place.place_id, segment)
    return chains, places


def sure(match: int, query: int) -> Geometry:
    return Geometry(100, 120, between(circle(match), circle(query)), SURE, is_metric=True)


def test_without_loops_it_is_the_odometry() -> None:
    chains, places = driven(60)
    found = chains.predict(places[50], places[3], "")
    assert found is not None
    assert error(found.match_t_query, between(circle(3), circle(50))) == pytest.approx(np.zeros(6), abs=1e-9)
    assert found.way_m == pytest.approx(47 * 0.63)


def test_a_loop_makes_the_prediction_right_and_sharp_where_odometry_drifted() -> None:
    chains, places = driven(100, drift_m=0.05)
    true = between(circle(12), circle(90))
    before = chains.predict(places[90], places[12], "")
    chains.link(places[85], places[5], sure(5, 85), "")
    after = chains.predict(places[90], places[12], "")
    assert before is not None and after is not None
    off_before, off_after = (np.linalg.norm(error(x.match_t_query, true)[:3]) for x in (before, after))
    assert off_before > 3.0 and off_after < 1.0
    assert np.trace(after.covariance) < 0.1 * np.trace(before.covariance)
    assert after.way_m < 0.3 * before.way_m


def test_it_reads_the_loop_in_both_directions() -> None:
    chains, places = driven(100, drift_m=0.05)
    chains.link(places[85], places[5], sure(5, 85), "")
    there, back = chains.predict(places[86], places[4], ""), chains.predict(places[4], places[86], "")
    assert there is not None and back is not None
    product = np.array(error(there.match_t_query, between(circle(4), circle(86))))
    assert np.abs(product[:3]).max() < 0.2
    assert np.abs(error(back.match_t_query, between(circle(86), circle(4)))[:3]).max() < 0.2


def test_it_chains_several_loops() -> None:
    chains, places = driven(130, drift_m=0.05)
    chains.link(places[45], places[5], sure(5, 45), "")
    chains.link(places[85], places[45], sure(45, 85), "")
    chains.link(places[125], places[85], sure(85, 125), "")
    found = chains.predict(places[126], places[4], "")
    assert found is not None and found.way_m < 4.0
    assert np.abs(error(found.match_t_query, between(circle(4), circle(126)))[:3]).max() < 0.3


def test_across_a_break_of_the_odometry_only_a_loop_leads() -> None:
    chains, places = driven(100, broken_at=50)
    assert chains.predict(places[60], places[10], "") is None
    chains.link(places[55], places[15], sure(15, 55), "")
    assert chains.predict(places[60], places[10], "") is not None


def test_what_is_not_metric_or_has_no_pose_joins_nothing() -> None:
    chains, places = driven(50)
    chains.link(places[45], places[5], Geometry(90, 100, between(circle(5), circle(45)), SURE), "")
    found = chains.predict(places[45], places[5], "")
    assert found is not None and found.way_m == pytest.approx(40 * 0.63)
    lost = Place(50, "50", "", 0, None)
    chains.add(lost, 50 * 0.63, 0)
    assert chains.predict(lost, places[5], "") is None


def test_a_prebuilt_map_is_reached_over_its_accepted_loops() -> None:
    chains, places = driven(30, drift_m=0.05)
    mapped = [Place(i, str(i), "other day", 0, Pose((0.5 * i, 0.0, 0.0), frame_id="map")) for i in range(20)]
    assert chains.predict(places[20], mapped[3], "its id") is None
    step = Pose((0.0, 0.2, 0.0))
    chains.link(places[20], mapped[4], Geometry(90, 100, step, SURE, is_metric=True), "its id")
    found = chains.predict(places[20], mapped[3], "its id")
    assert found is not None
    assert found.match_t_query.position_m == pytest.approx((0.5, 0.2, 0.0))
    later = chains.predict(places[22], mapped[3], "its id")
    assert later is not None and np.trace(later.covariance) > np.trace(found.covariance)
    assert chains.predict(places[20], mapped[3], "another id") is None


def test_keyframes_near_by_what_chains_tell_are_found_again_after_a_loop() -> None:
    """On the second lap odometry alone is too long a chain; a loop leads to the first lap, nearest keyframe first."""
    chains, places = driven(100, drift_m=0.05)
    radii = {"radius_m": 1.0, "radius_deg": 30.0, "reach_m": 5.0}
    assert chains.near(90, 60, **radii) == []
    chains.link(places[88], places[8], sure(8, 88), "")
    assert chains.near(90, 60, **radii) == [10, 11, 9]
    assert chains.near(90, 10, **radii) == [9]
    assert chains.near(90, 60, radius_m=1.0, radius_deg=5.0, reach_m=5.0) == [10]


def test_nothing_is_near_what_has_no_pose() -> None:
    chains, _ = driven(5)
    chains.add(Place(5, "5", "", 0, None), 3.0, 0)
    assert chains.near(5, 5, 100.0, 180.0, 100.0) == []
