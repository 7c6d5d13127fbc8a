"""What odometry and the loops accepted so far say about where two keyframes stand to each other.

Keyframes are joined by odometry, whose uncertainty grows with the way driven, and by accepted loops, which are short
cuts. The prediction for two keyframes follows the shortest chain between them.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from etr_ros.config import LoopConfig
from etr_ros.transforms import Matrix, between, compose, compose_covariance, error, inverse, inverse_covariance
from etr_ros.types import Geometry, Place, Pose

IDENTITY = Pose((0.0, 0.0, 0.0))
LOOP_M = 0.5  # the length of a loop in a chain, so that it is no short cut between neighbours
FLOOR_M, FLOOR_RAD = 0.02, math.radians(0.2)  # no odometry is better than this


def drift(way_m: float, displacement: Pose, config: LoopConfig) -> Matrix:
    """(6, 6) covariance that odometry has gained over `way_m` metres of way that led to `displacement`."""
    sigma_rad = FLOOR_RAD + math.radians(config.drift_deg_per_m) * way_m
    lever_m = math.hypot(*displacement.position_m)
    sigma_m = math.hypot(FLOOR_M + config.drift_m_per_m * way_m, sigma_rad * lever_m)
    return np.diag([sigma_m**2] * 3 + [sigma_rad**2] * 3)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Where a query is expected from a place: match_t_query, its (6, 6) covariance, and the length of the chain."""

    match_t_query: Pose
    covariance: Matrix
    way_m: float


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    pose: Pose
    way_m: float
    segment: int


@dataclass(frozen=True, slots=True, eq=False)
class _Anchor:
    """An accepted loop of keyframe `query_id` with a place of a prebuilt map."""

    query_id: int
    place: Pose
    match_t_query: Pose
    covariance: Matrix


