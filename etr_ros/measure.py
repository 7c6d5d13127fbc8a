"""What a replay is worth: its places, loops and path, judged by the recording's ground truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from etr_ros import ground_truth, loop_metrics, metrics, predictions, trajectory
from etr_ros.config import Config, LoopConfig
from etr_ros.errors import DataError
from etr_ros.ground_truth import GroundTruth
from etr_ros.keyframes import angle_deg
from etr_ros.localization import pose_of_match
from etr_ros.loop_metrics import BY_POSES, LoopProtocol
from etr_ros.predictions import Answer
from etr_ros.result import Query, Result
from etr_ros.transforms import between, error, to_matrix
from etr_ros.types import LoopClosure, Place, PlaceMatch, Pose, State


@dataclass(frozen=True)
class Protocol:
    """What counts as correct. By poses, unless `pairs` (query name, place name) or `frame_tolerance` are given.

    A place is correct within `correct_m` metres and, where the truth knows rotations, `correct_deg` degrees of the
    query. A query is localized with success within each of the (metres, degrees) of `success`.
    """

    correct_m: float = 3.0
    correct_deg: float = 40.0
    success: tuple[tuple[float, float], ...] = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
    loops: LoopProtocol = BY_POSES
    pairs: tuple[tuple[str, str], ...] | None = None
    frame_tolerance: int | None = None

    def describe(self) -> dict[str, Any]:
        """Plain values for metrics.json, without the pairs themselves."""
        values = dataclasses.asdict(self)
        values["pairs"] = None if self.pairs is None else len(self.pairs)
        return values


def measure_result(result: Result, places: Sequence[Place] = (), protocol: Protocol | None = None) -> dict[str, Any]:
    """The measures as plain values for metrics.json; a part is missing where the truth does not tell.

    `places` are those of the prebuilt map; without any, of the session itself: its answered pictures that were no
    longer excluded when the query came. Raises DataError when there is nothing to judge by.
    """
    protocol = protocol or Protocol()
    answered = [query for query in result.queries if query.match is not None]
    by_name = protocol.pairs is not None or protocol.frame_tolerance is not None
    truth = true_places(answered, places, protocol, _loop_config(result))
    measured: dict[str, Any] = {"protocol": protocol.describe(), "places": _measure_places(answered, truth, protocol)}
    if places and not by_name:  # a session is in the frame of its odometry, which the truth need not be in
        measured["places"]["success"] = _success([q for q in answered if q.name in truth.positives], protocol)
    if by_name:
        return measured
    judged, posed = known_loops(result)
    keyframes = [query.stamp_ns for query in answered if query.stamp_ns in posed]
    if result.loops:
        measured["loops"] = _measure_loops(judged, posed, keyframes, _loop_config(result), protocol.loops)
        measured["loops"]["of_unknown_truth"] = len(result.loops) - len(judged)
    measured["trajectory"] = _measure_path(result.queries, protocol)
    return measured


def true_places(
    answered: Sequence[Query], places: Sequence[Place], protocol: Protocol, config: LoopConfig
) -> GroundTruth:
    """The correct places of each query, see `Protocol`. Raises DataError when the truth fits nothing."""
    names = [query.name for query in answered]
    session = [
        Place(query.picture_id if query.picture_id is not None else row, query.name, "", query.stamp_ns, query.truth)
        for row, query in enumerate(answered)
    ]
    candidates = list(places) or session
    if protocol.pairs is not None:
        both_ways = [*protocol.pairs, *((b, a) for a, b in protocol.pairs)] if not places else protocol.pairs
        found = ground_truth.from_pairs(both_ways, names, candidates)
    elif protocol.frame_tolerance is not None:
        numbers = [place.place_id for place in candidates]
        found = ground_truth.from_frame_numbers(names, numbers, protocol.frame_tolerance)
    else:
        poses = {query.name: query.truth for query in answered}
        found = ground_truth.from_poses(poses, candidates, protocol.correct_m)
        if protocol.loops.knows_rotation:
            found = _looking_alike(found, poses, candidates, protocol.correct_deg)
    return found if places else found.before(_not_excluded(answered, config))


def known_loops(result: Result) -> tuple[list[LoopClosure], dict[int, Pose]]:
    """The loops both of whose ends have a true pose, and the true poses by stamp."""
    posed = {query.stamp_ns: query.truth for query in result.queries if query.truth is not None}
    return [loop for loop in result.loops if _is_known(loop, posed)], posed


def answers_of(answered: Sequence[Query]) -> list[Answer]:
    """As `etr_ros.predictions` measures them."""
    return [
        Answer(query.name, query.match.candidates, query.match.stage_ms)
        for query in answered
        if query.match is not None
    ]


def _looking_alike(
    found: GroundTruth, poses: dict[str, Pose | None], places: Sequence[Place], limit_deg: float
) -> GroundTruth:
    """Only those places from which the robot looked the same way as from the query."""
    of = {place.place_id: place.pose for place in places}

    def kept(query: str, ids: frozenset[int]) -> frozenset[int]:
        at = poses[query]
        both = ((i, at, of[i]) for i in ids)
        return frozenset(i for i, a, b in both if a is not None and b is not None and angle_deg(a, b) <= limit_deg)

    positives = {query: kept(query, ids) for query, ids in found.positives.items()}
    return GroundTruth(positives, f"{found.source} and {limit_deg:g} degrees turned")


def _not_excluded(answered: Sequence[Query], config: LoopConfig) -> dict[str, int]:
    """Up to which place id the places of the session were candidates of each query."""
    way_m, last, limits, past = 0.0, None, {}, 0
    ways: list[float] = []
    for query in answered:
        if last is not None and query.odometry is not None:
            way_m += math.dist(last.position_m, query.odometry.position_m)
        last = query.odometry or last
        ways.append(way_m)
        while past < len(ways) and (
            query.stamp_ns - answered[past].stamp_ns >= config.exclusion_s * 1e9
            and (last is None or way_m - ways[past] >= config.exclusion_m)
        ):
            past += 1
        limits[query.name] = past
    return limits


def _measure_places(answered: Sequence[Query], truth: GroundTruth, protocol: Protocol) -> dict[str, Any]:
    measured = predictions.measure(answers_of(answered), truth)
    known = [query for query in answered if query.name in truth.positives]
    measured["states"] = _measure_states(known, truth)
    first = [
        (query.match.candidates[0].probability, query.match.candidates[0].place.place_id in truth.positives[query.name])
        for query in known
        if query.match is not None and query.match.candidates and query.match.candidates[0].probability is not None
    ]
    bins = metrics.reliability([p for p, _ in first], [right for _, right in first])
    measured["calibration_error"] = bins.calibration_error
    measured["reliability"] = [
        {"probability": p, "share_correct": share, "count": count}
        for p, share, count in zip(*(each.tolist() for each in dataclasses.astuple(bins)), strict=True)
    ]
    return measured


def _measure_states(known: Sequence[Query], truth: GroundTruth) -> dict[str, Any]:
    """UNKNOWN is right where the truth knows no correct place, the other states where they name one.

    `localized_precision` is of the best accepted candidate; `ambiguous_precision` asks whether one of the weighted
    places is correct.
    """
    states = [query.match.state for query in known if query.match is not None]
    named = [(query.match.state, _names_a_correct_place(query.match, truth.positives[query.name]))
             for query in known if query.match is not None]  # fmt: skip
    unknown = np.array([state is State.UNKNOWN for state in states], bool)
    absent = np.array([not truth.positives[query.name] for query in known], bool)
    both = int((unknown & absent).sum())
    return {
        **{state.value: states.count(state) for state in State},
        **{
            f"{state.value}_precision": _share(right for each, right in named if each is state)
            for state in (State.LOCALIZED, State.AMBIGUOUS)
        },
        "unknown_precision": both / int(unknown.sum()) if unknown.any() else None,
        "unknown_recall": both / int(absent.sum()) if absent.any() else None,
    }


def _names_a_correct_place(match: PlaceMatch, positives: Collection[int]) -> bool:
    if match.state is State.LOCALIZED:
        return match.best is not None and match.best.place.place_id in positives
    return any(each.weight > 0 and each.place.place_id in positives for each in match.candidates)


def _share(right: Iterable[bool]) -> float | None:
    values = list(right)
    return sum(values) / len(values) if values else None


def _success(known: Sequence[Query], protocol: Protocol) -> list[dict[str, float]]:
    """The share of queries of known pose whose published pose is as near as asked for."""
    off = []
    for query in known:
        found = pose_of_match(query.match, 0.0, 0.0) if query.match is not None else None
        if query.truth is None:
            continue
        if found is None:
            off.append((math.inf, math.inf))
        else:
            turned = angle_deg(found[0], query.truth) if protocol.loops.knows_rotation else 0.0
            off.append((math.dist(found[0].position_m, query.truth.position_m), turned))
    return [
        {"within_m": m, "within_deg": deg, "share": sum(a <= m and b <= deg for a, b in off) / len(off)}
        for m, deg in protocol.success
        if off
    ]


def _measure_loops(
    loops: Sequence[LoopClosure],
    posed: Mapping[int, Pose],
    keyframes: Sequence[int],
    config: LoopConfig,
    protocol: LoopProtocol,
) -> dict[str, Any]:
    judged = loop_metrics.judge(loops, posed, keyframes, config, protocol)
    way = [posed[stamp].position_m for stamp in sorted(posed)]
    km = sum(math.dist(a, b) for a, b in pairwise(way)) / 1000
    hours = (max(posed) - min(posed)) / 3.6e12 if posed else 0.0
    false = len(judged.false_loops)
    values = dataclasses.asdict(dataclasses.replace(judged, false_loops=()))
    values["false_loops"] = [
        {"query": loop.query.name, "match": loop.match.name, "match_session": loop.match.session}
        for loop in judged.false_loops
    ]
    values |= _drift_removed(loops, posed, protocol)
    values |= {"km": km, "false_per_km": false / km if km else None, "false_per_hour": false / hours if hours else None}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _drift_removed(
    loops: Sequence[LoopClosure], posed: Mapping[int, Pose], protocol: LoopProtocol
) -> dict[str, float | None]:
    """Means over accepted metric loops within the session: how many metres the odometry between their ends is off.

    And by how many less the loop's own relative pose is off; negative when loops are worse than the odometry.
    """
    drifts, removed = [], []
    for loop in loops:
        query, match = loop.query.pose, loop.match.pose
        is_of_session = loop.match.session == loop.query.session
        if not (loop.accepted and loop.geometry.is_metric and is_of_session and protocol.knows_rotation):
            continue
        if query is None or match is None:
            continue
        true = between(posed[loop.match.stamp_ns], posed[loop.query.stamp_ns])
        drifts.append(float(np.linalg.norm(error(between(match, query), true)[:3])))
        removed.append(drifts[-1] - float(np.linalg.norm(loop_metrics.pose_error(loop, posed)[:3])))
    if not drifts:
        return {"odometry_off_m": None, "drift_removed_per_loop_m": None}
    return {"odometry_off_m": float(np.mean(drifts)), "drift_removed_per_loop_m": float(np.mean(removed))}


def _is_known(loop: LoopClosure, posed: Mapping[int, Pose]) -> bool:
    of_session = loop.match.session == loop.query.session
    match = posed.get(loop.match.stamp_ns) if of_session else loop.match.pose
    return match is not None and loop.query.stamp_ns in posed


def _measure_path(queries: Sequence[Query], protocol: Protocol) -> dict[str, Any]:
    """Errors of the odometry; empty where it or the truth is missing."""
    both = [
        (query.odometry, query.truth) for query in queries if query.odometry is not None and query.truth is not None
    ]
    if len(both) < 2:
        return {}
    odometry, truth = ([to_matrix(pose) for pose in track if pose is not None] for track in zip(*both, strict=True))
    estimate, true = np.array(odometry), np.array(truth)
    measured = {"odometry_ate_m": trajectory.ate_m(estimate[:, :3, 3], true[:, :3, 3]), "poses": len(both)}
    if protocol.loops.knows_rotation:
        relative = trajectory.rpe(estimate, true)
        if relative.pairs:
            measured |= {"odometry_rpe_m_per_m": relative.position_m, "odometry_rpe_deg_per_m": relative.rotation_deg}
    return measured


def _loop_config(result: Result) -> LoopConfig:
    values = result.manifest.get("config", {})
    if not isinstance(values, Mapping):
        raise DataError("the configuration in the result is no table of values: replay the recording again")
    return Config.from_dict({"loop": values.get("loop", {})}).loop
