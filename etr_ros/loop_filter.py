"""Which loop hypotheses become loop closures: support by neighbouring queries, no contradiction with odometry."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from etr_ros.chains import Chains
from etr_ros.config import LoopConfig
from etr_ros.consistency import Hypothesis, contradiction, disagreement, supports
from etr_ros.types import LoopClosure, Place


@dataclass(eq=False)
class _Waiting:
    hypothesis: Hypothesis
    supporters: set[int] = field(default_factory=set)  # place ids of the queries that agree


class LoopFilter:
    """Holds hypotheses back until enough neighbouring queries agree; at most `max_pending` wait at any time.

    Accepted loops tell, together with the odometry, what later ones must agree with.
    """

    def __init__(self, config: LoopConfig) -> None:
        self._config = config
        self._chains = Chains(config)
        self._waiting: deque[_Waiting] = deque()
        self._recent: deque[Hypothesis] = deque()  # accepted within support_s

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def configure(self, config: LoopConfig) -> None:
        """Judge by other values from now on."""
        self._config = self._chains.config = config

    def update(
        self, keyframe: Place, way_m: float, segment: int, hypotheses: Sequence[Hypothesis]
    ) -> list[LoopClosure]:
        """Take the next keyframe, the way driven until there, and its hypotheses.

        Gives back all loops that are decided now, accepted or rejected.
        """
        self._chains.add(keyframe, way_m, segment)
        decided = self._expired(keyframe.stamp_ns)
        for hypothesis in hypotheses:
            reason = self._contradiction(hypothesis)
            if reason:
                decided.append(_loop(hypothesis, 0, reason))
            else:
                self._wait(hypothesis)
        while len(self._waiting) > self._config.max_pending:
            decided.append(self._unsupported(self._waiting.popleft()))
        return decided + self._supported()

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
        self._waiting = deque(each for each in self._waiting if each.hypothesis.query.stamp_ns >= oldest_ns)
        return [self._unsupported(each) for each in expired]

    def _wait(self, new: Hypothesis) -> None:
        waiting = _Waiting(new)
        for other in self._waiting:
            if self._supports(other.hypothesis, new):
                waiting.supporters.add(other.hypothesis.query.place_id)
                other.supporters.add(new.query.place_id)
        waiting.supporters |= {each.query.place_id for each in self._recent if self._supports(each, new)}
        self._waiting.append(waiting)

    def _supports(self, a: Hypothesis, b: Hypothesis) -> bool:
        return a.query.place_id != b.query.place_id and a.map == b.map and supports(a, b, self._config)

    def _supported(self) -> list[LoopClosure]:
        """Decide what has support: reject what a loop accepted meanwhile contradicts; wait while it has a rival."""
        decided = []
        ready = [each for each in self._waiting if len(each.supporters) >= self._config.min_support]
        for each in sorted(ready, key=lambda waiting: -len(waiting.supporters)):
            reason = self._contradiction(each.hypothesis)
            if not reason and any(self._is_rival(other, each) for other in self._waiting):
                continue
            self._waiting.remove(each)
            decided.append(_loop(each.hypothesis, len(each.supporters), reason))
            if not reason:
                h = each.hypothesis
                self._recent.append(h)
                self._chains.link(h.query, h.match, h.geometry, h.map)
        return decided

    def _is_rival(self, other: _Waiting, of: _Waiting) -> bool:
        """Whether another place explains the same query, and as many queries, as well."""
        a, b = other.hypothesis, of.hypothesis
        same_query = other is not of and a.query.place_id == b.query.place_id and a.map == b.map
        return same_query and len(other.supporters) >= len(of.supporters) and bool(disagreement(a, b, self._config))

    def _unsupported(self, waiting: _Waiting) -> LoopClosure:
        support, needed = len(waiting.supporters), self._config.min_support
        if support >= needed:
            return _loop(waiting.hypothesis, support, "another place explains the same picture as well")
        return _loop(waiting.hypothesis, support, f"{support} neighbouring queries agree, {needed} are needed")


def _loop(hypothesis: Hypothesis, support: int, reason: str) -> LoopClosure:
    h = hypothesis
    return LoopClosure(h.query, h.match, h.geometry, h.probability, support, not reason, reason)
