"""What speaks for a candidate: its scores, the best other place behind it, its geometry, the queries just before."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from etr_ros.config import DecisionConfig
from etr_ros.consistency import way_contradiction
from etr_ros.localization import pose_of
from etr_ros.types import Candidate, Place, PlaceMatch

NEIGHBOURS, NEIGHBOURS_S = 5, 10.0  # how many queries before, and how long ago they may be


@dataclass(frozen=True, slots=True)
class Evidence:
    """Numbers about one candidate; None where nothing is known.

    `score` is the re-ranker's (ETR's logit, else the count of inliers, else the cosine), `cosine` that of retrieval.
    `margin` is the score minus the best score of another place; None when all candidates are of one place.
    `inliers` are local matches that agree with one motion. `support` is the share of the last queries whose best
    candidate lies where the way driven since then puts it.
    """

    score: float
    cosine: float
    margin: float | None
    inliers: float | None
    support: float | None


class Past:
    """The last queries of a drive and the best candidate of each."""

    def __init__(self) -> None:
        self._queries: deque[tuple[Place, Place | None]] = deque(maxlen=NEIGHBOURS)
        self._segment = 0

    def add(self, query: Place, match: PlaceMatch, segment: int = 0) -> None:
        """Remember a query that was answered. A new segment of the odometry begins from nothing."""
        if segment != self._segment:
            self._queries.clear()
            self._segment = segment
        ranked = [each for each in match.candidates if each.probability is not None] or match.candidates
        self._queries.append((query, max(ranked, key=score_of).place if ranked else None))

    def support(self, query: Place, place: Place, segment: int = 0) -> float | None:
        """The share of the remembered queries that agree with `query` being at `place`; None without any."""
        if segment != self._segment:
            return None
        near = [each for each in self._queries if 0 <= query.stamp_ns - each[0].stamp_ns <= NEIGHBOURS_S * 1e9]
        if not near:
            return None
        agree = sum(best is not None and not way_contradiction(asked, query, best, place) for asked, best in near)
        return agree / len(near)


def weigh(
    candidates: Sequence[Candidate], config: DecisionConfig, query: Place, past: Past | None = None, segment: int = 0
) -> list[Evidence]:
    """The evidence for each candidate of one query; without a `past` nothing is known of support."""
    scores = [score_of(candidate) for candidate in candidates]
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    weighed = []
    for i, candidate in enumerate(candidates):
        rival = next((scores[j] for j in order if are_apart(candidate, candidates[j], config)), None)
        inliers = None if candidate.inliers is None else float(max(candidate.inliers, 0))
        support = None if past is None else past.support(query, candidate.place, segment)
        margin = None if rival is None else scores[i] - rival
        weighed.append(Evidence(scores[i], candidate.retrieval_score, margin, inliers, support))
    return weighed


def score_of(candidate: Candidate) -> float:
    """What the re-ranker orders by; higher is better."""
    if candidate.etr_score is not None:
        return candidate.etr_score
    return candidate.retrieval_score if candidate.inliers is None else float(candidate.inliers)


def are_apart(a: Candidate, b: Candidate, config: DecisionConfig) -> bool:
    """Whether two candidates are different places.

    With poses: whether they put the robot more than `ambiguity_m` apart. Without: whether both were seen in one
    session, more than `ambiguity_s` apart. Between sessions without poses it is not known, and they count as one.
    """
    at_a, at_b = pose_of(a, 0.0, 0.0), pose_of(b, 0.0, 0.0)
    if at_a is not None and at_b is not None:
        return math.dist(at_a[0].position_m, at_b[0].position_m) > config.ambiguity_m
    apart_s = abs(a.place.stamp_ns - b.place.stamp_ns) / 1e9
    return a.place.session == b.place.session and apart_s > config.ambiguity_s
