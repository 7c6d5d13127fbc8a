"""Do two loop hypotheses tell the same story, given the odometry between them? Pure geometry.

Two hypotheses a and b say how the robot stood at the queries q to places p: p_t_q. Odometry (or the map's poses) knows
how q_a stood to q_b and p_a to p_b, so b predicts a:  p_a_t_q_a = (p_a_t_p_b) b (q_b_t_q_a). The prediction is compared
with a in units of what the covariances of both and the drift of the odometry over the way in between allow (pairwise
consistency, Mangelsen et al., ICRA 2018, with the drift bounded by the way).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from etr_ros.chains import Prediction, drift
from etr_ros.config import LoopConfig
from etr_ros.transforms import Matrix, between, change_frames, compose, error, inverse
from etr_ros.types import Geometry, Place, Pose

CHI2_6, CHI2_3, CHI2_1 = 22.46, 16.27, 10.83  # 0.999 of chi-square with 6, 3 and 1 degrees of freedom
SLACK_M, SLACK_SHARE = 2.0, 0.5  # how far a place may lie beside where the progress of the queries puts it
SLACK_S = 2.0
ONE_PLACE_S = 1.0  # a row of queries that all look like one place is no support: many views do
SHARP_M = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """A query that may show a place. `map` names the map of the place; ways are metres driven until both.

    `match_way_m` is None where the place is in a prebuilt map. Odometry is unbroken within a segment.
    """

    query: Place
    match: Place
    map: str
    geometry: Geometry
    probability: float | None
    query_way_m: float
    match_way_m: float | None
    query_segment: int = 0
    match_segment: int = 0


def disagreement(a: Hypothesis, b: Hypothesis, config: LoopConfig) -> str:
    """Why the two cannot both be true, in words; empty when they agree.

    Poses are compared as far as both know them: position and rotation, or rotation alone; besides that, or where
    nothing is known, the places must lie as far apart as the queries do.
    """
    if a.query_segment != b.query_segment or a.match_segment != b.match_segment:
        return "the odometry broke off between the two"
    apart = way_contradiction(a.query, b.query, a.match, b.match)
    q_a, q_b, p_a, p_b = a.query.pose, b.query.pose, a.match.pose, b.match.pose
    if q_a is None or q_b is None or p_a is None or p_b is None:
        return apart
    residual, covariance = _residual(a, b, between(p_a, p_b), between(q_b, q_a), config)
    if residual is None:
        return apart
    is_metric = a.geometry.is_metric and b.geometry.is_metric
    return _unlikely(residual, covariance, is_metric) or ("" if is_metric else apart)


def way_contradiction(query_a: Place, query_b: Place, match_a: Place, match_b: Place) -> str:
    """Why two queries cannot be at their matches, by how far apart they are: in metres, without poses in seconds.

    In words; empty when they can.
    """
    q_a, q_b, p_a, p_b = query_a.pose, query_b.pose, match_a.pose, match_b.pose
    if q_a is not None and q_b is not None and p_a is not None and p_b is not None:
        return _apart(math.dist(q_a.position_m, q_b.position_m), math.dist(p_a.position_m, p_b.position_m))
    queries_s, places_s = (abs(a.stamp_ns - b.stamp_ns) / 1e9 for a, b in ((query_a, query_b), (match_a, match_b)))
    least_s, most_s = (1 - SLACK_SHARE) * queries_s - ONE_PLACE_S, (1 + SLACK_SHARE) * queries_s + SLACK_S
    if match_a.session == match_b.session and least_s <= places_s <= most_s:
        return ""
    return f"the places were seen {places_s:.1f} s apart, the queries {queries_s:.1f} s"


def supports(a: Hypothesis, b: Hypothesis, config: LoopConfig) -> bool:
    """Whether the two agree, and had they not been true it would show: metric ones are compared to `SHARP_M`."""
    if disagreement(a, b, config):
        return False
    if not (a.geometry.is_metric and b.geometry.is_metric):
        return True
    q_a, q_b, p_a, p_b = a.query.pose, b.query.pose, a.match.pose, b.match.pose
    if q_a is None or q_b is None or p_a is None or p_b is None:
        return True
    _, covariance = _residual(a, b, between(p_a, p_b), between(q_b, q_a), config)
    return _is_sharp(covariance)


def contradiction(hypothesis: Hypothesis, prediction: Prediction | None) -> str:
    """What a prediction has against a hypothesis, in words; empty when nothing."""
    found = hypothesis.geometry
    if prediction is None or found.match_t_query is None or found.covariance is None:
        return ""
    residual = error(found.match_t_query, prediction.match_t_query)
    reason = _unlikely(residual, found.covariance + prediction.covariance, found.is_metric)
    return f"odometry contradicts it: {reason} after {prediction.way_m:.0f} m" if reason else ""


def is_sharp(prediction: Prediction | None) -> bool:
    """Whether a prediction tells positions to `SHARP_M`, so that a wrong metric hypothesis would contradict it."""
    return prediction is not None and _is_sharp(prediction.covariance)


def _is_sharp(covariance: Matrix) -> bool:
    return bool(np.trace(covariance[:3, :3]) <= SHARP_M**2)


def _unlikely(residual: Matrix, covariance: Matrix, is_metric: bool) -> str:
    """Why a difference (6,) is no accident, in words; without a scale only its rotation is judged.

    Its turn is judged alone as well: rooms with sides alike are wrong by a quarter turn, and hardly by anything else.
    """
    off_m, off_deg = float(np.linalg.norm(residual[:3])), math.degrees(float(np.linalg.norm(residual[3:])))
    turn = residual[3:]
    if (turn @ turn) ** 2 > CHI2_1 * (turn @ covariance[3:, 3:] @ turn):
        return f"{off_deg:.0f} degrees off"
    if is_metric:
        is_likely = residual @ np.linalg.solve(covariance, residual) <= CHI2_6
        return "" if is_likely else f"{off_m:.1f} m and {off_deg:.0f} degrees off"
    is_likely = residual[3:] @ np.linalg.solve(covariance[3:, 3:], residual[3:]) <= CHI2_3
    return "" if is_likely else f"{off_deg:.0f} degrees off"


def _residual(
    a: Hypothesis, b: Hypothesis, between_matches: Pose, between_queries: Pose, config: LoopConfig
) -> tuple[Matrix | None, Matrix]:
    """(6,) how a differs from what b predicts, and its (6, 6) covariance; None when a relative pose is missing."""
    t_a, t_b = a.geometry.match_t_query, b.geometry.match_t_query
    cov_a, cov_b = a.geometry.covariance, b.geometry.covariance
    if t_a is None or t_b is None or cov_a is None or cov_b is None:
        return None, np.empty((6, 6))
    predicted = compose(compose(between_matches, t_b), between_queries)
    covariance = cov_a + change_frames(cov_b, between_matches, t_b, between_queries)
    covariance = covariance + drift(abs(a.query_way_m - b.query_way_m), between_queries, config)
    covariance = covariance + drift(_match_way(a, b, between_matches), inverse(between_matches), config)
    return error(t_a, predicted), covariance


def _match_way(a: Hypothesis, b: Hypothesis, between_matches: Pose) -> float:
    if a.match_way_m is not None and b.match_way_m is not None:
        return abs(a.match_way_m - b.match_way_m)
    return math.hypot(*between_matches.position_m)


def _apart(queries_m: float, places_m: float) -> str:
    if abs(places_m - queries_m) <= SLACK_M + SLACK_SHARE * queries_m:
        return ""
    return f"the places are {places_m:.1f} m apart, the queries {queries_m:.1f} m"
