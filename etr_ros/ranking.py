"""Candidates in the order of a re-ranker's scores, as many as there is time for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from etr_ros.anytime import LEFT_OUT, SETTLED, TOO_LATE, Allowance
from etr_ros.rerank import EtrScorer, Scorer
from etr_ros.shortlist import promise
from etr_ros.types import Candidate, Features, View

ViewOf = Callable[[int], View]
MatchesOf = Callable[[int], NDArray[np.int64]]  # the mutual matches of the query with a place


def ranked(
    scorer: Scorer,
    query: Features,
    proposed: Sequence[Candidate],
    expected: Sequence[int],
    view_of: ViewOf,
    allowance: Allowance,
    settled: Callable[[Sequence[Candidate], Sequence[Candidate]], bool],
    shortlist: int = 0,
) -> list[Candidate]:
    """The candidates by their score; behind them, as they were proposed, those there was no time or need for, and last
    those that are not on the `shortlist`.

    `proposed` are best first. Without a deadline all are scored at once; with one, the places of the ids `expected`
    first and then from the best on, chunk by chunk, until the time is up or the `settled` (of the scored and of the
    waiting) say that there is no need.
    """
    waiting, left_out = list(proposed), list[Candidate]()
    if shortlist and isinstance(scorer, EtrScorer) and allowance.next_chunk(len(waiting)):
        waiting, left_out = shortlisted(query, proposed, expected, view_of, shortlist)
    scored, reason = list[tuple[Candidate, float]](), ""
    if allowance.is_limited:
        waiting.sort(key=lambda each: each.place.place_id not in expected)
    while waiting and not reason:
        count = allowance.next_chunk(len(waiting))
        if count:
            started_s = allowance.clock()
            scored += _scored(scorer, query, waiting[:count], view_of)
            waiting = waiting[count:]
            allowance.pace.ranked(count, started_s, allowance.clock())
            reason = SETTLED if waiting and settled([each for each, _ in scored], waiting) else ""
        else:
            reason = TOO_LATE
    scored.sort(key=lambda each: -each[1])
    unscored = [dataclasses.replace(each, reason=reason) for each in waiting]
    return [each for each, _ in scored] + unscored + left_out


def shortlisted(
    query: Features, proposed: Sequence[Candidate], expected: Sequence[int], view_of: ViewOf, count: int
) -> tuple[list[Candidate], list[Candidate]]:
    """The `count` most promising candidates with those of the ids `expected`, as they were proposed; and the others,
    most promising first, each with the reason why it is left out. See `etr_ros.shortlist`."""
    others = [i for i, each in enumerate(proposed) if each.place.place_id not in expected]
    if len(others) <= count:
        return list(proposed), []
    promises = promise(query, [view_of(proposed[i].place.place_id).features for i in others])
    order = [others[i] for i in np.argsort(-promises, kind="stable")]
    behind = order[count:]
    chosen = [each for i, each in enumerate(proposed) if i not in set(behind)]
    return chosen, [dataclasses.replace(proposed[i], reason=LEFT_OUT) for i in behind]


def confirmed(
    scorer: Scorer, query: Features, candidates: list[Candidate], view_of: ViewOf, matches_of: MatchesOf, count: int
) -> list[Candidate]:
    """The `count` best of candidates that are in order, ordered anew by score and geometry, and the others as before;
    geometry can only speak for a candidate. Re-rankers without a calibration for it keep their order."""
    best = [each for each in candidates[:count] if each.etr_score is not None and not each.reason]
    if not isinstance(scorer, EtrScorer) or not scorer.calibration.per_inlier or not best:
        return candidates
    features = [view_of(each.place.place_id).features for each in best]
    matches = [matches_of(each.place.place_id) for each in best]
    scores = scorer.confirm(query, features, np.array([each.etr_score for each in best], np.float32), matches)
    if scores.probabilities is None or scores.inliers is None:
        raise ValueError("a confirmed score has a probability and inliers")
    judged = [
        dataclasses.replace(
            each,
            etr_score=float(scores.values[i]),
            probability=float(scores.probabilities[i]),
            inliers=int(scores.inliers[i]),
        )
        for i, each in enumerate(best)
    ]
    order = np.argsort(-scores.values, kind="stable")
    return [judged[i] for i in order] + candidates[len(best) :]


def _scored(
    scorer: Scorer, query: Features, proposed: Sequence[Candidate], view_of: ViewOf
) -> list[tuple[Candidate, float]]:
    """Each candidate as the re-ranker judges it, and what it is ordered by."""
    scores = scorer(query, [view_of(each.place.place_id).features for each in proposed])
    probabilities, inliers = scores.probabilities, scores.inliers
    judged = [
        dataclasses.replace(
            candidate,
            etr_score=float(scores.values[i]) if inliers is None else None,
            probability=None if probabilities is None else float(probabilities[i]),
            inliers=None if inliers is None else int(inliers[i]),
        )
        for i, candidate in enumerate(proposed)
    ]
    return list(zip(judged, scores.values.tolist(), strict=True))
