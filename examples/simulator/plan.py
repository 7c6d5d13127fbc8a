"""Closed drives ("rounds") through the free space of a level."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import DataError
from examples.simulator.level import CELL_M
from examples.simulator.space import FreeSpace, Points

STEP_M = 0.1  # between the points of a round
NODE_CELLS = 2  # cells from one node of the search graph to the next
COMFORT_M = 1.5  # a path avoids walls nearer than this where it can
WAYPOINTS = 20
SMOOTHING_PASSES = 40
TURN_SMOOTHING_M = 0.8
GATE_STEPS = 60  # the second round passes a gate each 6 m of the survey
KEPT_GATES = 0.7
MAX_LATERAL_M = 0.5
MAX_JITTER_RAD = math.radians(6)
WANDER_M = 4.0  # distance over which offset and jitter change
EXCURSIONS = 3
EXCURSION_M = 6.0, 15.0  # how far an excursion leads away from the survey
LAPS = 3
FIRST_LAP = 0.25  # of a drive's length; the later laps share the rest
MIN_DRIVE_M = 60.0
NEIGHBOURS = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]


@dataclass(frozen=True, eq=False)
class Round:
    """A drive: `points` (N, 2) in metres, STEP_M apart, and the `yaw` (N,) in radians at each."""

    points: Points
    yaw: NDArray[np.float64]

    @property
    def length_m(self) -> float:
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())

    def every(self, spacing_m: float) -> NDArray[np.float64]:
        """(M, 3) x, y, yaw at equal distances along the drive."""
        travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(self.points, axis=0), axis=1).cumsum()])
        at = np.arange(0.0, travelled[-1], spacing_m)
        return np.column_stack([np.interp(at, travelled, values) for values in (*self.points.T, self.yaw)])


def plan_rounds(space: FreeSpace, length_m: float, seed: int) -> tuple[Round, Round]:
    """A survey of the largest area, and a second round that comes to most of the same places in another way.

    Each is about `length_m` long, shorter where there is not more to see. The second round starts elsewhere, takes
    short cuts, wanders sideways by up to MAX_LATERAL_M, does not look quite where it drives, and makes excursions
    to where the survey did not come, if the level has such places. Same seed, same rounds.
    """
    rng = np.random.default_rng(seed)
    area = space.largest_area()
    graph = _Graph(area)
    waypoints = area.spread_points(WAYPOINTS, rng)
    survey = _smooth(area, _tour(graph, waypoints[:1], waypoints[1:], length_m))

    known = np.roll(survey, -int(rng.integers(len(survey))), axis=0)[::GATE_STEPS]
    known = known[rng.random(len(known)) < KEPT_GATES]
    second = _smooth(area, _tour(graph, known, _excursions(area, survey, rng), 1.2 * length_m))
    second = _wander(area, second, rng)
    jitter = MAX_JITTER_RAD * _slow_noise(len(second), rng)
    return Round(survey, _headings(survey)), Round(second, _headings(second) + jitter)


def plan_laps(space: FreeSpace, length_m: float, seed: int) -> Round:
    """One drive of `length_m` through the largest area, LAPS laps long, that comes back to most of its places.

    The later laps take short cuts and make excursions to new places; every third goes the opposite way.
    The robot wanders sideways by up to MAX_LATERAL_M and does not look quite where it drives. Same seed, same drive.
    Raises DataError when `length_m` is below MIN_DRIVE_M, or too short for a first lap in this level.
    """
    if length_m < MIN_DRIVE_M:
        raise DataError(f"a drive of {length_m:g} m has no room for laps; take {MIN_DRIVE_M:g} m or more")
    rng = np.random.default_rng(seed)
    area = space.largest_area()
    graph = _Graph(area)
    waypoints = area.spread_points(WAYPOINTS, rng)
    laps = [_tour(graph, waypoints[:1], waypoints[1:], FIRST_LAP * length_m)]
    if len(laps[0]) < 2:
        raise DataError(f"nothing can be reached and left again within {FIRST_LAP * length_m:g} m: drive further")
    first = _resample(laps[0])
    gates = first[::GATE_STEPS]
    while len(points := _smooth(area, np.concatenate(laps))) * STEP_M < 1.05 * length_m:
        kept = gates[1:][rng.random(len(gates) - 1) < KEPT_GATES]
        known = np.concatenate([gates[:1], kept[::-1] if len(laps) % LAPS == LAPS - 1 else kept])
        laps.append(_tour(graph, known, _excursions(area, first, rng), (1 - FIRST_LAP) / (LAPS - 1) * length_m))
    points = _wander(area, points, rng)
    yaw = _headings(points) + MAX_JITTER_RAD * _slow_noise(len(points), rng)
    count = round(length_m / STEP_M) + 1
    return Round(points[:count], yaw[:count])


def _tour(graph: _Graph, fixed: Points, optional: Points, length_m: float) -> Points:
    """A closed path through the fixed points in their order, and each of the optional ones that the length permits."""
    nodes = [graph.nearest(point) for point in np.concatenate([fixed, optional])]
    ways = _Ways(graph, nodes)
    order = [*range(len(fixed)), 0]
    total = sum(ways.metres(a, b) for a, b in pairwise(order))
    for index in range(len(fixed), len(nodes)):
        extra, after = min(
            (ways.metres(a, index) + ways.metres(index, b) - ways.metres(a, b), place)
            for place, (a, b) in enumerate(pairwise(order), 1)
        )
        if total + extra <= length_m:
            order.insert(after, index)
            total += extra
    path = [node for a, b in pairwise(order) for node in ways.path(a, b)[:-1]]
    return graph.points(path)


class _Graph:
    """Every NODE_CELLS-th free cell, joined to its eight neighbours; ways along walls cost more."""

    def __init__(self, space: FreeSpace) -> None:
        self._origin_m = np.array(space.heights.origin_m)
        self._nodes = np.argwhere(space.is_free[::NODE_CELLS, ::NODE_CELLS])  # (N, 2) row, column
        self._number = {(row, column): index for index, (row, column) in enumerate(self._nodes.tolist())}
        clearance = space.clearance_m(self.points(list(range(len(self._nodes)))))
        cost = (1.0 + np.maximum(0.0, COMFORT_M - clearance)).tolist()
        self._edges = [
            [(end, length * cost[end]) for end, length in self._neighbours(space, row, column)]
            for row, column in self._nodes.tolist()
        ]
        widest = int(clearance.argmax())
        before = np.array(self.ways_from(widest))
        self._reachable = np.flatnonzero((before >= 0) | (np.arange(len(before)) == widest))

    def _neighbours(self, space: FreeSpace, row: int, column: int) -> Iterator[tuple[int, float]]:
        for down, across in NEIGHBOURS:
            end = self._number.get((row + down, column + across))
            half_way = row * NODE_CELLS + down * NODE_CELLS // 2, column * NODE_CELLS + across * NODE_CELLS // 2
            if end is not None and space.is_free[half_way]:
                yield end, math.hypot(down, across)

    def points(self, path: list[int]) -> Points:
        points: Points = self._nodes[path][:, ::-1] * (NODE_CELLS * CELL_M) + self._origin_m
        return points

    def nearest(self, point: Points) -> int:
        cell = (point - self._origin_m)[::-1] / (NODE_CELLS * CELL_M)
        return int(self._reachable[np.linalg.norm(self._nodes[self._reachable] - cell, axis=1).argmin()])

    def ways_from(self, start: int) -> list[int]:
        """For every node the one before it on the cheapest way from `start`, -1 where there is none (Dijkstra)."""
        before = [-1] * len(self._edges)
        cost = [math.inf] * len(self._edges)
        cost[start] = 0.0
        queue = [(0.0, start)]
        while queue:
            so_far, node = heapq.heappop(queue)
            if so_far > cost[node]:
                continue
            for neighbour, step in self._edges[node]:
                new = so_far + step
                if new < cost[neighbour]:
                    cost[neighbour], before[neighbour] = new, node
                    heapq.heappush(queue, (new, neighbour))
        return before


class _Ways:
    """The cheapest ways between some nodes, each found when it is first asked for."""

    def __init__(self, graph: _Graph, nodes: list[int]) -> None:
        self._graph, self._nodes = graph, nodes
        self._before: dict[int, list[int]] = {}
        self._paths: dict[tuple[int, int], list[int]] = {}

    def path(self, a: int, b: int) -> list[int]:
        """Nodes of the graph from a to b, which are indices into `nodes`."""
        if (a, b) not in self._paths:
            if a not in self._before:
                self._before[a] = self._graph.ways_from(self._nodes[a])
            way = [self._nodes[b]]
            while way[-1] != self._nodes[a]:
                way.append(self._before[a][way[-1]])
            self._paths[a, b] = way[::-1]
        return self._paths[a, b]

    def metres(self, a: int, b: int) -> float:
        return float(np.linalg.norm(np.diff(self._graph.points(self.path(a, b)), axis=0), axis=1).sum())


def _smooth(space: FreeSpace, points: Points) -> Points:
    """The closed path with rounded corners, staying in the free space, STEP_M from point to point."""
    for _ in range(SMOOTHING_PASSES):
        pulled = (np.roll(points, 1, axis=0) + 2 * points + np.roll(points, -1, axis=0)) / 4
        points = np.where(space.contains(pulled)[:, None], pulled, points)
    return _resample(np.concatenate([points, points[:1]]))


def _resample(points: Points) -> Points:
    travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    at = np.arange(0.0, travelled[-1], STEP_M)
    return np.column_stack([np.interp(at, travelled, values) for values in points.T])


def _headings(points: Points) -> NDArray[np.float64]:
    """(N,) the direction of the drive, turning smoothly."""
    along = np.diff(points, axis=0, append=points[:1])
    heading = np.unwrap(np.arctan2(along[:, 1], along[:, 0]))
    reach = int(3 * TURN_SMOOTHING_M / STEP_M)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP_M / TURN_SMOOTHING_M) ** 2)
    return np.convolve(np.pad(heading, reach, mode="edge"), weights / weights.sum(), mode="valid")


def _excursions(space: FreeSpace, survey: Points, rng: np.random.Generator) -> Points:
    """Up to EXCURSIONS points away from the survey, the farthest within reach first."""
    points = space.spread_points(4 * WAYPOINTS, rng)
    distance = np.array([np.linalg.norm(survey - point, axis=1).min() for point in points])
    within = (distance >= EXCURSION_M[0]) & (distance <= EXCURSION_M[1])
    return points[within][np.argsort(-distance[within])][:EXCURSIONS]


def _wander(space: FreeSpace, points: Points, rng: np.random.Generator) -> Points:
    """The path moved sideways by a slowly changing offset, less where there is no room for it."""
    along = np.roll(points, -3, axis=0) - np.roll(points, 3, axis=0)
    normal = along[:, ::-1] * [-1.0, 1.0] / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    offset = MAX_LATERAL_M * _slow_noise(len(points), rng)
    moved = points + offset[:, None] * normal
    return _smooth(space, np.where(space.contains(moved)[:, None], moved, points))


def _slow_noise(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count,) values in [-1, 1] that change over WANDER_M."""
    knots = np.arange(0, count * STEP_M + WANDER_M, WANDER_M)
    return np.interp(np.arange(count) * STEP_M, knots, rng.uniform(-1, 1, len(knots)))