class Chains:
    """The keyframes of a session, numbered from 0, and the metric loops that were accepted."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self._nodes: dict[int, _Node] = {}
        self._loops: dict[int, list[tuple[int, Pose, Matrix]]] = defaultdict(list)  # id -> (other, id_t_other, cov)
        self._anchors: dict[str, list[_Anchor]] = defaultdict(list)

    def add(self, place: Place, way_m: float, segment: int) -> None:
        """The next keyframe; one without a pose joins nothing."""
        if place.pose is not None:
            self._nodes[place.place_id] = _Node(place.pose, way_m, segment)

    def link(self, query: Place, match: Place, geometry: Geometry, map_name: str) -> None:
        """An accepted loop with a place of the session (`map_name` empty) or of a prebuilt map, if it is metric."""
        t, covariance = geometry.match_t_query, geometry.covariance
        if not geometry.is_metric or t is None or covariance is None or query.place_id not in self._nodes:
            return
        if map_name:
            if match.pose is not None:
                self._anchors[map_name].append(_Anchor(query.place_id, match.pose, t, covariance))
        elif match.place_id in self._nodes:
            self._loops[match.place_id].append((query.place_id, t, covariance))
            self._loops[query.place_id].append((match.place_id, inverse(t), inverse_covariance(covariance, t)))

    def predict(self, query: Place, match: Place, map_name: str) -> Prediction | None:
        """Where `query` is expected from `match`; None when nothing joins the two."""
        if query.place_id not in self._nodes:
            return None
        if not map_name:
            lengths, before = self._shortest(query.place_id, match.place_id)
            return self._along(match.place_id, before, lengths[match.place_id]) if match.place_id in lengths else None
        anchors, place = self._anchors[map_name], match.pose
        if not anchors or place is None:
            return None
        lengths, before = self._shortest(query.place_id, None)
        ways = [
            lengths.get(anchor.query_id, math.inf) + math.dist(anchor.place.position_m, place.position_m)
            for anchor in anchors
        ]
        nearest = int(np.argmin(ways))
        if math.isinf(ways[nearest]):
            return None
        return self._through(anchors[nearest], place, before, ways[nearest])

    def near(self, query_id: int, before: int, radius_m: float, radius_deg: float, reach_m: float) -> list[int]:
        """Keyframes with an id below `before` that stand within the radii of the query by what chains tell.

        Nearest first; only chains up to `reach_m` are followed.
        """
        query_t: dict[int, Pose] = {}
        found = []
        lengths, came_from = self._shortest(query_id, None, reach_m) if query_id in self._nodes else ({}, {})
        for node in lengths:  # in the order in which they were reached
            previous = came_from[node]
            query_t[node] = IDENTITY if node == query_id else compose(query_t[previous], self._step(previous, node))
            off = error(IDENTITY, query_t[node])
            off_m, off_rad = float(np.linalg.norm(off[:3])), float(np.linalg.norm(off[3:]))
            if node < before and off_m <= radius_m and off_rad <= math.radians(radius_deg):
                found.append((off_m, node))
        return [node for _, node in sorted(found)]

    def _step(self, node: int, following: int) -> Pose:
        """node_t_following along the edge of a chain."""
        if abs(following - node) == 1 and self._nodes[following].segment == self._nodes[node].segment:
            return between(self._nodes[node].pose, self._nodes[following].pose)
        return next(step for other, step, _ in self._loops[node] if other == following)

    def _shortest(
        self, start: int, target: int | None, reach_m: float = math.inf
    ) -> tuple[dict[int, float], dict[int, int]]:
        """Lengths of the shortest chains from `start`, and of each keyframe the one before it (Dijkstra)."""
        lengths: dict[int, float] = {}
        before: dict[int, int] = {}
        queue = [(0.0, start, start)]
        while queue:
            length, node, came_from = heapq.heappop(queue)
            if node in lengths or length > reach_m:
                continue
            lengths[node], before[node] = length, came_from
            if node == target:
                break
            for other, step in self._steps(node):
                if other not in lengths:
                    heapq.heappush(queue, (length + step, other, node))
        return lengths, before

    def _steps(self, node: int) -> Iterator[tuple[int, float]]:
        here = self._nodes[node]
        for other in (node - 1, node + 1):
            there = self._nodes.get(other)
            if there is not None and there.segment == here.segment:
                yield other, abs(there.way_m - here.way_m)
        for other, _, _ in self._loops[node]:
            yield other, LOOP_M

    def _along(self, match: int, before: dict[int, int], way_m: float) -> Prediction:
        """The prediction along the chain that `before` describes, from the match to the query."""
        t, covariance = IDENTITY, np.zeros((6, 6))
        node = run = match  # odometry runs from `run` to `node`
        while True:
            following = before[node]
            by_odometry = abs(following - node) == 1 and self._nodes[following].segment == self._nodes[node].segment
            if following == node or not by_odometry:
                t, covariance = self._with_odometry(t, covariance, run, node)
                if following == node:
                    return Prediction(t, covariance, way_m)
                _, step, step_covariance = next(loop for loop in self._loops[node] if loop[0] == following)
                t, covariance = compose(t, step), compose_covariance(covariance, t, step_covariance, step)
                run = following
            node = following

    def _with_odometry(self, t: Pose, covariance: Matrix, start: int, end: int) -> tuple[Pose, Matrix]:
        if start == end:
            return t, covariance
        a, b = self._nodes[start], self._nodes[end]
        step = between(a.pose, b.pose)
        gained = drift(abs(a.way_m - b.way_m), step, self.config)
        return compose(t, step), compose_covariance(covariance, t, gained, step)

    def _through(self, anchor: _Anchor, place: Pose, before: dict[int, int], way_m: float) -> Prediction:
        """From the place over the anchor's place, which the map's poses join, and its loop to the query."""
        step = between(place, anchor.place)
        gained = drift(math.hypot(*step.position_m), step, self.config)
        t = compose(step, anchor.match_t_query)
        covariance = compose_covariance(gained, step, anchor.covariance, anchor.match_t_query)
        rest = self._along(anchor.query_id, before, way_m)
        covariance = compose_covariance(covariance, t, rest.covariance, rest.match_t_query)
        return Prediction(compose(t, rest.match_t_query), covariance, way_m)
