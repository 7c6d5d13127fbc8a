"""From scored candidates to an answer: which are accepted, why not the others, and where the robot is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.evidence import are_apart
from etr_ros.types import Candidate, State

MEMBER = 0.1  # a place of a set that explains the picture together is at least this probable
SUREST = 1 - 1e-6


def decide(
    candidates: Sequence[Candidate],
    config: DecisionConfig,
    geometry: GeometryConfig,
    least: float | None = None,
    *,
    is_calibrated: bool = False,
) -> tuple[State, tuple[Candidate, ...]]:
    """Judge candidates that are in order, best first, and weight the places that explain the picture.

    A candidate is accepted when its probability reaches `least` (`min_probability` unless given) and, where its
    geometry was computed, `min_inliers` local matches agree with one motion. The answer is LOCALIZED when all accepted
    ones are one place, AMBIGUOUS when they are several (see `are_apart`). Calibrated probabilities of different places
    exclude each other and may be added: when none is accepted, but the verified places that are at least `MEMBER`
    probable reach `least` together, the answer is AMBIGUOUS too. Else it is UNKNOWN.
    """
    least = config.min_probability if least is None else least
    judged = [_judge(candidate, least, geometry) for candidate in candidates]
    believed = _places([i for i, candidate in enumerate(judged) if candidate.accepted], judged, config)
    if believed:
        return (State.AMBIGUOUS if len(believed) > 1 else State.LOCALIZED), _weighted(judged, believed)
    if is_calibrated:
        possible = [i for i, each in enumerate(judged) if (each.probability or 0.0) >= MEMBER]
        together = _places([i for i in possible if not _unverified(judged[i], geometry)], judged, config)
        if len(together) > 1 and sum(judged[i].probability or 0.0 for i in together) >= least:
            for i in together:
                reason = f"one of {len(together)} places that explain the picture as well"
                judged[i] = dataclasses.replace(judged[i], reason=reason)
            return State.AMBIGUOUS, _weighted(judged, together)
    return State.UNKNOWN, tuple(judged)


def _judge(candidate: Candidate, least: float, geometry: GeometryConfig) -> Candidate:
    if candidate.probability is None:
        why = candidate.reason or "no match probability: this re-ranker gives none"
        return dataclasses.replace(candidate, reason=why)
    if candidate.probability < least:
        reason = f"match probability {candidate.probability:.2f} is below {least:.2f}"
        return dataclasses.replace(candidate, reason=reason)
    reason = _unverified(candidate, geometry)
    return dataclasses.replace(candidate, accepted=not reason, reason=reason)


def _unverified(candidate: Candidate, geometry: GeometryConfig) -> str:
    found = candidate.geometry
    if found is None or found.inliers >= geometry.min_inliers:
        return ""
    return f"{found.inliers} local matches agree with one motion, {geometry.min_inliers} are needed"


def _places(rows: Sequence[int], candidates: Sequence[Candidate], config: DecisionConfig) -> list[int]:
    """The first candidate of each place among `rows`."""
    places: list[int] = []
    for row in rows:
        if all(are_apart(candidates[row], candidates[other], config) for other in places):
            places.append(row)
    return places


def _weighted(candidates: Sequence[Candidate], rows: Sequence[int]) -> tuple[Candidate, ...]:
    """The candidates, those of `rows` with weights: how probable each is when exactly one of them is right."""
    certain = [min(candidates[row].probability or 0.0, SUREST) for row in rows]
    odds = [probability / (1 - probability) for probability in certain]
    total = sum(odds)
    weight = {row: 1 / len(rows) if total == 0 else each / total for row, each in zip(rows, odds, strict=True)}
    return tuple(dataclasses.replace(each, weight=weight.get(i, 0.0)) for i, each in enumerate(candidates))
