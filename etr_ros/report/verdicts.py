"""What the ground truth says of each answer and each loop of a result."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etr_ros import loop_metrics, measure
from etr_ros.config import Config, LoopConfig
from etr_ros.errors import EtrError
from etr_ros.ground_truth import GroundTruth
from etr_ros.keyframes import angle_deg
from etr_ros.loop_metrics import LoopProtocol
from etr_ros.measure import Protocol
from etr_ros.result import Query, Result
from etr_ros.types import Candidate, LoopClosure, Place, Pose


class Verdict(enum.Enum):
    """Accepted ones are right or wrong, rejected ones missed or not; UNKNOWN where the truth does not tell."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSED = "missed"
    REJECTED = "rejected"  # and nothing was lost by it
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Truth:
    """What answers are judged by; empty when there is no ground truth.

    `places` are the correct places of each query, None when the recording does not tell. `poses` are the true ones by
    stamp, `revisits` the stamps of the pictures that see a place again.
    """

    protocol: Protocol
    places: GroundTruth | None = None
    poses: Mapping[int, Pose] = field(default_factory=dict)
    revisits: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return self.places is not None or bool(self.poses)


def read_truth(
    result: Result, measured: Mapping[str, Any] | None, places: Sequence[Place], protocol: Protocol | None = None
) -> Truth:
    """The truth that a replay was judged by, by its metrics.json (`measured`) or by a `protocol` given anew.

    `places` are those of the prebuilt map; where it is gone, the places among the answers stand for them.
    """
    if measured is None and protocol is None:
        return Truth(Protocol())
    protocol = protocol or _protocol(measured or {})
    config = _loop_config(result)
    answered = [query for query in result.queries if query.match is not None]
    notes = []
    if result.manifest.get("map") and not places:
        places = _places_among(answered)
        notes.append("the map is not there any more: places that were no candidates are not counted as missed")
    try:
        positives = measure.true_places(answered, places, protocol, config)
    except EtrError as error:
        positives = None
        notes.append(f"single pictures are not judged: {error}")
    if protocol.pairs is not None or protocol.frame_tolerance is not None:
        return Truth(protocol, positives, notes=tuple(notes))
    poses = {query.stamp_ns: query.truth for query in result.queries if query.truth is not None}
    keyframes = [query.stamp_ns for query in answered if query.stamp_ns in poses]
    revisits = frozenset(loop_metrics.true_revisits(poses, keyframes, config, protocol.loops))
    return Truth(protocol, positives, poses, revisits, tuple(notes))


def judge_answer(query: Query, candidate: Candidate | None, truth: Truth) -> Verdict:
    """Of the candidate that stands for a query's answer: the accepted one, or else the best."""
    if truth.places is None or query.name not in truth.places.positives:
        return Verdict.UNKNOWN
    positives = truth.places.positives[query.name]
    if candidate is not None and candidate.accepted:
        return Verdict.RIGHT if candidate.place.place_id in positives else Verdict.WRONG
    return Verdict.MISSED if positives else Verdict.REJECTED


def judge_loops(loops: Sequence[LoopClosure], truth: Truth) -> list[Verdict]:
    """One for each loop.

    A revisit without a right loop counts as missed once: at that of its rejected loops which comes nearest to the
    truth. `missed_without_loop` names the others.
    """
    known = [_is_known(loop, truth.poses) for loop in loops]
    verdicts = [
        Verdict.UNKNOWN if not is_known else _of_loop(loop, truth) for loop, is_known in zip(loops, known, strict=True)
    ]
    found = {loop.query.stamp_ns for loop, verdict in zip(loops, verdicts, strict=True) if verdict is Verdict.RIGHT}
    nearest: dict[int, tuple[float, int]] = {}
    for row, (loop, verdict) in enumerate(zip(loops, verdicts, strict=True)):
        stamp = loop.query.stamp_ns
        if verdict is Verdict.REJECTED and stamp in truth.revisits and stamp not in found:
            nearest[stamp] = min(nearest.get(stamp, (math.inf, row)), (apart(loop.match, loop.query, truth)[0], row))
    for _, row in nearest.values():
        verdicts[row] = Verdict.MISSED
    return verdicts


def missed_without_loop(loops: Sequence[LoopClosure], truth: Truth) -> frozenset[int]:
    """The stamps of the revisits of which not even a rejected loop tells."""
    return truth.revisits - {loop.query.stamp_ns for loop in loops}


def apart(match: Place, query: Place, truth: Truth) -> tuple[float, float]:
    """How far the true poses of two places are apart, in metres and degrees; NaN where unknown."""
    a, b = _true_pose(match, query.session, truth.poses), truth.poses.get(query.stamp_ns)
    if a is None or b is None:
        return math.nan, math.nan
    return math.dist(a.position_m, b.position_m), angle_deg(a, b)


def pose_error(loop: LoopClosure, truth: Truth) -> tuple[float, float] | None:
    """Metres and degrees by which a metric relative pose is off; None where that cannot be told."""
    if not (loop.geometry.is_metric and _is_known(loop, truth.poses) and truth.protocol.loops.knows_rotation):
        return None
    off = loop_metrics.pose_error(loop, truth.poses)
    if not np.isfinite(off).all():
        return None
    return float(np.linalg.norm(off[:3])), math.degrees(float(np.linalg.norm(off[3:])))


def _of_loop(loop: LoopClosure, truth: Truth) -> Verdict:
    if not loop.accepted:
        return Verdict.REJECTED
    return Verdict.WRONG if loop_metrics.is_false(loop, truth.poses, truth.protocol.loops) else Verdict.RIGHT


def _is_known(loop: LoopClosure, poses: Mapping[int, Pose]) -> bool:
    return loop.query.stamp_ns in poses and _true_pose(loop.match, loop.query.session, poses) is not None


def _true_pose(match: Place, session: str, poses: Mapping[int, Pose]) -> Pose | None:
    return poses.get(match.stamp_ns) if match.session == session else match.pose


def _places_among(answered: Sequence[Query]) -> list[Place]:
    found = {c.place.place_id: c.place for query in answered if query.match for c in query.match.candidates}
    return [found[place_id] for place_id in sorted(found)]


def _loop_config(result: Result) -> LoopConfig:
    config = result.manifest.get("config")
    values = config.get("loop", {}) if isinstance(config, Mapping) else {}
    return Config.from_dict({"loop": values}).loop


def _protocol(measured: Mapping[str, Any]) -> Protocol:
    """As metrics.json tells it, with the defaults for what it does not tell."""
    told = measured.get("protocol")
    told = told if isinstance(told, Mapping) else {}
    loops = told.get("loops")
    protocol: Protocol = _with_numbers(Protocol(), told)
    tolerance = told.get("frame_tolerance")
    return dataclasses.replace(
        protocol,
        loops=_with_numbers(LoopProtocol(), loops if isinstance(loops, Mapping) else {}),
        pairs=() if told.get("pairs") is not None else None,
        frame_tolerance=tolerance if isinstance(tolerance, int) else None,
    )


def _with_numbers(default: Any, told: Mapping[str, Any]) -> Any:
    """The dataclass `default` with those of its numbers and flags that are told."""
    names = [each.name for each in dataclasses.fields(default) if isinstance(getattr(default, each.name), float | bool)]
    return dataclasses.replace(default, **{n: told[n] for n in names if isinstance(told.get(n), float | int | bool)})
