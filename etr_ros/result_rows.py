"""The rows of the tables of a result folder, to and from values. An empty cell is what is not known.

Floating-point numbers are written with as many digits as it takes to read back the same number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from etr_ros.errors import DataError
from etr_ros.poses import is_pose
from etr_ros.result import Outcome, Query
from etr_ros.transforms import Matrix
from etr_ros.types import Candidate, Geometry, LoopClosure, Place, PlaceMatch, Pose

_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw", "frame")
_UPPER = np.triu_indices(6)
_COVARIANCE = tuple(f"c{row}{column}" for row, column in zip(*_UPPER, strict=True))
_GEOMETRY = ("matches", "coverage", "agreement", "is_metric", "degeneracy", *_POSE, *_COVARIANCE)
_MATCHED = ("match_id", "match_stamp_ns", "match_session", *(f"match_{name}" for name in _POSE))

QUERIES = (
    *("query", "stamp_ns", "outcome", "reason", "picture_id", "state"),
    *(f"odom_{name}" for name in _POSE),
    *(f"truth_{name}" for name in _POSE),
)
PREDICTIONS = (
    *("query", "rank", "database", "session", "place_id", "place_stamp_ns"),
    *(f"place_{name}" for name in _POSE),
    *("retrieval_score", "etr_score", "probability", "inliers", "accepted", "reason", "weight", *_GEOMETRY),
)
LOOPS = (
    *("query", "query_id", "query_stamp_ns", "query_session", "match", *_MATCHED),
    *("accepted", "reason", "probability", "support", "inliers", *_GEOMETRY),
)
TIMING = ("query", "stage", "ms")


class Row:
    """The cells of one row by the names of their columns; every method raises DataError for what cannot be."""

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells

    def text(self, name: str) -> str:
        return self._cells[name]

    def integer(self, name: str) -> int:
        try:
            return int(self._cells[name])
        except ValueError:
            raise self._wrong(name, "a whole number") from None

    def number(self, name: str) -> float:
        """A finite number."""
        try:
            value = float(self._cells[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._wrong(name, "a number")
        return value

    def flag(self, name: str) -> bool:
        if self._cells[name] not in ("true", "false"):
            raise self._wrong(name, "true or false")
        return self._cells[name] == "true"

    def knows(self, name: str) -> bool:
        """Whether the cell is not empty."""
        return self._cells[name] != ""

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name) if self.knows(name) else None

    def optional_number(self, name: str) -> float | None:
        return self.number(name) if self.knows(name) else None

    def pose(self, prefix: str = "") -> Pose | None:
        if not self.knows(prefix + "x"):
            return None
        values = [self.number(prefix + name) for name in _POSE[:7]]
        if not is_pose(values):
            raise DataError(f"the pose of columns {prefix}x to {prefix}qw is none")
        x, y, z, qx, qy, qz, qw = values
        return Pose((x, y, z), (qx, qy, qz, qw), self.text(prefix + "frame"))

    def covariance(self) -> Matrix | None:
        if not self.knows(_COVARIANCE[0]):
            return None
        matrix = np.zeros((6, 6))
        matrix[_UPPER] = [self.number(name) for name in _COVARIANCE]
        return matrix + np.triu(matrix, 1).T

    def geometry(self) -> Geometry | None:
        if not self.knows("matches"):
            return None
        return Geometry(
            self.integer("inliers"),
            self.integer("matches"),
            self.pose(),
            self.covariance(),
            self.flag("is_metric"),
            self.text("degeneracy"),
            self.number("coverage"),
            self.number("agreement") if self.knows("agreement") else math.nan,
        )

    def _wrong(self, name: str, expected: str) -> DataError:
        return DataError(f"{name} must be {expected}, not '{self._cells[name][:40]}'")


def query_row(query: Query) -> list[str]:
    """As `QUERIES`; the candidates are rows of their own."""
    state = query.match.state.value if query.match else None
    cells = query.name, query.stamp_ns, query.outcome.value, query.reason, query.picture_id, state
    return [*map(_cell, cells), *_pose_cells(query.odometry), *_pose_cells(query.truth)]


def to_query(row: Row, match: PlaceMatch | None) -> Query:
    """Raises DataError."""
    try:
        outcome = Outcome(row.text("outcome"))
    except ValueError:
        raise DataError(f"there is no outcome '{row.text('outcome')[:40]}'") from None
    return Query(
        row.text("query"),
        row.integer("stamp_ns"),
        outcome,
        row.text("reason"),
        row.optional_integer("picture_id"),
        row.pose("odom_"),
        row.pose("truth_"),
        match,
    )


def prediction_rows(query: Query) -> Iterator[list[str]]:
    """As `PREDICTIONS`, one for each candidate, best first."""
    for rank, candidate in enumerate(query.match.candidates if query.match else (), start=1):
        place = candidate.place
        yield [
            *map(_cell, (query.name, rank, place.name, place.session, place.place_id, place.stamp_ns)),
            *_pose_cells(place.pose),
            *map(_cell, (candidate.retrieval_score, candidate.etr_score, candidate.probability)),
            *map(_cell, (candidate.inliers, candidate.accepted, candidate.reason, float(candidate.weight))),
            *_geometry_cells(candidate.geometry),
        ]


def to_candidate(row: Row) -> Candidate:
    """Raises DataError."""
    place = Place(
        row.integer("place_id"),
        row.text("database"),
        row.text("session"),
        row.integer("place_stamp_ns"),
        row.pose("place_"),
    )
    return Candidate(
        place,
        row.number("retrieval_score"),
        row.optional_number("etr_score"),
        row.optional_number("probability"),
        row.optional_integer("inliers"),
        row.flag("accepted"),
        row.text("reason"),
        row.geometry(),
        row.number("weight"),
    )


def loop_row(loop: LoopClosure) -> list[str]:
    """As `LOOPS`; the query's pose is its odometry in `QUERIES`."""
    query, match = loop.query, loop.match
    return [
        *map(_cell, (query.name, query.place_id, query.stamp_ns, query.session)),
        *map(_cell, (match.name, match.place_id, match.stamp_ns, match.session)),
        *_pose_cells(match.pose),
        *map(_cell, (loop.accepted, loop.reason, loop.probability, loop.support, loop.geometry.inliers)),
        *_geometry_cells(loop.geometry),
    ]


