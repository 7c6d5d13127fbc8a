"""From scored candidates to an answer: which are accepted, why not the others, and where the robot is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.localization import pose_of
from etr_ros.types import Candidate, State


def decide(
    candidates: Sequence[Candidate], config: DecisionConfig, geometry: GeometryConfig
) -> tuple[State, tuple[Candidate, ...]]:
    """Judge candidates that are in order, best first.

    A candidate is accepted when its probability reaches `min_probability` and, where its geometry was computed,
    `min_inliers` local matches agree with one motion. The answer is LOCALIZED when all accepted
    ones put the robot at one place, AMBIGUOUS when some put it further than `ambiguity_m` from there, else UNKNOWN.
    """
    judged = tuple(_judge(candidate, config, geometry) for candidate in candidates)
    accepted = [candidate for candidate in judged if candidate.accepted]
    if not accepted:
        return State.UNKNOWN, judged
    apart = any(_distance_m(accepted[0], other) > config.ambiguity_m for other in accepted[1:])
    return (State.AMBIGUOUS if apart else State.LOCALIZED), judged


def _judge(candidate: Candidate, config: DecisionConfig, geometry: GeometryConfig) -> Candidate:
    if candidate.probability is None:
        return dataclasses.replace(candidate, reason="no match probability: this re-ranker gives none")
    if candidate.probability < config.min_probability:
        reason = f"match probability {candidate.probability:.2f} is below {config.min_probability:.2f}"
        return dataclasses.replace(candidate, reason=reason)
    found = candidate.geometry
    if found is not None and found.inliers < geometry.min_inliers:
        reason = f"{found.inliers} local matches agree with one motion, {geometry.min_inliers} are needed"
        return dataclasses.replace(candidate, reason=reason)
    return dataclasses.replace(candidate, accepted=True)


def _distance_m(a: Candidate, b: Candidate) -> float:
    """Metres between where two candidates put the robot; 0 when the map has no poses.

    So ambiguity is only claimed where it is known.
    """
    at_a, at_b = pose_of(a, 0.0, 0.0), pose_of(b, 0.0, 0.0)
    return math.dist(at_a[0].position_m, at_b[0].position_m) if at_a and at_b else 0.0
