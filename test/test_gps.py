"""Satellite fixes in metres: against distances on the ellipsoid that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.gps import to_enu


def test_the_first_fix_is_the_origin_and_up_is_up() -> None:
    enu = to_enu([[48.1, 11.5, 520.0], [48.1, 11.5, 530.0]])
    assert enu == pytest.approx(np.array([[0, 0, 0], [0, 0, 10]]), abs=1e-6)
    assert to_enu(np.empty((0, 3))).shape == (0, 3)


def test_an_arc_second_along_the_equator_and_at_the_pole() -> None:
    second = 1 / 3600
    east = to_enu([[0, 0, 0], [0, second, 0]])[1]
    assert east == pytest.approx([6378137.0 * np.radians(second), 0, 0], abs=1e-3)
    north = to_enu([[0, 0, 0], [second, 0, 0]])[1]
    assert north[1] == pytest.approx(30.715, abs=1e-3)  # of a meridian, radius a (1 - e^2) at the equator
    at_pole = to_enu([[90, 0, 0], [90 - second, 0, 0]])[1]
    assert abs(at_pole[1]) == pytest.approx(31.026, abs=1e-3)  # radius a^2 / b at the pole


@given(st.floats(-80, 80), st.floats(-179, 179), st.floats(-0.001, 0.001), st.floats(-0.001, 0.001))
def test_distances_do_not_depend_on_which_fix_comes_first(lat: float, lon: float, dlat: float, dlon: float) -> None:
    here, there = [lat, lon, 100.0], [lat + dlat, lon + dlon, 105.0]
    forth, back = to_enu([here, there])[1], to_enu([there, here])[1]
    assert np.linalg.norm(forth) == pytest.approx(np.linalg.norm(back), abs=1e-6)
