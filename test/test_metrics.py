"""Metrics against cases worked out by hand, and their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import metrics


def test_rank_and_recall() -> None:
    assert metrics.rank_of_first_positive(["a", "b", "c"], {"c", "b"}) == 2
    assert metrics.rank_of_first_positive(["a"], {"z"}) is None
    ranks = [1, 3, None, 6]
    assert [metrics.recall_at_k(ranks, k) for k in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert metrics.recall_at_k([], 1) is None


def test_precision_recall_by_hand() -> None:
    # believed in this order: right, right, wrong, right; one more query has a positive that was never found
    curve = metrics.precision_recall([0.9, 0.1, 0.8, 0.5], [True, True, True, False], positives=4)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.5, 0.1]
    assert curve.precision.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert curve.recall.tolist() == pytest.approx([1 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert curve.recall_at_full_precision == 0.5
    assert curve.average_precision == pytest.approx(0.25 + 0.25 + 0 + 0.25 * 0.75)


def test_equal_confidences_are_believed_together() -> None:
    curve = metrics.precision_recall([0.5, 0.5], [True, False], positives=1)
    assert curve.precision.tolist() == [0.5]
    assert curve.recall_at_full_precision == 0.0


def test_no_answers_and_no_positives() -> None:
    empty = metrics.precision_recall([], [], positives=3)
    assert (empty.average_precision, empty.recall_at_full_precision) == (0.0, 0.0)
    wrong = metrics.precision_recall([1.0], [False], positives=0)
    assert (wrong.average_precision, wrong.recall_at_full_precision) == (0.0, 0.0)


@pytest.mark.parametrize(("confidence", "positives"), [(float("nan"), 1), (0.5, 0)])
def test_impossible_input_is_refused(confidence: float, positives: int) -> None:
    with pytest.raises(ValueError, match="confidences"):
        metrics.precision_recall([confidence], [True], positives)


def curve_of(rows: list[tuple[int, bool]], positives: int) -> metrics.PrecisionRecall:
    return metrics.precision_recall([confidence for confidence, _ in rows], [right for _, right in rows], positives)


answers = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30)


@given(answers, st.integers(0, 5), st.randoms(use_true_random=False))
def test_curve_is_bounded_and_ignores_the_order_of_queries(
    rows: list[tuple[int, bool]], missed: int, random: np.random.RandomState
) -> None:
    positives = sum(correct for _, correct in rows) + missed
    curve = curve_of(rows, positives)
    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    assert ((curve.precision >= 0) & (curve.precision <= 1)).all()
    assert 0 <= curve.average_precision <= 1
    assert curve.recall_at_full_precision <= curve.recall[-1] <= 1
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert curve_of(shuffled, positives).average_precision == curve.average_precision


@given(answers)
def test_perfect_separation_has_full_recall_at_full_precision(rows: list[tuple[int, bool]]) -> None:
    correct = [right for _, right in rows]
    curve = metrics.precision_recall([1.0 if right else 0.0 for right in correct], correct, sum(correct))
    assert curve.recall_at_full_precision == (1.0 if any(correct) else 0.0)


def test_percentiles() -> None:
    assert metrics.percentiles([1, 2, 3], (50, 100)) == {"p50": 2.0, "p100": 3.0}
    assert metrics.percentiles([]) == {}


def test_best_f1_by_hand() -> None:
    curve = metrics.precision_recall([0.9, 0.8, 0.5], [True, False, True], positives=2)
    assert curve.best_f1 == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert metrics.precision_recall([], [], 3).best_f1 == 0.0


def test_reliability_by_hand() -> None:
    found = metrics.reliability([0.0, 0.1, 0.72, 0.78, 1.0], [False, False, True, False, True])
    assert found.probability.tolist() == pytest.approx([0.05, 0.75, 1.0])
    assert found.share_correct.tolist() == [0.0, 0.5, 1.0]
    assert found.count.tolist() == [2, 2, 1]
    assert found.calibration_error == pytest.approx((2 * 0.05 + 2 * 0.25 + 0) / 5)
    assert metrics.reliability([], []).calibration_error is None


@pytest.mark.parametrize("impossible", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(impossible: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.reliability([impossible], [True])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60))
def test_scikit_learn_agrees(rows: list[tuple[int, bool]]) -> None:
    """Where both are defined: some answer is correct. Its curve has a point more, and its calibration bins too."""
    sklearn = pytest.importorskip("sklearn.metrics")
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    confidence, correct = [c / 20 for c, _ in rows], [right for _, right in rows]
    if not any(correct):
        return
    curve = metrics.precision_recall(confidence, correct, sum(correct))
    precision, recall, thresholds = sklearn.precision_recall_curve(correct, confidence)
    assert thresholds[::-1] == pytest.approx(curve.thresholds, abs=1e-12)
    assert precision[:-1][::-1] == pytest.approx(curve.precision, abs=1e-12)
    assert recall[:-1][::-1] == pytest.approx(curve.recall, abs=1e-12)
    assert sklearn.average_precision_score(correct, confidence) == pytest.approx(curve.average_precision, abs=1e-12)
    share, mean = calibration_curve(correct, confidence, n_bins=7)
    bins = metrics.reliability(confidence, correct, bins=7)
    assert (share, mean) == (pytest.approx(bins.share_correct, abs=1e-9), pytest.approx(bins.probability, abs=1e-9))
