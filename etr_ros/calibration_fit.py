"""Fitting a calibration: a model for each set of evidence, the choice of the method, false answers per km."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etr_ros import metrics, regression
from etr_ros.calibration import ALWAYS, LOOPS, METHODS, PLACES, Array, Calibration, Curve, Model
from etr_ros.errors import DataError
from etr_ros.evidence import Evidence
from etr_ros.samples import Sample, Samples

MIN_EACH = 50  # samples of either kind; up to six numbers are fitted to them
FOLDS = 5
PERCENTILES = 1, 99  # evidence beyond is clipped
MAX_THRESHOLDS = 200


def fit(samples: Sequence[Samples], method: str = "") -> Calibration:
    """One calibration for all of them. `method` is chosen by cross-validated log loss unless it is given.

    With several results each is held out once, else five stretches of the one. Raises DataError for too few samples,
    for samples of one kind, and when the results are of different re-rankers or features.
    """
    _require_alike(samples)
    rows = [row for part in samples for row in part.rows]
    right = np.array([row.is_right for row in rows], bool)
    _require_enough(right)
    evidence, folds = [row.evidence for row in rows], _folds(samples)
    sets = [features for features in _feature_sets(evidence) if _is_enough(right[_knows(evidence, features)])]
    told = {name: _held_out(evidence, right, folds, sets, name) for name in METHODS}
    losses = {name: regression.log_loss(each, right) for name, each in told.items()}
    chosen = method or min(METHODS, key=lambda name: losses[name])
    models = tuple(_fit_model(evidence, right, features, chosen) for features in sets)
    is_best = _is_best_of_picture(samples)
    facts = {
        "sources": [part.source for part in samples],
        "pictures": int(is_best.sum()),
        "positives": int(right.sum()),
        "negatives": int((~right).sum()),
        "folds": int(folds.max()) + 1,
        "log_loss": losses,
        "before": _reliability(np.array([row.before for row in rows]), right, is_best),
        "after": _reliability(told[chosen], right, is_best),
    }
    fitted = Calibration(samples[0].reranker, samples[0].extractor, chosen, models, {}, facts)
    return dataclasses.replace(fitted, curves=_curves(fitted, samples, told[chosen]))


def _curves(calibration: Calibration, samples: Sequence[Samples], held_out: Array) -> dict[str, Curve]:
    """False places and false loops over the threshold, where the way driven is known.

    Places are counted by the probabilities that fits to the other folds gave; the few loops by the final fit.
    """
    posed, found = [part for part in samples if part.km > 0], {}
    ends = np.cumsum([len(part.rows) for part in samples])
    told = dict(zip(map(id, samples), np.split(held_out, ends[:-1]), strict=True))
    places = [answer for part in posed for answer in _best_answers(part.rows, told[id(part)].tolist())]
    if places:
        found[PLACES] = _curve(places, sum(part.km for part in posed))
    driven = [part for part in posed if part.loops is not None]
    loops = [
        (calibration.probabilities([evidence])[0], is_false)
        for part in driven
        for evidence, is_false in part.loops or ()
    ]
    if loops:
        found[LOOPS] = _curve(loops, sum(part.km for part in driven))
    return found


def _best_answers(rows: Sequence[Sample], probabilities: Sequence[float]) -> list[tuple[float, bool]]:
    """Of each picture the most probable candidate: its probability, and whether it is false."""
    best: dict[int, tuple[float, bool]] = {}
    for row, probability in zip(rows, probabilities, strict=True):
        if row.picture not in best or probability > best[row.picture][0]:
            best[row.picture] = probability, not row.is_right
    return list(best.values())


def _curve(answers: Sequence[tuple[float, bool]], km: float) -> Curve:
    probability, false = np.array([p for p, _ in answers]), np.array([f for _, f in answers], bool)
    thresholds = np.unique(probability)
    if len(thresholds) > MAX_THRESHOLDS:
        thresholds = np.unique(np.quantile(thresholds, np.linspace(0, 1, MAX_THRESHOLDS), method="lower"))
    accepted = probability[None] >= thresholds[:, None]
    return Curve(km, thresholds, accepted.sum(axis=1), (accepted & false).sum(axis=1))


def _feature_sets(evidence: Sequence[Evidence]) -> list[tuple[str, ...]]:
    """Scores alone, and with all that some samples know besides; the richest last."""
    more = [name for name in ("inliers", "support") if any(getattr(each, name) is not None for each in evidence)]
    return [ALWAYS, *((*ALWAYS, name) for name in more), *([(*ALWAYS, *more)] if len(more) > 1 else [])]


def _knows(evidence: Sequence[Evidence], features: Sequence[str]) -> NDArray[np.bool_]:
    wanted = set(features) - set(ALWAYS)
    return np.array([all(getattr(each, name) is not None for name in wanted) for each in evidence], bool)


def _fit_model(evidence: Sequence[Evidence], right: NDArray[np.bool_], features: tuple[str, ...], method: str) -> Model:
    """Raises ValueError when the samples that know the features are of one kind."""
    used = _knows(evidence, features)
    rows = _matrix(evidence, features)[used]
    low, high = np.nanpercentile(np.where(np.isfinite(rows), rows, np.nan), PERCENTILES, axis=0)
    clipped = np.clip(rows, low, high)
    mean, scale = clipped.mean(axis=0), clipped.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    weights, bias = regression.logistic((clipped - mean) / scale, right[used])
    model = Model(features, low, high, mean, scale, weights, bias)
    if method == "logistic":
        return model
    return dataclasses.replace(model, steps=regression.isotonic(model.logits(rows), right[used]))


def _matrix(evidence: Sequence[Evidence], features: Sequence[str]) -> Array:
    found = [[getattr(each, name) for name in features] for each in evidence]
    return np.array([[math.inf if value is None else value for value in row] for row in found], np.float64)


def _held_out(
    evidence: Sequence[Evidence],
    right: NDArray[np.bool_],
    folds: NDArray[np.int64],
    sets: Sequence[tuple[str, ...]],
    method: str,
) -> Array:
    """(Q,) the probability of each sample by models that were fitted to the other folds."""
    probability = np.full(len(right), right.mean())
    for fold in np.unique(folds):
        seen, held_out = np.flatnonzero(folds != fold), folds == fold
        known, truth = [evidence[i] for i in seen], right[seen]
        for features in sets:  # the richer overwrite the poorer
            rows = held_out & _knows(evidence, features)
            usable = truth[_knows(known, features)]
            if rows.any() and 0 < usable.sum() < len(usable):
                model = _fit_model(known, truth, features, method)
                probability[rows] = model.probabilities(_matrix(evidence, features)[rows])
    return probability


def _folds(samples: Sequence[Samples]) -> NDArray[np.int64]:
    if len(samples) > 1:
        return np.concatenate([np.full(len(part.rows), number, np.int64) for number, part in enumerate(samples)])
    count = len(samples[0].rows)
    return np.arange(count, dtype=np.int64) * FOLDS // max(count, 1)


def _is_best_of_picture(samples: Sequence[Samples]) -> NDArray[np.bool_]:
    """The first sample of each picture: the best by score."""
    pictures = [row.picture for part in samples for row in part.rows]
    starts = np.cumsum([0, *(len(part.rows) for part in samples)]).tolist()
    return np.array([i in starts or pictures[i] != pictures[i - 1] for i in range(len(pictures))], bool)


def _reliability(probability: Array, right: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Bins and calibration error of those samples that have a probability and are `chosen`."""
    told = np.isfinite(probability) & chosen
    bins = metrics.reliability(probability[told], right[told])
    rows = zip(bins.probability.tolist(), bins.share_correct.tolist(), bins.count.tolist(), strict=True)
    return {"calibration_error": bins.calibration_error, "bins": [list(row) for row in rows]}


def _is_enough(right: NDArray[np.bool_]) -> bool:
    return MIN_EACH <= int(right.sum()) <= len(right) - MIN_EACH


def _require_enough(right: NDArray[np.bool_]) -> None:
    positives, negatives = int(right.sum()), int((~right).sum())
    if _is_enough(right):
        return
    what = f"{positives} right and {negatives} wrong candidates are known"
    if not positives or not negatives:
        kind, other = ("wrong", "places that are not in the map") if positives else ("right", "places seen before")
        raise DataError(f"{what}; a calibration needs {kind} ones too: record a drive that also comes to {other}")
    raise DataError(f"{what}; a calibration needs {MIN_EACH} of each: give more results or a longer recording")


def _require_alike(samples: Sequence[Samples]) -> None:
    for name, what in (("reranker", "re-ranker"), ("extractor", "local features")):
        found = sorted({str(getattr(part, name)) for part in samples})
        if len(found) > 1:
            raise DataError(f"the results differ in their {what} ({', '.join(found)}): fit each for itself")
