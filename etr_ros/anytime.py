"""An answer by a deadline: how much of the work fits before it, and when the rest cannot change the answer.

Only a live node has deadlines. What is offline (evaluation, replay, building maps) does all of the work, `UNLIMITED`,
and so does not depend on how fast the machine is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from etr_ros.config import DecisionConfig
from etr_ros.evidence import are_apart
from etr_ros.types import Candidate

CHUNK = 16  # candidates that are re-ranked between two looks at the clock
DECAY = 0.2  # of a smoothed time towards a smaller one; a larger one counts at once
TOO_LATE = "not re-ranked: the answer was due (node.deadline_ms)"
LEFT_OUT = "not re-ranked: other candidates look more promising (rerank.shortlist)"
SETTLED = "not re-ranked: it is the place that is recognised already"


@dataclass(frozen=True)
class Effort:
    """The share of the configured work that a query gets, each in (0, 1]."""

    candidates: float = 1.0
    locals: float = 1.0

    @staticmethod
    def share(of: int, share: float) -> int:
        """`share` of a count, at least 1."""
        return max(1, round(of * share))


class Pace:
    """How long things took lately, in seconds; 0 until the first is known."""

    def __init__(self) -> None:
        self.candidate_s = 0.0  # one candidate re-ranked
        self.rest_s = 0.0  # from the last candidate re-ranked to the answer being published
        self.ranked_s: float | None = None  # when the last candidate was

    def ranked(self, count: int, started_s: float, ended_s: float) -> None:
        """A chunk of candidates was re-ranked."""
        self.candidate_s = _smoothed(self.candidate_s, (ended_s - started_s) / count)
        self.ranked_s = ended_s

    def published(self, at_s: float) -> None:
        """The answer is out."""
        if self.ranked_s is not None:
            self.rest_s = _smoothed(self.rest_s, at_s - self.ranked_s)
        else:  # nothing was ranked: if the estimates are why, they must not stay
            self.rest_s, self.candidate_s = _smoothed(self.rest_s, 0.0), _smoothed(self.candidate_s, 0.0)
        self.ranked_s = None


def _smoothed(old: float, new: float) -> float:
    return max(new, old + DECAY * (new - old))


@dataclass(frozen=True, eq=False)
class Allowance:
    """What one query may cost: it is due at `due_s` of `clock` (seconds)."""

    due_s: float = math.inf
    effort: Effort = field(default_factory=Effort)
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.perf_counter

    @property
    def is_limited(self) -> bool:
        """Whether there is a deadline at all."""
        return self.due_s < math.inf

    def next_chunk(self, waiting: int) -> int:
        """How many of the candidates that wait can be re-ranked before the answer is due; 0: there is no time left."""
        if not self.is_limited:
            return waiting
        left_s = self.due_s - self.pace.rest_s - self.clock()
        if left_s <= 0:
            return 0
        affordable = int(left_s / self.pace.candidate_s) if self.pace.candidate_s else CHUNK // 2
        return min(waiting, CHUNK, affordable)


UNLIMITED = Allowance()


def is_settled(scored: Sequence[Candidate], waiting: Sequence[Candidate], config: DecisionConfig, least: float) -> bool:
    """Whether the answer is LOCALIZED at one and the same place, whatever the waiting candidates score.

    It is when one of the scored is accepted (its probability reaches `least`) and neither the accepted nor the waiting
    ones are apart from one another, see `are_apart`. The best picture of the place may still be one that waits. This
    holds for `etr_ros.decision.decide` where neither geometry nor calibration has a say: either can refuse what was
    accepted.
    """
    accepted = [each for each in scored if each.probability is not None and each.probability >= least]
    return bool(accepted) and not any(are_apart(a, b, config) for a, b in combinations([*accepted, *waiting], 2))
