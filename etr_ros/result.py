"""What replaying a recording gave: every picture, what was answered, and the loops. `result_files` keeps it on disk."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etr_ros.types import LoopClosure, PlaceMatch, Pose


class Outcome(enum.Enum):
    """What became of a picture."""

    ANSWERED = "answered"
    SKIPPED = "skipped"  # too near to the last keyframe
    UNUSABLE = "unusable"  # damaged, black, of the wrong size
    DROPPED = "dropped"  # the simulated live node was busy


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One picture of the recording, in its order.

    `picture_id` is its place in the map of all answered pictures (`Result.pictures`), None when it was not answered.
    `odometry` is the pose that the recognizer was given; `truth` the pose by which answers are judged, in the frame of
    the map's poses, or of the recording's own truth where there is no map. `reason` says why it was not answered.
    """

    name: str
    stamp_ns: int
    outcome: Outcome
    reason: str = ""
    picture_id: int | None = None
    odometry: Pose | None = None
    truth: Pose | None = None
    match: PlaceMatch | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """A whole replay.

    `manifest` holds what it was made of: bag, topics, map, configuration, versions, seed and the hash of its files.
    `notes` are what the user has to know, one line each.
    """

    manifest: Mapping[str, Any]
    queries: tuple[Query, ...]
    loops: tuple[LoopClosure, ...] = ()
    notes: tuple[str, ...] = ()
