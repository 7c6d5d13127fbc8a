"""How good a model is on validation places, and the probability that its score stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from etr_ros import metrics
from etr_ros.errors import DataError
from etr_ros.etr import ETR
from etr_ros.rerank import Calibration
from etr_ros.tokens import Locals
from etr_ros.train.batches import in_single_precision
from etr_ros.train.calibrating import Judgement, fit_calibration, in_and_outside_of_the_map
from etr_ros.train.pairs import PairSet
from etr_ros.train.settings import TrainConfig
from etr_ros.train.teacher import HALF_SIDE_PX
from etr_ros.types import Features


@dataclass(frozen=True)
class Validation:
    """Of the `top_k` most similar among positives and look-alikes of each query: Recall@1 in retrieval order and after
    re-ranking; of the first after re-ranking, as a detector: average precision and recall at 100 % precision."""

    queries: int
    recall_at_1_retrieval: float
    recall_at_1_etr: float
    average_precision: float
    recall_at_full_precision: float
    loss: float
    calibration: Calibration

    def is_better_than(self, other: Validation) -> bool:
        """By Recall@1 after re-ranking and average precision together: the order must be right, and the score tell."""
        mine, theirs = (each.recall_at_1_etr + each.average_precision for each in (self, other))
        return (mine, -self.loss) > (theirs, -other.loss)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One validation query: its row, the rows of its candidates in retrieval order, and which of them are right."""

    query: int
    candidates: NDArray[np.int64]
    right: NDArray[np.bool_]


def validation_cases(pairs: PairSet, config: TrainConfig) -> list[Case]:
    """Queries are changed copies where there are any; candidates are originals. Raises DataError when there is none."""
    anchors = pairs.anchors
    spread = np.linspace(0, len(anchors) - 1, min(len(anchors), config.validation_queries)).astype(int)
    cases = []
    for anchor in anchors[np.unique(spread)]:
        pool = np.concatenate([pairs.positives[anchor], pairs.lookalikes[anchor]])
        right = np.arange(len(pool)) < len(pairs.positives[anchor])
        query = int(pairs.copies[anchor][-1])
        vector = pairs.locals.global_descriptor[query].numpy()  # type: ignore[index]
        order = np.argsort(-(pairs.globals[pool] @ vector), kind="stable")[: config.top_k]
        if right[order].any():
            rows = np.array([pairs.copies[p][0] for p in pool[order]], np.int64)
            cases.append(Case(query, rows, right[order]))
    if not cases:
        raise DataError("the validation sources hold no query whose place is retrieved: give more of them")
    return cases


def validate(model: ETR, pairs: PairSet, cases: list[Case]) -> Validation:
    """Re-rank every case with `model` and fit the calibration to its scores."""
    model.eval()
    first_right, first_score, scores, labels = [], [], [], []
    for case in cases:
        logits = logits_of(model, pairs, case)
        first_right.append(bool(case.right[int(logits.argmax())]))
        first_score.append(float(logits.max()))
        scores.append(logits)
        labels.append(case.right)
    curve = metrics.precision_recall(first_score, first_right, len(cases))
    x, y = np.concatenate(scores), np.concatenate(labels).astype(np.float32)
    return Validation(
        queries=len(cases),
        recall_at_1_retrieval=float(np.mean([case.right[0] for case in cases])),
        recall_at_1_etr=float(np.mean(first_right)),
        average_precision=curve.average_precision,
        recall_at_full_precision=curve.recall_at_full_precision,
        loss=float(F.binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(y))),
        calibration=fit_calibration(x, y),
    )


def logits_of(model: ETR, pairs: PairSet, case: Case) -> NDArray[np.float32]:
    """The scores (K,) of the candidates of a case."""
    query = in_single_precision(pairs.locals.select(slice(case.query, case.query + 1)))
    candidates = in_single_precision(pairs.locals.select(torch.from_numpy(case.candidates)))
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(query.expand(len(candidates)), candidates).numpy()
    return logits


def judgements(model: ETR, pairs: PairSet, cases: list[Case]) -> list[Judgement]:
    """What the model, and geometry for the best of each case, make of the candidates: with right ones and without."""
    model.eval()
    found, seen = list[Judgement](), partial(_features, pairs.locals)
    for case in cases:
        candidates = [partial(seen, row) for row in case.candidates.tolist()]
        logits = logits_of(model, pairs, case)
        found += in_and_outside_of_the_map(seen(case.query), candidates, logits, case.right, len(candidates))
    return found


def _features(pictures: Locals, row: int) -> Features:
    seen = pictures.mask[row]
    return Features(
        keypoints=(HALF_SIDE_PX * pictures.xy[row, seen] + HALF_SIDE_PX).numpy(),
        scores=np.ones(int(seen.sum()), np.float32),
        descriptors=pictures.descriptors[row, seen].float().numpy(),
        scales=pictures.scales[row, seen].numpy(),
        image_size=(int(2 * HALF_SIDE_PX), int(2 * HALF_SIDE_PX)),
        global_descriptor=pictures.global_descriptor[row].numpy(),  # type: ignore[index]
    )
