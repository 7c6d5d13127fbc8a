"""What a live node does less of when its answers come after their deadline, step by step, and when it recovers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from etr_ros.anytime import TOO_LATE, Allowance, Effort, Pace
from etr_ros.types import PlaceMatch


@dataclass(frozen=True)
class Step:
    """One step of doing less: in words, what each query gets, and how long the node rests after each answer."""

    words: str
    effort: Effort
    rest: float = 0.0  # as a multiple of the time that the answer took


STEPS = (
    Step("", Effort()),
    Step("half of the candidates", Effort(1 / 2)),
    Step("a quarter of the candidates", Effort(1 / 4)),
    Step("a quarter of the candidates, half of the local features", Effort(1 / 4, 1 / 2)),
    Step("a quarter of the candidates and of the local features", Effort(1 / 4, 1 / 4)),
    Step("the same, idle half of the time", Effort(1 / 4, 1 / 4), 1.0),
    Step("the same, idle three quarters of the time", Effort(1 / 4, 1 / 4), 3.0),
)
STRAINED_IN_A_ROW, CALM_IN_A_ROW, LONGEST_CALM = 3, 10, 160
CALM = 0.7  # of the deadline


class Overload:
    """Steps down when answers come too late several times in a row, and up again when there has been time to spare.

    After a step up that did not hold, there must be time to spare for twice as long before the next one: the load does
    not swing.
    """

    def __init__(self) -> None:
        self.level = 0
        self._strained = self._calm = 0
        self._patience = CALM_IN_A_ROW
        self._since_up = LONGEST_CALM

    @property
    def step(self) -> Step:
        return STEPS[self.level]

    def answered(self, took: float, unranked: float) -> None:
        """An answer took so much of its deadline, and there was no time to re-rank so large a share of candidates."""
        self._since_up += 1
        if took > 1.0 or unranked > 0.5:
            self._strained, self._calm = self._strained + 1, 0
        else:
            self._strained = 0
            self._calm = self._calm + 1 if took <= CALM and not unranked else 0
        if self._strained >= STRAINED_IN_A_ROW:
            self._strained = 0
            if self.level < len(STEPS) - 1:
                self.level += 1
                relapsed = self._since_up <= self._patience
                self._patience = min(LONGEST_CALM, 2 * self._patience) if relapsed else CALM_IN_A_ROW
        elif self._calm >= self._patience and self.level:
            self.level -= 1
            self._calm = self._since_up = 0


class Pacing:
    """Keeps a node's answers within its deadline, from one to the next. Times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._pace = clock, Pace()
        self.overload = Overload()
        self.idle_until_s = -math.inf  # images that come before are not to be answered
        self.late = self.unranked = 0  # answers after the deadline, and without a single candidate re-ranked
        self.last_took_ms = 0.0

    def allowance(self, came_s: float, deadline_ms: float) -> Allowance:
        """For an image that came at `came_s`; a deadline of 0 is none."""
        if not deadline_ms:
            self.overload, self.idle_until_s = Overload(), -math.inf
            return Allowance(pace=self._pace, clock=self._clock)
        return Allowance(came_s + deadline_ms / 1e3, self.overload.step.effort, self._pace, self._clock)

    def published(self, match: PlaceMatch, came_s: float, started_s: float, deadline_ms: float) -> None:
        """The answer to that image, on which work began at `started_s`, was published just now."""
        now_s = self._clock()
        self._pace.published(now_s)
        self.last_took_ms = (now_s - came_s) * 1e3
        if not deadline_ms:
            return
        too_late = sum(candidate.reason == TOO_LATE for candidate in match.candidates)
        self.late += self.last_took_ms > deadline_ms
        self.unranked += 0 < too_late == len(match.candidates)
        self.overload.answered(self.last_took_ms / deadline_ms, too_late / max(1, len(match.candidates)))
        rest = self.overload.step.rest
        self.idle_until_s = now_s + rest * (now_s - started_s) if rest else -math.inf

    def describe(self, deadline_ms: float) -> dict[str, str | int]:
        """Values for diagnostics, by name."""
        return {
            "deadline (ms)": f"{deadline_ms:g}" if deadline_ms else "none",
            "answers after the deadline": self.late,
            "answers without re-ranking": self.unranked,
            "answers get": self.overload.step.words or "all",
        }

    def problem(self, deadline_ms: float) -> str:
        """What diagnostics say of it, one line; empty when the deadline is kept."""
        words = self.overload.step.words
        if not deadline_ms or not words:
            return ""
        return (
            f"overloaded: answers get {words}, to keep to node.deadline_ms of {deadline_ms:g} ms "
            f"(the last took {self.last_took_ms:.0f} ms)"
        )
