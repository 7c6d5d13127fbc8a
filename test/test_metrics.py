"""Metrics against cases worked out by hand, and their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
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
