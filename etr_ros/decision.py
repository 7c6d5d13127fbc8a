"""From scored candidates to an answer: which are accepted, why not the others, and where the robot is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from etr_ros.config import DecisionConfig
from etr_ros.types import Candidate, Place, State


def decide(candidates: Sequence[Candidate], config: DecisionConfig) -> tuple[State, tuple[Candidate, ...]]:
    """Judge candidates that are in order, best first.

    A candidate is accepted when its probability reaches `min_probability`. The answer is LOCALIZED when all accepted
    places lie together, AMBIGUOUS when some lie further than `ambiguity_m` from the best one, else UNKNOWN.
    """
    judged = tuple(_judge(candidate, config) for candidate in candidates)
    accepted = [candidate.place for candidate in judged if candidate.accepted]
    if not accepted:
        return State.UNKNOWN, judged
    apart = any(_distance_m(accepted[0], place) > config.ambiguity_m for place in accepted[1:])
    return (State.AMBIGUOUS if apart else State.LOCALIZED), judged


def _judge(candidate: Candidate, config: DecisionConfig) -> Candidate:
    if candidate.probability is None:
        return dataclasses.replace(candidate, reason="no match probability: this re-ranker gives none")
    if candidate.probability < config.min_probability:
        reason = f"match probability {candidate.probability:.2f} is below {config.min_probability:.2f}"
        return dataclasses.replace(candidate, reason=reason)
    return dataclasses.replace(candidate, accepted=True)


def _distance_m(a: Place, b: Place) -> float:
    """Metres between two places; 0 when the map has no poses, so that ambiguity is only claimed where it is known."""
    return math.dist(a.pose.position_m, b.pose.position_m) if a.pose and b.pose else 0.0