def to_loop(row: Row, queries: Mapping[str, Query]) -> LoopClosure:
    """`queries` by name. Raises DataError."""
    name, geometry = row.text("query"), row.geometry()
    if name not in queries or geometry is None:
        raise DataError(f"the loop of '{name[:40]}' lacks its picture or its matches")
    query = Place(
        row.integer("query_id"),
        name,
        row.text("query_session"),
        row.integer("query_stamp_ns"),
        queries[name].odometry,
    )
    match = Place(
        row.integer("match_id"),
        row.text("match"),
        row.text("match_session"),
        row.integer("match_stamp_ns"),
        row.pose("match_"),
    )
    return LoopClosure(
        query,
        match,
        geometry,
        row.optional_number("probability"),
        row.integer("support"),
        row.flag("accepted"),
        row.text("reason"),
    )


def timing_rows(query: Query) -> Iterator[list[str]]:
    """As `TIMING`, in the order of the stages."""
    for stage, milliseconds in (query.match.stage_ms if query.match else {}).items():
        yield [query.name, stage, f"{milliseconds:.3f}"]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float) else str(value)


def _pose_cells(pose: Pose | None) -> list[str]:
    return (
        [""] * 8 if pose is None else [*map(_cell, (*map(float, (*pose.position_m, *pose.quat_xyzw)), pose.frame_id))]
    )


def _geometry_cells(found: Geometry | None) -> list[str]:
    """All of `_GEOMETRY`; the inliers have a column of their own."""
    if found is None:
        return [""] * len(_GEOMETRY)
    values = [""] * len(_COVARIANCE) if found.covariance is None else map(_cell, found.covariance[_UPPER].tolist())
    agreement = None if math.isnan(found.agreement) else float(found.agreement)
    return [
        *map(_cell, (found.matches, float(found.coverage), agreement, bool(found.is_metric), found.degeneracy)),
        *_pose_cells(found.match_t_query),
        *values,
    ]
