"""Geometric verification of matches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_features
from etr_ros.verify import epipolar_inliers, inliers, mutual_matches


def test_a_picture_matches_itself() -> None:
    features = make_features(0, count=50)
    matches = mutual_matches(features, features)
    np.testing.assert_array_equal(matches[:, 0], matches[:, 1])
    assert len(matches) == 50


def test_matches_are_mutual_and_one_to_one() -> None:
    matches = mutual_matches(make_features(0, count=60), make_features(1, count=40))
    assert len(set(matches[:, 0])) == len(matches) == len(set(matches[:, 1]))


def test_nothing_matches_nothing() -> None:
    empty, some = make_features(0, count=0), make_features(1)
    assert mutual_matches(empty, some).shape == (0, 2)
    assert inliers(empty, some).shape == (0, 2)


def test_wrong_matches_are_sorted_out() -> None:
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (120, 3)) + np.array([0, 0, 4])
    moved = seen + np.array([0.3, 0.05, 0.1])
    first, second = (400 * points[:, :2] / points[:, 2:] + 300 for points in (seen, moved))
    second[80:] = rng.uniform(100, 500, (40, 2))
    mask = epipolar_inliers(first.astype(np.float32), second.astype(np.float32))
    assert mask[:80].mean() > 0.95
    assert mask[80:].mean() < 0.3


@pytest.mark.parametrize("points", [np.zeros((30, 2)), np.column_stack([np.arange(30.0), np.zeros(30)])])
def test_degenerate_points_are_no_error(points: np.ndarray) -> None:
    mask = epipolar_inliers(points.astype(np.float32), points.astype(np.float32))
    assert mask.shape == (30,) and mask.dtype == bool


def test_same_input_same_inliers() -> None:
    a, b = make_features(0, count=200), make_features(1, count=200)
    np.testing.assert_array_equal(inliers(a, b), inliers(a, b))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), repeated=st.integers(0, 6))
def test_mutual_matches_are_each_others_first_nearest(seed: int, repeated: int) -> None:
    a, b = make_features(seed, count=30), make_features(seed + 1, count=40)
    a.descriptors[:repeated] = b.descriptors[0]  # equal descriptors: the first of them matches
    cosines = a.descriptors @ b.descriptors.T
    to_b, to_a = cosines.argmax(axis=1), cosines.argmax(axis=0)
    expected = [(row, column) for row, column in enumerate(to_b) if to_a[column] == row]
    assert mutual_matches(a, b).tolist() == [list(pair) for pair in expected]
