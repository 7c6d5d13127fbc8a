"""Loop closures with a known geometry."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from etr_ros.types import Geometry, LoopClosure, Place, Pose

S = 1_000_000_000
T0 = 1_700_000_000 * S
HALF = math.sqrt(0.5)
# The query stands 2 m to the left of the match and looks to the left: the match is 2 m behind it.
MATCH_T_QUERY = Pose((0.0, 2.0, 0.0), (0.0, 0.0, HALF, HALF), "match")
COVARIANCE = np.diag([0.01, 0.04, 0.09, 1e-4, 4e-4, 9e-4])
COVARIANCE[0, 1] = COVARIANCE[1, 0] = 0.01


def place(number: int, stamp_ns: int, session: str = "today") -> Place:
    return Place(number, f"{number}.jpg", session, stamp_ns, Pose((float(number), 0.0, 0.0)))


def make_loop(query_ns: int = T0 + 60 * S, match_ns: int = T0, **changes: object) -> LoopClosure:
    geometry = Geometry(80, 100, MATCH_T_QUERY, COVARIANCE, is_metric=True)
    loop = LoopClosure(place(7, query_ns), place(3, match_ns), geometry, 0.99, 3, accepted=True)
    return dataclasses.replace(loop, **changes)  # type: ignore[arg-type]


def with_geometry(**changes: object) -> LoopClosure:
    loop = make_loop()
    return dataclasses.replace(loop, geometry=dataclasses.replace(loop.geometry, **changes))  # type: ignore[arg-type]
