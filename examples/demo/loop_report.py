"""Judges the loops of a drive, and what a back end made of them, by the true poses."""

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
from etr_ros.transforms import between, error
from etr_ros.types import LoopClosure, Pose

FALSE_M, FALSE_DEG = 0.5, 10.0  # an accepted loop further off is false
REVISIT_M, REVISIT_DEG = 1.0, 30.0  # a keyframe this near to an earlier one is a true revisit


@dataclass(frozen=True)
class Judgement:
    """Medians and NEES (6 degrees of freedom) are those of right metric loops; ATE is the RMSE after alignment."""

    keyframes: int
    revisits: int
    accepted: int
    false: int
    recall: float  # share of the true revisits that have a right accepted loop
    median_m: float
    median_deg: float
    nees: float
    ate_odometry_m: float
    ate_corrected_m: float
    drift_removed_per_loop_m: float
    false_loops: tuple[LoopClosure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as for JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        del values["false_loops"]
        return values


def judge(
    loops: Sequence[LoopClosure],
    true: Mapping[int, Pose],
    keyframes: Sequence[int],
    odometry: Mapping[int, Pose],
    corrected: Mapping[int, Pose],
    config: LoopConfig,
) -> Judgement:
    """Poses are by stamp in nanoseconds; `keyframes` are the stamps at which the recogniser answered."""
    accepted = [loop for loop in loops if loop.accepted]
    errors = [_error(loop, true) for loop in accepted]
    false = tuple(loop for loop, found in zip(accepted, errors, strict=True) if is_false(loop, found))
    right = {loop.query.stamp_ns for loop in accepted} - {loop.query.stamp_ns for loop in false}
    revisits = true_revisits(true, keyframes, odometry, config)
    good = [
        (found, loop.geometry.covariance)
        for loop, found in zip(accepted, errors, strict=True)
        if loop.geometry.is_metric and loop.geometry.covariance is not None and not is_false(loop, found)
    ]
    stamps = [ns for ns in true if ns in odometry and ns in corrected]
    truth, before, after = (np.array([track[ns].position_m for ns in stamps]) for track in (true, odometry, corrected))
    ate_before, ate_after = ate_m(before, truth), ate_m(after, truth)
    return Judgement(
        keyframes=len(keyframes),
        revisits=len(revisits),
        accepted=len(accepted),
        false=len(false),
        recall=len(revisits & right) / len(revisits) if revisits else math.nan,
        median_m=_median([float(np.linalg.norm(found[:3])) for found, _ in good]),
        median_deg=_median([math.degrees(float(np.linalg.norm(found[3:]))) for found, _ in good]),
        nees=float(np.mean([found @ np.linalg.solve(cov, found) for found, cov in good])) if good else math.nan,
        ate_odometry_m=ate_before,
        ate_corrected_m=ate_after,
        drift_removed_per_loop_m=(ate_before - ate_after) / len(accepted) if accepted else math.nan,
        false_loops=false,
    )


def is_false(loop: LoopClosure, found: np.ndarray) -> bool:
    """Whether the relative pose is off by more than FALSE_M (metric loops only) or FALSE_DEG."""
    off_m, off_deg = float(np.linalg.norm(found[:3])), math.degrees(float(np.linalg.norm(found[3:])))
    return (loop.geometry.is_metric and off_m > FALSE_M) or off_deg > FALSE_DEG


def true_revisits(
    true: Mapping[int, Pose], keyframes: Sequence[int], odometry: Mapping[int, Pose], config: LoopConfig
) -> set[int]:
    """The stamps of keyframes that an earlier one, no longer excluded, is near to."""
    stamps = sorted(keyframes)
    steps = [math.dist(odometry[a].position_m, odometry[b].position_m) for a, b in pairwise(stamps)]
    way = np.concatenate([[0.0], np.cumsum(steps)])
    revisits = set()
    for i, stamp in enumerate(stamps):
        for j in range(i):
            is_old = stamp - stamps[j] >= config.exclusion_s * 1e9 and way[i] - way[j] >= config.exclusion_m
            here, there = true[stamp], true[stamps[j]]
            is_near = math.dist(here.position_m, there.position_m) <= REVISIT_M
            if is_old and is_near and angle_deg(here, there) <= REVISIT_DEG:
                revisits.add(stamp)
                break
    return revisits


def table(judgements: Mapping[str, Judgement]) -> str:
    """A Markdown table, a row per drive."""
    columns = ("drive", "keyframes", "true revisits", "accepted", "false", "recall", "median error", "NEES")
    columns += ("ATE odometry", "ATE corrected", "ratio", "drift removed per loop")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, j in judgements.items():
        lines.append(
            f"| {name} | {j.keyframes} | {j.revisits} | {j.accepted} | {j.false} | {j.recall:.2f} | "
            f"{100 * j.median_m:.1f} cm, {j.median_deg:.2f} deg | {j.nees:.1f} | {j.ate_odometry_m:.2f} m | "
            f"{j.ate_corrected_m:.3f} m | {j.ate_corrected_m / j.ate_odometry_m:.3f} | "
            f"{100 * j.drift_removed_per_loop_m:.1f} cm |"
        )
    return "\n".join(lines)


def _error(loop: LoopClosure, true: Mapping[int, Pose]) -> np.ndarray:
    """(6,) of the relative pose; a loop without one counts as right in rotation."""
    if loop.geometry.match_t_query is None:
        return np.zeros(6)
    return error(loop.geometry.match_t_query, between(true[loop.match.stamp_ns], true[loop.query.stamp_ns]))


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan
