"""Measures of place recognition; pure functions.

A query is one picture whose place is sought. Its rank is the position, from 1, of the first candidate that shows the
same place; None when no candidate does. Recall counts over queries that have a positive in the database.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Item = TypeVar("Item")


def rank_of_first_positive(ranking: Sequence[Item], positives: Collection[Item]) -> int | None:
    """The position from 1 of the first item of `ranking` that is in `positives`, or None."""
    return next((rank for rank, item in enumerate(ranking, start=1) if item in positives), None)


def recall_at_k(ranks: Sequence[int | None], k: int) -> float | None:
    """The share of queries with a positive among their first `k` candidates; None without queries."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks) if ranks else None


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall when answers with at least this confidence are believed; thresholds fall strictly."""

    thresholds: NDArray[np.float64]  # (T,)
    precision: NDArray[np.float64]  # (T,)
    recall: NDArray[np.float64]  # (T,)

    @property
    def average_precision(self) -> float:
        """The area below the curve as a sum of steps: sum over t of (recall_t - recall_{t-1}) * precision_t."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    @property
    def recall_at_full_precision(self) -> float:
        """The largest recall at which every believed answer is correct; 0 when there is none.

        For loop closure this is the measure: one false loop bends a map.
        """
        return float(self.recall[self.precision == 1.0].max(initial=0.0))

    @property
    def best_f1(self) -> float:
        """The largest harmonic mean of precision and recall over all thresholds; 0 without answers."""
        both = self.precision + self.recall
        f1 = np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)
        return float(f1.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often answers of about the same probability are correct; B bins of equal width, empty ones left out."""

    probability: NDArray[np.float64]  # (B,) mean of those in the bin
    share_correct: NDArray[np.float64]  # (B,)
    count: NDArray[np.int64]  # (B,)

    @property
    def calibration_error(self) -> float | None:
        """Mean distance of the two, weighted by count (Guo et al., ICML 2017, equation 3); None without answers."""
        off = np.abs(self.probability - self.share_correct)
        return float(np.average(off, weights=self.count)) if len(off) else None


def reliability(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10) -> Reliability:
    """Bins of probabilities (Q,) in [0, 1], bin b over (b/bins, (b+1)/bins], 0 in the first.

    Raises ValueError for anything else than probabilities.
    """
    probability = np.asarray(probabilities, np.float64).reshape(-1)
    is_correct = np.asarray(correct, bool).reshape(-1)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must be between 0 and 1")
    row = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(row, minlength=bins)
    used = count > 0
    mean = np.bincount(row, probability, bins)[used] / count[used]
    return Reliability(mean, np.bincount(row, is_correct, bins)[used] / count[used], count[used])


def precision_recall(confidences: ArrayLike, correct: ArrayLike, positives: int) -> PrecisionRecall:
    """The curve of answers (Q,), each with a confidence and whether it is correct.

    `positives` is the number of queries that have a correct answer at all. Queries that have none belong into the
    answers, as wrong ones. Answers of equal confidence are believed together.
    Raises ValueError for NaN, or when there are more correct answers than positives.
    """
    confidence = np.asarray(confidences, np.float64).reshape(-1)
    is_correct = np.asarray(correct, bool).reshape(-1)
    if np.isnan(confidence).any() or is_correct.sum() > positives:
        raise ValueError("confidences must not be NaN, and at most `positives` answers can be correct")
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    hits = np.cumsum(is_correct[order])
    last_of_tie = np.append(np.diff(sorted_confidence) != 0, True)[: len(order)]
    believed = np.arange(1, len(order) + 1)
    return PrecisionRecall(
        sorted_confidence[last_of_tie],
        (hits / believed)[last_of_tie],
        (hits / max(positives, 1))[last_of_tie],
    )


def percentiles(values: ArrayLike, at: Sequence[int] = (50, 90, 99)) -> dict[str, float]:
    """`{"p50": ..., "p90": ..., "p99": ...}` with linear interpolation; empty without values."""
    array = np.asarray(values, np.float64)
    return {f"p{p}": float(np.percentile(array, p)) for p in at} if array.size else {}
