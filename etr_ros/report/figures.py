"""The curves and the matrix of a report, as plain values."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros import metrics
from etr_ros.database import PlaceMap
from etr_ros.report.verdicts import Truth
from etr_ros.result import Query, Result
from etr_ros.transforms import between, compose, error, inverse
from etr_ros.types import Candidate, LoopClosure, Pose

MAX_POINTS = 400  # of a curve
MAX_ROWS = 1500  # compared with each other for the similarity matrix
MATRIX_PX = 240
CONFIDENCES = ("probability", "etr_score", "inliers")
NEIGHBOURS_S = 15.0


def precision_recall(queries: Sequence[Query], truth: Truth) -> list[dict[str, Any]]:
    """One curve for the order after re-ranking and one before; empty without truth.

    As `etr_ros.predictions`: the first candidate of each query whose truth is known, believed from some confidence on.
    """
    if truth.places is None:
        return []
    positives = truth.places.positives
    known = [query for query in queries if query.match is not None and query.name in positives]
    every = [c for query in known if query.match for c in query.match.candidates]
    name = next((n for n in CONFIDENCES if any(getattr(c, n) is not None for c in every)), None)
    curves = []
    if name is not None:
        curves.append(_curve("after re-ranking", known, positives, _first, name))
    curves.append(_curve("retrieval alone", known, positives, _most_similar, "retrieval_score"))
    return [curve for curve in curves if curve["points"]]


def similarity(own: PlaceMap | None, place_map: PlaceMap | None) -> dict[str, Any] | None:
    """Cosines of the global descriptors, pictures downwards, places (of the map, else the same pictures) to the right.

    Where there are more than `MATRIX_PX`, the largest of neighbouring cosines is kept, so that no loop gets lost.
    """
    if own is None:
        return None
    other = place_map if place_map is not None and _dim(place_map) == _dim(own) else own
    rows, columns = _descriptors(own), _descriptors(other)
    matrix = _pooled(rows @ columns.T)
    low, high = (float(value) for value in np.percentile(matrix, (2, 99.8)))
    grey = np.clip(255 * (matrix - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    picture = cv2.applyColorMap(grey, cv2.COLORMAP_CIVIDIS)
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return {
        "png": base64.b64encode(data.tobytes()).decode("ascii"),
        "rows": len(own),
        "columns": len(other),
        "of_map": other is not own,
        "low": round(low, 3),
        "high": round(high, 3),
    }


def neighbour_agreement(result: Result) -> dict[str, float] | None:
    """How well accepted metric loops agree with their neighbours by odometry, which needs no ground truth.

    For loops a and b that follow each other within `NEIGHBOURS_S`, b and the odometry predict a; given are the medians
    of the difference in metres and degrees and the number of such pairs. None when there are none.
    """
    session = result.manifest.get("session")
    own = [loop for loop in result.loops if loop.accepted and loop.geometry.is_metric and loop.match.session == session]
    own.sort(key=lambda loop: loop.query.stamp_ns)
    poses = {query.stamp_ns: query.odometry for query in result.queries}
    off = []
    for a, b in pairwise(own):
        near = b.query.stamp_ns - a.query.stamp_ns <= NEIGHBOURS_S * 1e9
        near &= abs(b.match.stamp_ns - a.match.stamp_ns) <= NEIGHBOURS_S * 1e9
        difference = _difference(a, b, poses) if near else None
        if difference is not None:
            off.append(difference)
    if not off:
        return None
    metres, degrees = np.median(np.array(off), axis=0).tolist()
    return {"metres": metres, "degrees": degrees, "pairs": len(off)}


def stage_times(queries: Sequence[Query]) -> dict[str, dict[str, float]]:
    """Percentiles of the milliseconds of each stage, and of their sum as "total"."""
    answered = [query.match.stage_ms for query in queries if query.match is not None and query.match.stage_ms]
    stages = list(dict.fromkeys(stage for stage_ms in answered for stage in stage_ms))
    found = {stage: metrics.percentiles([each[stage] for each in answered if stage in each]) for stage in stages}
    return found | ({"total": metrics.percentiles([sum(each.values()) for each in answered])} if answered else {})


def _first(candidates: Sequence[Candidate]) -> Candidate:
    return candidates[0]


def _most_similar(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda c: (-c.retrieval_score, c.place.place_id))


def _curve(
    label: str,
    known: Sequence[Query],
    positives: Mapping[str, frozenset[int]],
    pick: Callable[[Sequence[Candidate]], Candidate],
    confidence: str,
) -> dict[str, Any]:
    ranked = [(query.match.candidates, positives[query.name]) for query in known if query.match is not None]
    picked = [(pick(candidates), right) for candidates, right in ranked if candidates]
    judged = [(getattr(c, confidence), c.place.place_id in right) for c, right in picked]
    judged = [(value, right) for value, right in judged if value is not None]
    total = sum(bool(right) for _, right in ranked)
    curve = metrics.precision_recall([value for value, _ in judged], [right for _, right in judged], total)
    steps = np.linspace(0, len(curve.recall) - 1, min(len(curve.recall), MAX_POINTS)).round().astype(np.int64)
    columns = (curve.recall[steps], curve.precision[steps], curve.thresholds[steps])
    points = [[round(value, 4) for value in row] for row in np.column_stack(columns).tolist()] if len(steps) else []
    return {"label": label, "confidence": confidence, "area": curve.average_precision, "points": points}


def _difference(a: LoopClosure, b: LoopClosure, poses: Mapping[int, Pose | None]) -> tuple[float, float] | None:
    known = [pose for place in (a.query, b.query, a.match, b.match) if (pose := poses.get(place.stamp_ns)) is not None]
    t_a, t_b = a.geometry.match_t_query, b.geometry.match_t_query
    if t_a is None or t_b is None or len(known) < 4:
        return None
    query_a, query_b, match_a, match_b = known
    predicted = compose(compose(between(match_a, match_b), t_b), inverse(between(query_a, query_b)))
    off = error(t_a, predicted)
    return float(np.linalg.norm(off[:3])), math.degrees(float(np.linalg.norm(off[3:])))


def _dim(place_map: PlaceMap) -> int:
    return place_map.info.features.global_dim


def _descriptors(place_map: PlaceMap) -> NDArray[np.float32]:
    """(N, G) of at most `MAX_ROWS` places, evenly picked."""
    count = len(place_map)
    picked = np.linspace(0, count - 1, min(count, MAX_ROWS)).round().astype(np.int64)
    return place_map.global_descriptors(picked)


def _pooled(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in (0, 1):
        count = matrix.shape[axis]
        if count > MATRIX_PX:
            starts = (np.arange(MATRIX_PX) * count) // MATRIX_PX
            matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return matrix
