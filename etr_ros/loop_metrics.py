"""What the true poses say of the loops of a drive: which are false, which revisits were found, how honest they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from etr_ros.config import LoopConfig
from etr_ros.keyframes import angle_deg
from etr_ros.transforms import Matrix, between, error
from etr_ros.types import LoopClosure, Pose


@dataclass(frozen=True)
class LoopProtocol:
    """When a loop is false, and when a keyframe revisits a place.

    Where the truth knows positions only (GPS), a loop is false when its places are further apart than `apart_m`.
    """

    false_m: float = 0.5  # a loop whose relative pose is further off is false
    false_deg: float = 10.0
    apart_m: float = 5.0  # a loop without scale is false between places further apart than this
    revisit_m: float = 1.0  # a keyframe this near to an earlier one is a true revisit
    revisit_deg: float = 30.0
    knows_rotation: bool = True


BY_POSES = LoopProtocol()


@dataclass(frozen=True)
class Judgement:
    """What the true poses say of a drive's loops; NaN where there is nothing to count.

    `median_m`, `median_deg` and `nees` (6 degrees of freedom, so 6 for an honest covariance) are those of all accepted
    metric loops, false ones among them; `nees_right` leaves these out.
    """

    keyframes: int
    revisits: int
    accepted: int
    recall: float  # share of the true revisits that have an accepted loop that is not false
    median_m: float
    median_deg: float
    nees: float
    nees_right: float
    false_loops: tuple[LoopClosure, ...]


def judge(
    loops: Sequence[LoopClosure],
    true_poses: Mapping[int, Pose],
    keyframes: Sequence[int],
    config: LoopConfig,
    protocol: LoopProtocol = BY_POSES,
) -> Judgement:
    """Judge the loops of one drive.

    `true_poses` (of the body) are by stamp in nanoseconds; `keyframes` are the stamps of the pictures that were
    answered. Loops with a place of another session are judged by that place's pose, which must be in the frame of the
    true ones. Raises KeyError when the true pose of a keyframe or of an end of an accepted loop is missing.
    """
    accepted = [loop for loop in loops if loop.accepted]
    false = [is_false(loop, true_poses, protocol) for loop in accepted]
    right = {loop.query.stamp_ns for loop, wrong in zip(accepted, false, strict=True) if not wrong}
    revisits = true_revisits(true_poses, keyframes, config, protocol)
    judged = zip(accepted, false, strict=True) if protocol.knows_rotation else ()
    metric = [(loop, wrong) for loop, wrong in judged if loop.geometry.is_metric]
    errors = [pose_error(loop, true_poses) for loop, _ in metric]
    nees = [_nees(found, loop) for found, (loop, _) in zip(errors, metric, strict=True)]
    return Judgement(
        keyframes=len(keyframes),
        revisits=len(revisits),
        accepted=len(accepted),
        recall=len(revisits & right) / len(revisits) if revisits else math.nan,
        median_m=float(np.median([_off_m(found) for found in errors])) if errors else math.nan,
        median_deg=float(np.median([_off_deg(found) for found in errors])) if errors else math.nan,
        nees=_mean(nees),
        nees_right=_mean([value for value, (_, wrong) in zip(nees, metric, strict=True) if not wrong]),
        false_loops=tuple(loop for loop, wrong in zip(accepted, false, strict=True) if wrong),
    )


def is_false(loop: LoopClosure, true_poses: Mapping[int, Pose], protocol: LoopProtocol = BY_POSES) -> bool:
    """Whether the rotation, or the position of a metric loop, is off by more than `false_deg` or `false_m`.

    Without scale, the places must not be further apart than `apart_m`; without a pose that is all there is to judge.
    """
    found, true = pose_error(loop, true_poses), _true(loop, true_poses)
    if not protocol.knows_rotation:
        return math.dist(true.position_m, (0.0, 0.0, 0.0)) > protocol.apart_m
    if loop.geometry.is_metric:
        is_off = _off_m(found) > protocol.false_m
    else:
        is_off = math.dist(true.position_m, (0.0, 0.0, 0.0)) > protocol.apart_m
    return is_off or (loop.geometry.match_t_query is not None and _off_deg(found) > protocol.false_deg)


def pose_error(loop: LoopClosure, true_poses: Mapping[int, Pose]) -> Matrix:
    """(6,) metres and radians by which the relative pose is off; NaN for a loop without one."""
    relative = loop.geometry.match_t_query
    return np.full(6, np.nan) if relative is None else error(relative, _true(loop, true_poses))


def true_revisits(
    true_poses: Mapping[int, Pose],
    keyframes: Sequence[int],
    config: LoopConfig,
    protocol: LoopProtocol = BY_POSES,
) -> set[int]:
    """The stamps of keyframes that stand by `protocol` where an earlier one did that is no longer excluded."""
    stamps = sorted(keyframes)
    poses = [true_poses[stamp] for stamp in stamps]
    positions = np.array([pose.position_m for pose in poses]).reshape(-1, 3)
    way_m = np.cumsum([0.0, *(math.dist(a.position_m, b.position_m) for a, b in pairwise(poses))])

    def is_revisit(i: int) -> bool:
        near = np.flatnonzero(np.linalg.norm(positions[:i] - positions[i], axis=1) <= protocol.revisit_m)
        return any(
            stamps[i] - stamps[j] >= config.exclusion_s * 1e9
            and way_m[i] - way_m[j] >= config.exclusion_m
            and not (protocol.knows_rotation and angle_deg(poses[i], poses[j]) > protocol.revisit_deg)
            for j in near
        )

    return {stamp for i, stamp in enumerate(stamps) if is_revisit(i)}


def _true(loop: LoopClosure, true_poses: Mapping[int, Pose]) -> Pose:
    query, match = loop.query, loop.match
    at_match = true_poses[match.stamp_ns] if match.session == query.session else match.pose
    if at_match is None:
        raise KeyError(match.name)
    return between(at_match, true_poses[query.stamp_ns])


def _off_m(found: Matrix) -> float:
    return float(np.linalg.norm(found[:3]))


def _off_deg(found: Matrix) -> float:
    return math.degrees(float(np.linalg.norm(found[3:])))


def _nees(found: Matrix, loop: LoopClosure) -> float:
    """Normalized estimation error squared: its mean is 6 when the covariance says how large errors are."""
    covariance = loop.geometry.covariance
    return math.nan if covariance is None else float(found @ np.linalg.solve(covariance, found))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
