"""Judges the loops of a drive, and the path that a back end made of them, by the true poses. Needs no ROS."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from etr_ros.config import LoopConfig
from etr_ros.keyframes import angle_deg
from etr_ros.trajectory import ate_m
from etr_ros.transforms import Matrix, between, error
from etr_ros.types import LoopClosure, Pose

FALSE_M, FALSE_DEG = 0.5, 10.0  # a loop whose relative pose is further off is false
APART_M = 5.0  # a loop without scale is false between places further apart than this
REVISIT_M, REVISIT_DEG = 1.0, 30.0  # a keyframe this near to an earlier one is a true revisit


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


@dataclass(frozen=True)
class PathJudgement:
    """Absolute trajectory errors in metres, after alignment (see `etr_ros.trajectory`)."""

    odometry_m: float
    corrected_m: float

    def removed_per_loop_m(self, accepted: int) -> float:
        """By how much each accepted loop reduced the error; NaN without loops."""
        return (self.odometry_m - self.corrected_m) / accepted if accepted else math.nan


@dataclass(frozen=True)
class Images:
    """What became of the pictures; those that are neither answered nor dropped were no keyframes."""

    published: int
    answered: int
    dropped: int


@dataclass(frozen=True)
class Report:
    """All that is said about one drive."""

    name: str
    images: Images
    loops: Judgement
    path: PathJudgement

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as for JSON; None where there is nothing to count."""
        values = dataclasses.asdict(dataclasses.replace(self, loops=dataclasses.replace(self.loops, false_loops=())))
        values["loops"]["false_loops"] = [
            {"query_id": loop.query.place_id, "match_id": loop.match.place_id} for loop in self.loops.false_loops
        ]
        values["path"]["removed_per_loop_m"] = self.path.removed_per_loop_m(self.loops.accepted)
        result: dict[str, Any] = _without_nan(values)
        return result


def judge(
    loops: Sequence[LoopClosure], true_poses: Mapping[int, Pose], keyframes: Sequence[int], config: LoopConfig
) -> Judgement:
    """Judge loops within one drive.

    `true_poses` (of the body) are by stamp in nanoseconds; `keyframes` are the stamps of the pictures that were
    answered. Raises KeyError when the true pose of a keyframe or of an end of an accepted loop is missing.
    """
    accepted = [loop for loop in loops if loop.accepted]
    false = [is_false(loop, true_poses) for loop in accepted]
    right = {loop.query.stamp_ns for loop, wrong in zip(accepted, false, strict=True) if not wrong}
    revisits = true_revisits(true_poses, keyframes, config)
    metric = [(loop, wrong) for loop, wrong in zip(accepted, false, strict=True) if loop.geometry.is_metric]
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


def judge_path(true: Sequence[Pose], odometry: Sequence[Pose], corrected: Sequence[Pose]) -> PathJudgement:
    """The three are poses at the same moments, each in a frame of its own. Raises ValueError as `ate_m` does."""
    truth, before, after = ([pose.position_m for pose in track] for track in (true, odometry, corrected))
    return PathJudgement(ate_m(before, truth), ate_m(after, truth))


def is_false(loop: LoopClosure, true_poses: Mapping[int, Pose]) -> bool:
    """Whether the rotation, or the position of a metric loop, is off by more than FALSE_DEG or FALSE_M.

    Without scale, the places must not be further apart than APART_M; without a pose that is all there is to judge.
    """
    found, true = pose_error(loop, true_poses), _true(loop, true_poses)
    if loop.geometry.is_metric:
        is_off = _off_m(found) > FALSE_M
    else:
        is_off = math.dist(true.position_m, (0.0, 0.0, 0.0)) > APART_M
    return is_off or (loop.geometry.match_t_query is not None and _off_deg(found) > FALSE_DEG)


def pose_error(loop: LoopClosure, true_poses: Mapping[int, Pose]) -> Matrix:
    """(6,) metres and radians by which the relative pose is off; NaN for a loop without one."""
    relative = loop.geometry.match_t_query
    return np.full(6, np.nan) if relative is None else error(relative, _true(loop, true_poses))


def true_revisits(true_poses: Mapping[int, Pose], keyframes: Sequence[int], config: LoopConfig) -> set[int]:
    """The stamps of keyframes that are near (REVISIT_M, REVISIT_DEG) to an earlier one that is no longer excluded."""
    stamps = sorted(keyframes)
    poses = [true_poses[stamp] for stamp in stamps]
    way_m = np.cumsum([0.0, *(math.dist(a.position_m, b.position_m) for a, b in pairwise(poses))])

    def is_revisit(i: int) -> bool:
        return any(
            math.dist(poses[i].position_m, poses[j].position_m) <= REVISIT_M
            and angle_deg(poses[i], poses[j]) <= REVISIT_DEG
            and stamps[i] - stamps[j] >= config.exclusion_s * 1e9
            and way_m[i] - way_m[j] >= config.exclusion_m
            for j in range(i)
        )

    return {stamp for i, stamp in enumerate(stamps) if is_revisit(i)}


def table(reports: Sequence[Report]) -> str:
    """A Markdown table, a row per drive."""
    columns = (
        "drive",
        "images answered",
        "dropped",
        "true revisits",
        "recall",
        "loops accepted",
        "false",
        "median error of loops",
        "NEES (6)",
        "ATE odometry",
        "ATE corrected",
        "drift removed per loop",
    )
    rows = [columns, ("---",) * len(columns), *(_row(report) for report in reports)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: Report) -> tuple[str, ...]:
    images, loops, path = report.images, report.loops, report.path
    return (
        report.name,
        f"{images.answered} of {images.published}",
        f"{images.dropped}",
        f"{loops.revisits}",
        f"{loops.recall:.2f}",
        f"{loops.accepted}",
        f"{len(loops.false_loops)}",
        f"{100 * loops.median_m:.1f} cm, {loops.median_deg:.2f} deg",
        f"{loops.nees:.1f}",
        f"{path.odometry_m:.2f} m",
        f"{path.corrected_m:.2f} m",
        f"{100 * path.removed_per_loop_m(loops.accepted):.1f} cm",
    )


def _true(loop: LoopClosure, true_poses: Mapping[int, Pose]) -> Pose:
    return between(true_poses[loop.match.stamp_ns], true_poses[loop.query.stamp_ns])


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


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
