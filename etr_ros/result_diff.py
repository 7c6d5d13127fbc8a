"""What changed between two replays of one recording: answers and loops gained, lost, changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etr_ros.keyframes import angle_deg
from etr_ros.result import Query, Result
from etr_ros.types import LoopClosure, PlaceMatch

SAME_M, SAME_DEG = 1e-3, 0.05  # relative poses closer than this are the same
Pair = tuple[int, str, int]  # stamp of the query; session and stamp of the match


@dataclass(frozen=True)
class Change:
    """One picture, or one loop, that is not as it was, in words."""

    query: str
    stamp_ns: int
    what: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Difference:
    """From result a to result b. Loops are accepted ones; a pair of places is the same loop."""

    gained: Sequence[LoopClosure]
    lost: Sequence[LoopClosure]
    moved: Sequence[tuple[LoopClosure, LoopClosure]]
    changes: Sequence[Change]
    settings: Sequence[str] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.gained or self.lost or self.moved or self.changes)

    def lines(self, limit: int = 10) -> Iterator[str]:
        """For people: the counts, then at most `limit` of each kind."""
        yield from self.settings
        if not self:
            yield "nothing changed"
            return
        yield (
            f"loops: {len(self.gained)} gained, {len(self.lost)} lost, {len(self.moved)} with another relative pose; "
            f"pictures: {len(self.changes)} answered otherwise"
        )
        for name, loops in (("gained", self.gained), ("lost", self.lost)):
            yield from _shown([f"{name}: {_loop_text(loop)}" for loop in loops], limit)
        yield from _shown([f"moved: {_loop_text(a)} by {_moved_text(a, b)}" for a, b in self.moved], limit)
        yield from _shown([f"{each.query}: {each.what} {each.before} -> {each.after}" for each in self.changes], limit)


def compare(a: Result, b: Result) -> Difference:
    """How b differs from a. Pictures are matched by their stamps, so that both must be of one recording."""
    loops_a, loops_b = _accepted(a.loops), _accepted(b.loops)
    both = [(loops_a[pair], loops_b[pair]) for pair in loops_a if pair in loops_b]
    return Difference(
        gained=[loop for pair, loop in loops_b.items() if pair not in loops_a],
        lost=[loop for pair, loop in loops_a.items() if pair not in loops_b],
        moved=[(before, after) for before, after in both if _is_moved(before, after)],
        changes=[*_changes(a.queries, b.queries)],
        settings=[*_settings(a.manifest, b.manifest)],
    )


def _accepted(loops: Sequence[LoopClosure]) -> dict[Pair, LoopClosure]:
    return {(loop.query.stamp_ns, loop.match.session, loop.match.stamp_ns): loop for loop in loops if loop.accepted}


def _is_moved(a: LoopClosure, b: LoopClosure) -> bool:
    t_a, t_b = a.geometry.match_t_query, b.geometry.match_t_query
    if t_a is None or t_b is None:
        return t_a is not t_b
    return math.dist(t_a.position_m, t_b.position_m) > SAME_M or angle_deg(t_a, t_b) > SAME_DEG


def _changes(before: Sequence[Query], after: Sequence[Query]) -> Iterator[Change]:
    old, new = ({query.stamp_ns: query for query in queries} for queries in (before, after))
    for stamp_ns in sorted(old.keys() | new.keys()):
        a, b = old.get(stamp_ns), new.get(stamp_ns)
        name = (a or b).name  # type: ignore[union-attr]
        if a is None or b is None:
            yield Change(name, stamp_ns, "picture", "there" if a else "missing", "there" if b else "missing")
        elif a.outcome is not b.outcome:
            yield Change(name, stamp_ns, "outcome", a.outcome.value, b.outcome.value)
        elif a.match is not None and b.match is not None:
            if a.match.state is not b.match.state:
                yield Change(name, stamp_ns, "state", a.match.state.value, b.match.state.value)
            elif _best(a.match) != _best(b.match):
                yield Change(name, stamp_ns, "place", _best(a.match), _best(b.match))


def _best(match: PlaceMatch) -> str:
    return "none" if match.best is None else f"{match.best.place.session}/{match.best.place.name}"


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """A line for each configuration value, version or input in which the two differ."""
    for name in ("bag", "map", "mode", "simulate", "versions", "config"):
        flat_a, flat_b = (dict(_flat(name, manifest.get(name))) for manifest in (a, b))
        for key in sorted(flat_a.keys() | flat_b.keys()):
            if flat_a.get(key) != flat_b.get(key):
                yield f"{key}: {flat_a.get(key)} -> {flat_b.get(key)}"


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    else:
        yield name, value


def _loop_text(loop: LoopClosure) -> str:
    return f"{loop.query.name} to {loop.match.session}/{loop.match.name} ({loop.geometry.inliers} inliers)"


def _moved_text(a: LoopClosure, b: LoopClosure) -> str:
    t_a, t_b = a.geometry.match_t_query, b.geometry.match_t_query
    if t_a is None or t_b is None:
        return "having a relative pose or not"
    return f"{math.dist(t_a.position_m, t_b.position_m):.3f} m, {angle_deg(t_a, t_b):.2f} degrees"


def _shown(lines: Sequence[str], limit: int) -> Iterator[str]:
    yield from lines[:limit]
    if len(lines) > limit:
        yield f"... and {len(lines) - limit} more"
