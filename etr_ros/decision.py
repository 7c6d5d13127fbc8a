"""From scored candidates to an answer: which are accepted, why not the others, and where the robot is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.evidence import are_apart
from etr_ros.localization import pose_of
from etr_ros.transforms import error
from etr_ros.types import Candidate, State

MEMBER = 0.1  # a place of a set that explains the picture together is at least this probable
SUREST = 1 - 1e-6
BETTER = 1.5  # times the local matches for another pose explain a picture better
SAME_M, SAME_RAD, SIGMAS = 0.5, math.radians(10), 3.0  # further apart, beside what is not known, two poses contradict
SAME_STRETCH_S = 60.0  # poses of places that were seen further apart in time may differ by the drift of the map


def decide(
    candidates: Sequence[Candidate],
    config: DecisionConfig,
    geometry: GeometryConfig,
    least: float | None = None,
    *,
    is_calibrated: bool = False,
) -> tuple[State, tuple[Candidate, ...]]:
    """Judge candidates that are in order, best first, and weight the places that explain the picture.

    A candidate is accepted when its probability reaches `least` (`min_probability` unless given) and, where geometry
    was computed, it is verified: `min_inliers` local matches agree with one motion, and `min_agreement` of the depths
    of both views. Where a texture repeats, views one period off are verified as well, with fewer matches: of metric
    poses that contradict each other the one with clearly more matches counts. The answer is LOCALIZED when all accepted
    candidates are one place, AMBIGUOUS when they are several (see `are_apart`) or contradict each other. Calibrated
    probabilities of different places exclude each other and may be added: when none is accepted, but the verified
    places that are at least `MEMBER` probable reach `least` together, the answer is AMBIGUOUS too. Else it is UNKNOWN.
    """
    least = config.min_probability if least is None else least
    has_geometry = any(candidate.geometry is not None for candidate in candidates)
    judged = [_judge(candidate, least, config, geometry, has_geometry) for candidate in candidates]
    verified = [i for i, each in enumerate(judged) if not _unverified(each, config, geometry, has_geometry)]
    judged = _without_outdone(judged, config)
    believed = _places([i for i, candidate in enumerate(judged) if candidate.accepted], judged, config)
    if believed:
        return (State.AMBIGUOUS if len(believed) > 1 else State.LOCALIZED), _weighted(judged, believed)
    if is_calibrated:
        possible = [i for i in verified if (judged[i].probability or 0.0) >= MEMBER]
        together = _places(possible, judged, config)
        if len(together) > 1 and sum(judged[i].probability or 0.0 for i in together) >= least:
            for i in together:
                reason = f"one of {len(together)} places that explain the picture as well"
                judged[i] = dataclasses.replace(judged[i], reason=reason)
            return State.AMBIGUOUS, _weighted(judged, together)
    return State.UNKNOWN, tuple(judged)


def _judge(
    candidate: Candidate, least: float, config: DecisionConfig, geometry: GeometryConfig, has_geometry: bool
) -> Candidate:
    if candidate.probability is None:
        why = candidate.reason or "no match probability: this re-ranker gives none"
        return dataclasses.replace(candidate, reason=why)
    if candidate.probability < least:
        reason = f"match probability {candidate.probability:.2f} is below {least:.2f}"
        return dataclasses.replace(candidate, reason=reason)
    reason = _unverified(candidate, config, geometry, has_geometry)
    return dataclasses.replace(candidate, accepted=not reason, reason=reason)


def _unverified(candidate: Candidate, config: DecisionConfig, geometry: GeometryConfig, has_geometry: bool) -> str:
    """Why a candidate is not verified, in words; empty when it is, or no candidate of the picture is looked at."""
    found = candidate.geometry
    if found is None:
        return f"it is not among the best {geometry.candidates}, whose geometry is computed" if has_geometry else ""
    if found.inliers < geometry.min_inliers:
        return f"{found.inliers} local matches agree with one motion, {geometry.min_inliers} are needed"
    if found.agreement < config.min_agreement:  # not where it is unknown, NaN
        least = 100 * config.min_agreement
        return f"query and place agree on {100 * found.agreement:.0f} % of the depths, {least:.0f} % are needed"
    return ""


def _without_outdone(candidates: Sequence[Candidate], config: DecisionConfig) -> list[Candidate]:
    """The candidates; one is no longer accepted when clearly more local matches put the robot elsewhere.

    Counted are those of all candidates that agree on a pose, few as the matches of each may be: beside the true place
    its neighbours match too. Left out are candidates on whose depths the views do not agree.
    Where the rivals are not accepted themselves they must have clearly fewer, or they leave the other in doubt.
    """
    views = [each for each in candidates if each.geometry and not each.geometry.agreement < config.min_agreement]
    matches = [sum(_inliers(view) for view in views if _same_pose(view, each)) for each in views]
    judged = []
    for candidate in candidates:
        rivals = [i for i, view in enumerate(views) if candidate.accepted and _same_pose(view, candidate) is False]
        own = sum(_inliers(view) for view in views if _same_pose(view, candidate))
        reason = ""
        if any(matches[i] > BETTER * own for i in rivals):
            reason = "another place explains the same picture better"
        elif any(not views[i].accepted and BETTER * matches[i] > own for i in rivals):
            reason = "another place explains the same picture as well"
        judged.append(dataclasses.replace(candidate, accepted=False, reason=reason) if reason else candidate)
    return judged


def _inliers(candidate: Candidate) -> int:
    return candidate.geometry.inliers if candidate.geometry else 0


def _same_pose(a: Candidate, b: Candidate) -> bool | None:
    """Whether two places of one stretch of a drive put the robot at the same metric pose; None when nobody knows."""
    if not (a.geometry and b.geometry and a.geometry.is_metric and b.geometry.is_metric):
        return None
    apart_s = abs(a.place.stamp_ns - b.place.stamp_ns) / 1e9
    at_a, at_b = pose_of(a, 0.0, 0.0), pose_of(b, 0.0, 0.0)
    if a.place.session != b.place.session or apart_s > SAME_STRETCH_S or at_a is None or at_b is None:
        return None
    off, variance = error(at_a[0], at_b[0]), np.diag(at_a[1] + at_b[1])
    limit_m = SAME_M + SIGMAS * math.sqrt(variance[:3].sum())
    limit_rad = SAME_RAD + SIGMAS * math.sqrt(variance[3:].sum())
    return bool(np.linalg.norm(off[:3]) <= limit_m and np.linalg.norm(off[3:]) <= limit_rad)


def _places(rows: Sequence[int], candidates: Sequence[Candidate], config: DecisionConfig) -> list[int]:
    """The first candidate of each place among `rows`."""
    places: list[int] = []
    for row in rows:
        each = candidates[row]
        if all(
            are_apart(each, candidates[other], config) or _same_pose(each, candidates[other]) is False
            for other in places
        ):
            places.append(row)
    return places


def _weighted(candidates: Sequence[Candidate], rows: Sequence[int]) -> tuple[Candidate, ...]:
    """The candidates, those of `rows` with weights: how probable each is when exactly one of them is right."""
    certain = [min(candidates[row].probability or 0.0, SUREST) for row in rows]
    odds = [probability / (1 - probability) for probability in certain]
    total = sum(odds)
    weight = {row: 1 / len(rows) if total == 0 else each / total for row, each in zip(rows, odds, strict=True)}
    return tuple(dataclasses.replace(each, weight=weight.get(i, 0.0)) for i, each in enumerate(candidates))
