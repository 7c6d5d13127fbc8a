"""What the demo says of a drive: its loops, and the path that a back end made of them, by the true poses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etr_ros.loop_metrics import Judgement
from etr_ros.trajectory import ate_m
from etr_ros.types import Pose


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


def judge_path(true: Sequence[Pose], odometry: Sequence[Pose], corrected: Sequence[Pose]) -> PathJudgement:
    """The three are poses at the same moments, each in a frame of its own. Raises ValueError as `ate_m` does."""
    truth, before, after = ([pose.position_m for pose in track] for track in (true, odometry, corrected))
    return PathJudgement(ate_m(before, truth), ate_m(after, truth))


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


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
