"""Which loop hypotheses become loop closures: support by neighbouring queries, no contradiction with odometry."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from etr_ros.chains import Chains, Prediction, drift
from etr_ros.config import LoopConfig
from etr_ros.consistency import Hypothesis, contradiction, disagreement, is_sharp, supports
from etr_ros.transforms import between, compose, compose_covariance
from etr_ros.types import LoopClosure, Place

STORIES = 2  # hypotheses of one map that contradict each other and that one query is followed up with
BETTER = 1.2  # times the local matches of another place explain a query better
LATE_SHARE = 0.75  # of first_support is enough when no other story came up while a loop waited
EXPECTED, EXPECTED_M, EXPECTED_DEG = 3, 1.0, 30.0  # keyframes looked at because the robot should stand there
EXPECTED_WAY_M = 15.0


@dataclass(eq=False)
class _Waiting:
    """`is_best` when no other place explains its query better; supporters are place ids of queries that agree."""

    hypothesis: Hypothesis
    is_best: bool
    supporters: set[int] = field(default_factory=set)
    best_supporters: set[int] = field(default_factory=set)

    def supported_by(self, query: Place, is_best: bool) -> None:
        self.supporters.add(query.place_id)
        if is_best:
            self.best_supporters.add(query.place_id)


class LoopFilter:
    """Holds hypotheses back until enough neighbouring queries agree; at most `max_pending` wait at any time.

    Accepted loops tell, together with the odometry, what later ones must agree with. Where that is not sharp yet, the
    first loop needs more support: a repeating texture can mislead a few queries in a row. It must also come from places
    that explain their queries best, by local matches: one period off, a texture that repeats still matches in part.
    Less of it is enough at the end of the wait, where the depths of both views agree: by then the true place came up.
    """

    def __init__(self, config: LoopConfig, least_probability: float | None = None, min_agreement: float = 1.0) -> None:
        """Supported loops that are less probable than `least_probability` are rejected.

        Depths agree from `min_agreement` on, see `etr_ros.layout`.
        """
        self._config, self._least, self._min_agreement = config, least_probability, min_agreement
        self._chains = Chains(config)
        self._waiting: deque[_Waiting] = deque()
        self._recent: deque[Hypothesis] = deque()  # accepted within support_s

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def configure(self, config: LoopConfig, least_probability: float | None = None, min_agreement: float = 1.0) -> None:
        """Judge by other values from now on."""
        self._config = self._chains.config = config
        self._least, self._min_agreement = least_probability, min_agreement

    def add(self, keyframe: Place, way_m: float, segment: int) -> None:
        """The next keyframe, and the way driven until there."""
        self._chains.add(keyframe, way_m, segment)

    def expected(self, query_id: int, before: int) -> list[int]:
        """The keyframes, with an id below `before`, at which a query stands by what odometry and accepted loops tell.

        The nearest few, and only where the prediction is sharp.
        """
        near = self._chains.near(query_id, before, EXPECTED_M, EXPECTED_DEG, EXPECTED_WAY_M)
        return near[:EXPECTED]

    def update(self, keyframe: Place, hypotheses: Sequence[Hypothesis]) -> list[LoopClosure]:
        """Take the hypotheses of the last keyframe, the best first.

        Gives back all loops that are decided now, accepted or rejected.
        """
        decided = self._expired(keyframe.stamp_ns)
        reasons = [self._contradiction(hypothesis) for hypothesis in hypotheses]
        stories = self._stories([h for h, reason in zip(hypotheses, reasons, strict=True) if not reason])
        if hypotheses and reasons[0]:
            decided.append(_loop(hypotheses[0], 0, reasons[0]))
        for hypothesis in stories:
            most = max(each.geometry.inliers for each in stories if each.map == hypothesis.map)
            self._wait(_Waiting(hypothesis, is_best=BETTER * hypothesis.geometry.inliers >= most))
        while len(self._waiting) > self._config.max_pending:
            decided.append(self._unsupported(self._waiting.popleft()))
        return decided + self._supported()

    def _stories(self, hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Of each map the best hypothesis, and the best of those that contradict what was taken before."""
        taken: list[Hypothesis] = []
        for new in hypotheses:
            rivals = [each for each in taken if each.map == new.map]
            if len(rivals) < STORIES and all(disagreement(new, each, self._config) for each in rivals):
                taken.append(new)
        return taken

    def flush(self) -> list[LoopClosure]:
        """The drive is over: what still waits is rejected."""
        rejected = [self._unsupported(waiting) for waiting in self._waiting]
        self._waiting.clear()
        return rejected

    def _contradiction(self, hypothesis: Hypothesis) -> str:
        return contradiction(hypothesis, self._chains.predict(hypothesis.query, hypothesis.match, hypothesis.map))

    def _expired(self, stamp_ns: int) -> list[LoopClosure]:
        oldest_ns = stamp_ns - round(self._config.support_s * 1e9)
        while self._recent and self._recent[0].query.stamp_ns < oldest_ns:
            self._recent.popleft()
        expired = [each for each in self._waiting if each.hypothesis.query.stamp_ns < oldest_ns]
        decided = [self._accepted(each) for each in expired if self._is_right_at_last(each)]
        known = decided + self._supported() if decided else []  # what is accepted tells where the others are
        expired = [each for each in self._waiting if each.hypothesis.query.stamp_ns < oldest_ns]
        self._waiting = deque(each for each in self._waiting if each.hypothesis.query.stamp_ns >= oldest_ns)
        return known + [self._unsupported(each) for each in expired]

    def _is_right_at_last(self, waiting: _Waiting) -> bool:
        """Whether a first loop that has waited long enough can be accepted with less support."""
        h = waiting.hypothesis
        if not (h.geometry.is_metric and h.geometry.agreement >= self._min_agreement):
            return False
        needed = max(math.ceil(LATE_SHARE * self._config.first_support), self._config.min_support)
        if waiting not in self._waiting or self._support(waiting) < needed:
            return False
        if self._contradiction(h) or self._improbable(h):
            return False
        return not any(self._is_rival(other, waiting) for other in self._waiting)

    def _accepted(self, waiting: _Waiting) -> LoopClosure:
        h = waiting.hypothesis
        self._waiting.remove(waiting)
        self._recent.append(h)
        self._chains.link(h.query, h.match, h.geometry, h.map)
        return _loop(h, len(waiting.supporters), "")

    def _wait(self, new: _Waiting) -> None:
        h = new.hypothesis
        for other in self._waiting:
            if self._supports(other.hypothesis, h):
                new.supported_by(other.hypothesis.query, other.is_best)
                other.supported_by(h.query, new.is_best)
        for each in self._recent:
            if self._supports(each, h):
                new.supported_by(each.query, True)
        self._waiting.append(new)

    def _supports(self, a: Hypothesis, b: Hypothesis) -> bool:
        if a.query.place_id == b.query.place_id or a.map != b.map:
            return False
        return supports(a, b, self._config) or self._supports_along_loops(a, b)

    def _supports_along_loops(self, a: Hypothesis, b: Hypothesis) -> bool:
        """Whether the two agree where their places are of different rounds, which accepted loops join."""
        t, covariance = b.geometry.match_t_query, b.geometry.covariance
        q_a, q_b = a.query.pose, b.query.pose
        if a.map or not (a.geometry.is_metric and b.geometry.is_metric) or a.query_segment != b.query_segment:
            return False
        if a.match_way_m is None or b.match_way_m is None or abs(a.match_way_m - b.match_way_m) < EXPECTED_WAY_M:
            return False  # there odometry is sharp by itself
        if t is None or covariance is None or q_a is None or q_b is None:
            return False
        joined = self._chains.predict(b.match, a.match, a.map)
        if joined is None or not is_sharp(joined):
            return False
        step = between(q_b, q_a)
        gained = drift(abs(a.query_way_m - b.query_way_m), step, self._config)
        covariance = compose_covariance(joined.covariance, joined.match_t_query, covariance, t)
        through = compose(joined.match_t_query, t)
        prediction = Prediction(
            compose(through, step), compose_covariance(covariance, through, gained, step), joined.way_m
        )
        return is_sharp(prediction) and not contradiction(a, prediction)

    def _supported(self) -> list[LoopClosure]:
        """Decide what has support: reject what a loop accepted meanwhile contradicts; wait while it has a rival."""
        decided = []
        ready = [each for each in self._waiting if len(each.supporters) >= self._config.min_support]
        for each in sorted(ready, key=lambda waiting: -len(waiting.supporters)):
            reason = self._contradiction(each.hypothesis) or self._improbable(each.hypothesis)
            if not reason and (self._lacks(each) or any(self._is_rival(other, each) for other in self._waiting)):
                continue
            if not reason:
                decided.append(self._accepted(each))
                continue
            self._waiting.remove(each)
            decided.append(_loop(each.hypothesis, len(each.supporters), reason))
        return decided

    def _improbable(self, hypothesis: Hypothesis) -> str:
        if self._least is None or hypothesis.probability is None or hypothesis.probability >= self._least:
            return ""
        return f"match probability {hypothesis.probability:.2f} is below {self._least:.2f}, as false loops per km ask"

    def _lacks(self, waiting: _Waiting) -> int:
        """How many supporters are needed, when they are too few; else 0."""
        least, first = self._config.min_support, self._config.first_support
        needed = least if self._knows_place(waiting.hypothesis) else max(first, least)
        return needed if self._support(waiting) < needed else 0

    def _support(self, waiting: _Waiting) -> int:
        """How many supporters count."""
        if self._knows_place(waiting.hypothesis):
            return len(waiting.supporters)
        return len(waiting.best_supporters) if waiting.is_best else 0

    def _knows_place(self, h: Hypothesis) -> bool:
        return is_sharp(self._chains.predict(h.query, h.match, h.map))

    def _is_rival(self, other: _Waiting, of: _Waiting) -> bool:
        """Whether another place explains the same query, and as many queries, as well."""
        a, b = other.hypothesis, of.hypothesis
        same_query = other is not of and a.query.place_id == b.query.place_id and a.map == b.map
        if not same_query or self._support(other) < self._support(of) or not self._contradict(a, b):
            return False
        return not self._contradiction(a)

    def _contradict(self, a: Hypothesis, b: Hypothesis) -> str:
        """Why two hypotheses of one query cannot both be true, in words; empty when they can.

        Places between which odometry broke off are compared along the accepted loops that join them, if any do.
        """
        t, covariance = b.geometry.match_t_query, b.geometry.covariance
        joined = None if a.map else self._chains.predict(b.match, a.match, a.map)
        if a.match_segment == b.match_segment or joined is None or t is None or covariance is None:
            return disagreement(a, b, self._config)
        covariance = compose_covariance(joined.covariance, joined.match_t_query, covariance, t)
        return contradiction(a, Prediction(compose(joined.match_t_query, t), covariance, joined.way_m))

    def _unsupported(self, waiting: _Waiting) -> LoopClosure:
        support, needed = len(waiting.supporters), self._lacks(waiting)
        if not waiting.is_best and not self._knows_place(waiting.hypothesis):
            return _loop(waiting.hypothesis, support, "another place explains the same picture better")
        if not needed:
            return _loop(waiting.hypothesis, support, "another place explains the same picture as well")
        return _loop(waiting.hypothesis, support, f"{support} neighbouring queries agree, {needed} are needed")


def _loop(hypothesis: Hypothesis, support: int, reason: str) -> LoopClosure:
    h = hypothesis
    return LoopClosure(h.query, h.match, h.geometry, h.probability, support, not reason, reason)
