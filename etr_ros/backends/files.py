"""Pose graphs and trajectories as text files: g2o (read by g2o, GTSAM, Ceres) and TUM (read by evo)."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from etr_ros.backends.relative import RelativePose, UnsuitableLoopError, metric_pose
from etr_ros.chains import drift
from etr_ros.config import LoopConfig
from etr_ros.errors import DataError
from etr_ros.transforms import between
from etr_ros.types import LoopClosure, Place, Pose


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """The pose of keyframe `to_row` in keyframe `from_row`, rows being those of the list of keyframes."""

    from_row: int
    to_row: int
    relative: RelativePose


def loop_edges(keyframes: Sequence[Place], loops: Iterable[LoopClosure]) -> Iterator[Edge]:
    """From the match to the query, for accepted loops between two of the keyframes that have a metric pose."""
    rows = {(place.session, place.place_id): row for row, place in enumerate(keyframes)}
    for loop in loops:
        match, query = (rows.get((place.session, place.place_id)) for place in (loop.match, loop.query))
        if loop.accepted and match is not None and query is not None:
            with suppress(UnsuitableLoopError):
                yield Edge(match, query, metric_pose(loop))


def odometry_edges(keyframes: Sequence[Place], segments: Sequence[int], config: LoopConfig) -> Iterator[Edge]:
    """From each keyframe to the next of the same unbroken piece of odometry (`segments`, one a keyframe), with what the
    odometry gains on the way by `drift_m_per_m` and `drift_deg_per_m`. Raises DataError when one has no pose."""
    for row, (a, b) in enumerate(pairwise(keyframes)):
        if segments[row] == segments[row + 1]:
            moved = between(_pose(a), _pose(b))
            yield Edge(row, row + 1, RelativePose(moved, drift(math.hypot(*moved.position_m), moved, config)))


def write_g2o(path: Path, keyframes: Sequence[Place], edges: Iterable[Edge]) -> None:
    """One VERTEX_SE3:QUAT for each keyframe, numbered by row, and one EDGE_SE3:QUAT for each edge.

    The information is that of `RelativePose.information`: radians, as GTSAM and Ceres read it; g2o itself reads half
    angles and so takes rotations for twice as uncertain. Raises DataError when a keyframe has no pose, an edge names
    no keyframe, or the file cannot be written.
    """
    lines = [f"VERTEX_SE3:QUAT {row} {_numbers(_pose(place))}" for row, place in enumerate(keyframes)]
    upper = np.triu_indices(6)
    for edge in edges:
        if not (0 <= edge.from_row < len(keyframes) and 0 <= edge.to_row < len(keyframes)):
            raise DataError(f"{path}: an edge from {edge.from_row} to {edge.to_row}, of {len(keyframes)} keyframes")
        information = " ".join(map(repr, edge.relative.information()[upper].tolist()))
        lines.append(f"EDGE_SE3:QUAT {edge.from_row} {edge.to_row} {_numbers(edge.relative.a_t_b)} {information}")
    _write(path, lines)


def write_tum(path: Path, keyframes: Iterable[Place]) -> None:
    """One line `stamp x y z qx qy qz qw` for each keyframe: seconds, exact to the nanosecond, and metres.

    Raises DataError when a keyframe has no pose or the file cannot be written.
    """
    lines = []
    for place in keyframes:
        sign, stamp_ns = ("-" if place.stamp_ns < 0 else ""), abs(place.stamp_ns)
        seconds, rest = divmod(stamp_ns, 10**9)
        lines.append(f"{sign}{seconds}.{rest:09d} {_numbers(_pose(place))}")
    _write(path, lines)


def _pose(place: Place) -> Pose:
    if place.pose is None:
        raise DataError(f"keyframe {place.place_id} ({place.name}) of session '{place.session}' has no pose")
    return place.pose


def _numbers(pose: Pose) -> str:
    return " ".join(repr(float(value)) for value in (*pose.position_m, *pose.quat_xyzw))


def _write(path: Path, lines: Sequence[str]) -> None:
    """All or nothing: what was at `path` stays until the new file is complete."""
    draft = ""
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        os.replace(draft, path)
    except OSError as error:
        if draft:
            Path(draft).unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error}") from error
