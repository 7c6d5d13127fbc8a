"""One picture of runs: the plan with its loops, the position error over the distance, and what each loop repaired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from etr_ros.trajectory import align, ate_m, position_errors_m
from etr_ros.transforms import Matrix

# Colours that colour-blind people can tell apart (Okabe and Ito); widths and dashes differ, too
TRUTH, ODOMETRY, CORRECTED = "black", "#E69F00", "#0072B2"
RIGHT, WRONG, REJECTED = "#009E73", "#D55E00", "0.6"


@dataclass(frozen=True)
class DrawnLoop:
    """Rows of the run at its two ends, whether it was accepted, and whether it is true."""

    match: int
    query: int
    is_accepted: bool
    is_right: bool


@dataclass(frozen=True, eq=False)
class Run:
    """Poses (N, 4, 4) of the same moments, each trajectory in a frame of its own.

    `walls` (W, 4) are x, y, x, y in the frame of the truth.
    """

    name: str
    truth: Matrix
    odometry: Matrix
    corrected: Matrix
    loops: Sequence[DrawnLoop]
    walls: Matrix | None = None

    @property
    def distance_m(self) -> Matrix:
        """(N,) metres driven until each pose."""
        steps = np.linalg.norm(np.diff(self.truth[:, :3, 3], axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])


def plot_runs(path: Path, runs: Sequence[Run]) -> None:
    """Save one picture of all runs as PNG or PDF, a row each. Positions and errors are after the alignment of ATE."""
    figure = Figure(figsize=(13, 1 + 6.5 * len(runs)), layout="constrained")
    rows = np.atleast_1d(figure.subfigures(len(runs), 1))
    for row, run in zip(rows, runs, strict=True):
        _draw_run(row, run)
    figure.savefig(path, dpi=120)


def _draw_run(figure: Any, run: Run) -> None:
    grid = figure.add_gridspec(2, 2, width_ratios=[1.35, 1])
    plan = figure.add_subplot(grid[:, 0])
    _draw_plan(plan, run)
    plan.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)
    _draw_errors(figure.add_subplot(grid[0, 1]), run)
    _draw_repairs(figure.add_subplot(grid[1, 1]), run)
    before, after = (ate_m(each[:, :3, 3], run.truth[:, :3, 3]) for each in (run.odometry, run.corrected))
    wrong = sum(loop.is_accepted and not loop.is_right for loop in run.loops)
    figure.suptitle(
        f"{run.name}: {run.distance_m[-1]:.0f} m driven. Absolute trajectory error {before:.2f} m by odometry, "
        f"{after:.2f} m corrected; {wrong or 'no'} false loop{'s' if wrong > 1 else ''}",
        fontsize=13,
    )


def drift_between_ends_m(trajectory: Matrix, truth: Matrix, loops: Sequence[DrawnLoop]) -> Matrix:
    """(L,) how far the query is from where it truly is, as seen from the match, in metres."""
    match, query = (np.array([getattr(loop, end) for loop in loops], int) for end in ("match", "query"))
    seen, true = (np.linalg.inv(poses[match]) @ poses[query] for poses in (trajectory, truth))
    return np.asarray(np.linalg.norm(seen[:, :3, 3] - true[:, :3, 3], axis=1))


def _draw_plan(axes: Axes, run: Run) -> None:
    truth = run.truth[:, :2, 3]
    if run.walls is not None:
        axes.add_collection(LineCollection(list(run.walls.reshape(-1, 2, 2)), colors="0.85", linewidths=0.8, zorder=0))
    axes.plot(*_aligned(run.odometry, run).T, color=ODOMETRY, linewidth=1.4, label="odometry", zorder=2)
    axes.plot(*_aligned(run.corrected, run).T, color=CORRECTED, linewidth=2.2, label="corrected", zorder=3)
    axes.plot(*truth.T, color=TRUTH, linewidth=0.9, linestyle=(0, (5, 3)), label="truth", zorder=4)
    for label, colour, width, dashes, marker, size, order in (
        ("rejected", REJECTED, 0.8, ":", "", 0, 1),
        ("accepted, right", RIGHT, 1.6, "-", "o", 4, 5),
        ("accepted, wrong", WRONG, 2.4, "-", "X", 9, 6),
    ):
        ends = [truth[[loop.match, loop.query]] for loop in run.loops if _label(loop) == label]
        lines = LineCollection(ends, colors=colour, linewidths=width, linestyles=dashes, zorder=order)
        axes.add_collection(lines, autolim=False)
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size, "zorder": order}
        middles = np.array([segment.mean(axis=0) for segment in ends]).reshape(-1, 2)
        axes.plot(*middles.T, linestyle="", **style)
        axes.plot([], [], linewidth=width, linestyle=dashes, label=f"{len(ends)} loops {label}", **style)
    axes.set(
        xlabel="x in metres",
        ylabel="y in metres",
        title="Plan: loops join the true positions of two pictures of one place",
    )
    axes.set_aspect("equal", adjustable="datalim")


def _draw_errors(axes: Axes, run: Run) -> None:
    for poses, colour, width in ((run.odometry, ODOMETRY, 1.4), (run.corrected, CORRECTED, 2.2)):
        errors = position_errors_m(poses[:, :3, 3], run.truth[:, :3, 3])
        axes.plot(run.distance_m, errors, color=colour, linewidth=width)
    axes.set(
        xlabel="distance driven in metres",
        ylabel="position error in metres",
        title="How far the path is from the truth, before and after",
    )
    axes.set_xlim(0, run.distance_m[-1])
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9")


def _draw_repairs(axes: Axes, run: Run) -> None:
    loops = [loop for loop in run.loops if loop.is_accepted and loop.is_right]
    before, after = (drift_between_ends_m(each, run.truth, loops) for each in (run.odometry, run.corrected))
    at = run.distance_m[[loop.query for loop in loops]]
    axes.vlines(at, after, before, color="0.75", linewidth=1, zorder=1)
    axes.scatter(at, before, color=ODOMETRY, marker="v", s=22, zorder=2)
    axes.scatter(at, after, color=CORRECTED, marker="o", s=18, zorder=3)
    removed = f"median {np.median(before - after):.2f} m" if loops else "there was no loop"
    axes.set(
        xlabel="distance driven at the query in metres",
        ylabel="error between its ends in metres",
        title=f"Drift that each right loop removed: {removed}",
    )
    axes.set_xlim(0, run.distance_m[-1])
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9")


def _label(loop: DrawnLoop) -> str:
    if not loop.is_accepted:
        return "rejected"
    return "accepted, right" if loop.is_right else "accepted, wrong"


def _aligned(poses: Matrix, run: Run) -> Matrix:
    """(N, 2) the positions, laid on the true ones as ATE does."""
    rotation, translation = align(poses[:, :3, 3], run.truth[:, :3, 3])
    return np.asarray(poses[:, :3, 3] @ rotation.T + translation)[:, :2]
