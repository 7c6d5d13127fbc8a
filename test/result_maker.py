"""A small result of a replay, made by hand: five pictures of a drive in loop mode, one loop accepted, one rejected."""

from __future__ import annotations

import dataclasses

import numpy as np

from etr_ros.result import Outcome, Query, Result
from etr_ros.types import Candidate, Geometry, LoopClosure, Place, PlaceMatch, Pose, State

S = 1_000_000_000
T0 = 1_700_000_000 * S
SESSION = "drive"
UNSURE = Geometry(12, 80, None, None, degeneracy="fewer than 20, or so", coverage=0.1)
SURE = Geometry(
    *(90, 120, Pose((0.1, 0.2, 0.0), (0.0, 0.0, 0.6, 0.8), ""), np.diag([0.1, 0.2, 0.3, 0.01, 0.02, 0.03]), True, ""),
    coverage=0.5,
    agreement=0.97,
)


def stamp(row: int) -> int:
    return T0 + row * S + row


def place(row: int) -> Place:
    return Place(row, str(stamp(row)), SESSION, stamp(row), Pose((float(row), 1 / 3, 0.0), frame_id="odom"))


def query(row: int, *candidates: Candidate, state: State = State.UNKNOWN) -> Query:
    match = PlaceMatch(stamp(row), state, candidates, {"extract": 12.5, "rerank": 3.25})
    truth = Pose((float(row), 0.0, 0.0))
    return Query(str(stamp(row)), stamp(row), Outcome.ANSWERED, "", row, place(row).pose, truth, match)


def made_result() -> Result:
    first = Candidate(place(0), 0.9, 1.5, 0.97, 90, True, "", SURE)
    second = Candidate(place(1), 0.1 + 0.2, None, None, 12, False, 'not "sure",\nnot at all', UNSURE)
    queries = (
        query(0),
        query(1),
        dataclasses.replace(query(2), outcome=Outcome.UNUSABLE, reason="it is black", picture_id=None, match=None),
        dataclasses.replace(query(3, first, second, state=State.LOCALIZED), picture_id=2),
        Query(str(stamp(4)), stamp(4), Outcome.SKIPPED),
    )
    asking = dataclasses.replace(place(3), place_id=2)
    loops = (
        LoopClosure(asking, place(0), SURE, 0.97, 3, accepted=True),
        LoopClosure(asking, place(1), UNSURE, None, 0, reason="nobody agrees"),
    )
    manifest = {
        "mode": "loops",
        "bag": {"name": "drive"},
        "map": None,
        "config": {"loop": {"enabled": True}},
        "seed": 0,
    }
    return Result(manifest, queries, loops, ("a note",))
