"""The probability that a score stands for, and what the look of geometry is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import verify
from etr_ros.config import RerankConfig
from etr_ros.rerank import Calibration
from etr_ros.train.pairs import SURE_INLIERS
from etr_ros.types import Features

CONFIRMED = RerankConfig.confirmed


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The candidates of one query: their scores (K,), the verified matches of the best of them, 0 for the others (K,),
    and which are right (K,)."""

    scores: NDArray[np.float32]
    inliers: NDArray[np.int64]
    right: NDArray[np.bool_]

    @property
    def best(self) -> NDArray[np.int64]:
        """Those that geometry had a look at."""
        return best_of(self.scores)


def best_of(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rows of the highest scores (K,), which geometry has a look at."""
    return np.argsort(-scores, kind="stable")[:CONFIRMED]


def inliers_of_best(
    query: Features, candidates: Sequence[Callable[[], Features]], scores: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The verified matches of the best by `scores` (K,), 0 for the others."""
    inliers = np.zeros(len(scores), np.int64)
    for k in best_of(scores).tolist():
        inliers[k] = len(verify.inliers(query, candidates[k]()))
    return inliers


def in_and_outside_of_the_map(
    query: Features,
    candidates: Sequence[Callable[[], Features]],
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    count: int,
) -> Iterator[Judgement]:
    """The query as a map with its place answers it, and as one without: the first `count` of all candidates (K,), which
    are in the order of retrieval, and the first `count` of those that are not `right`."""
    for rows in (np.arange(len(scores))[:count], np.flatnonzero(~right)[:count]):
        if len(rows):
            inliers = inliers_of_best(query, [candidates[row] for row in rows.tolist()], scores[rows])
            yield Judgement(scores[rows], inliers, right[rows])


def calibrated(judged: Sequence[Judgement]) -> Calibration:
    """What scores are worth, and what geometry adds to those of the best, by which the probability is fitted.

    A robot also sees places that its map does not have. A probability is right for both when `judged` holds as many of
    the one kind as of the other, see `in_and_outside_of_the_map`.
    """
    per_inlier = worth_of_inliers(judged)
    raised = np.concatenate([(each.scores + per_inlier * each.inliers)[each.best] for each in judged])
    right = np.concatenate([each.right[each.best] for each in judged])
    return replace(fit_calibration(raised.astype(np.float32), right.astype(np.float32)), per_inlier=per_inlier)


def worth_of_inliers(judged: Sequence[Judgement]) -> float:
    """How much of a score one inlier is worth: what puts a right candidate before the wrong ones among the best, by
    conditional logistic regression over the queries; 0 when inliers say nothing."""
    unit = torch.tensor([1.0, SURE_INLIERS], dtype=torch.float64)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    groups = []
    for each in judged:
        right = each.right[each.best]
        if right.any() and not right.all():
            known = np.stack([each.scores[each.best], each.inliers[each.best]], axis=1).astype(np.float64)
            groups.append((torch.from_numpy(known) / unit, torch.from_numpy(right)))

    def loss() -> Tensor:
        logits = [(x @ weights, right) for x, right in groups]
        wrong = sum(((x.logsumexp(0) - x[right].logsumexp(0)) for x, right in logits), torch.zeros(()))
        return wrong / max(1, len(logits)) + 1e-3 * weights.square().sum()

    _minimise(loss, weights)
    of_score, of_inlier = (weights.detach() / unit).tolist()
    return float(max(0.0, of_inlier / of_score)) if of_score > 0 else 0.0


def _minimise(loss: Callable[[], Tensor], parameters: Tensor) -> None:
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def fit_calibration(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> Calibration:
    """Platt scaling by maximum likelihood with Platt's smoothed targets; the slope is kept positive."""
    x, y = torch.from_numpy(scores).double(), torch.from_numpy(labels).double()
    right, wrong = y.sum(), (1 - y).sum()
    targets = torch.where(y > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    mean, deviation = x.mean(), x.std().clamp_min(1e-6)
    parameters = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log slope and offset, standardised

    def loss() -> Tensor:
        logits = parameters[0].exp() * (x - mean) / deviation + parameters[1]
        return F.binary_cross_entropy_with_logits(logits, targets)

    _minimise(loss, parameters)
    slope = float(parameters[0].detach().exp() / deviation)
    return Calibration(slope, float(parameters[1].detach()) - slope * float(mean))
