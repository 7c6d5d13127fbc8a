"""Fitted probabilities: hand-made cases, and scikit-learn as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import regression


def made(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3))
    right = rng.random(count) < 1 / (1 + np.exp(-(2 * rows[:, 0] - rows[:, 1] + 0.5)))
    return rows, right


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees_on_the_logistic_regression(seed: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows, right = made(seed)
    weights, bias = regression.logistic(rows, right, ridge=2.0)
    judge = linear_model.LogisticRegression(C=0.5, tol=1e-12, max_iter=10000).fit(rows, right)
    assert weights == pytest.approx(judge.coef_[0], abs=1e-5)
    assert bias == pytest.approx(judge.intercept_[0], abs=1e-5)


def test_separable_samples_do_not_run_away() -> None:
    rows = np.arange(20.0)[:, None] - 9.5
    weights, bias = regression.logistic(rows, rows[:, 0] > 0)
    assert 0 < weights[0] < 10 and abs(bias) < 1e-6


@pytest.mark.parametrize("right", [np.ones(5, bool), np.zeros(5, bool)])
def test_one_kind_of_samples_teaches_nothing(right: np.ndarray) -> None:
    with pytest.raises(ValueError, match="both"):
        regression.logistic(np.ones((5, 1)), right)


def test_isotonic_by_hand() -> None:
    # 0 | 1 0 pooled | 1 1 pooled
    centres, shares = regression.isotonic(np.array([0.0, 1, 2, 3, 4]), np.array([0, 1, 0, 1, 1], bool))
    assert centres.tolist() == [0.0, 1.5, 3.5]
    assert shares.tolist() == pytest.approx([1 / 3, 2 / 4, 3 / 4])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=50))
def test_scikit_learn_agrees_on_the_blocks(samples: list[tuple[int, bool]]) -> None:
    isotonic = pytest.importorskip("sklearn.isotonic").IsotonicRegression
    x, right = np.array([a for a, _ in samples], float), np.array([b for _, b in samples], bool)
    centres, shares = regression.isotonic(x, right)
    assert (np.diff(centres) > 0).all() and (np.diff(shares) >= 0).all() and ((shares > 0) & (shares < 1)).all()
    judge = isotonic().fit(x, right)
    assert len(set(np.round(judge.predict(x), 9))) == len(centres)


def test_log_loss() -> None:
    assert regression.log_loss(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx(
        -(np.log(0.5) + np.log(0.75)) / 2
    )
