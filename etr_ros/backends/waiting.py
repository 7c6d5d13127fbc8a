"""Loops on their way to a back end that counts its own nodes: they wait until it has made them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from etr_ros import transforms
from etr_ros.backends.nodes import GraphNodes
from etr_ros.backends.relative import RelativePose, metric_pose
from etr_ros.types import LoopClosure, Place


@dataclass(frozen=True, slots=True, eq=False)
class NodeLoop:
    """A loop between two nodes of a back end; `relative` is the pose of the query's node in the match's node."""

    query_id: int
    match_id: int
    relative: RelativePose


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What became of the loops that waited: those that found their nodes, and why the others never will."""

    found: tuple[NodeLoop, ...]
    given_up: tuple[str, ...]


class WaitingLoops:
    """At most `capacity` loops, oldest first."""

    def __init__(self, nodes: GraphNodes, capacity: int) -> None:
        self._nodes, self._capacity = nodes, capacity
        self._waiting: deque[tuple[LoopClosure, RelativePose]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, loop: LoopClosure) -> str:
        """Let a loop wait; what is returned says which one had to go for it, empty when none had to.

        Raises UnsuitableLoopError when it has no metric relative pose.
        """
        self._waiting.append((loop, metric_pose(loop)))
        if len(self._waiting) <= self._capacity:
            return ""
        oldest, _ = self._waiting.popleft()
        return f"{_label(oldest)}: its nodes did not come while {self._capacity} later loops came"

    def settle(self) -> Settled:
        """Take out every loop whose nodes are known, or can no longer come."""
        found, given_up = [], []
        for _ in range(len(self._waiting)):
            loop, relative = self._waiting.popleft()
            if not all(self._nodes.is_settled(place.stamp_ns) for place in (loop.query, loop.match)):
                self._waiting.append((loop, relative))
                continue
            result = self._between_nodes(loop, relative)
            if isinstance(result, str):
                given_up.append(f"{_label(loop)}: {result}")
            else:
                found.append(result)
        return Settled(tuple(found), tuple(given_up))

    def _between_nodes(self, loop: LoopClosure, relative: RelativePose) -> NodeLoop | str:
        query, match = self._nodes.anchor(loop.query.stamp_ns), self._nodes.anchor(loop.match.stamp_ns)
        if query is None or match is None:
            return f"it has no node at {_seconds(loop.query if query is None else loop.match)}"
        if query.node_id == match.node_id:
            return f"both places are its node {query.node_id}"
        moved = relative.between(match.node_t_body, transforms.inverse(query.node_t_body))
        return NodeLoop(query.node_id, match.node_id, moved)


def _label(loop: LoopClosure) -> str:
    return f"loop from {_seconds(loop.query)} to {_seconds(loop.match)}"


def _seconds(place: Place) -> str:
    return f"{place.stamp_ns / 1e9:.3f} s"
