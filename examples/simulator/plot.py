"""Pictures of what was recognised: a plan of the level with the matches, and a sheet of picture pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from etr_ros.errors import DataError
from etr_ros.types import Frame
from examples.simulator.level import Level
from examples.simulator.plan import Round

RIGHT, WRONG = "#2ca02c", "#d62728"
RIGHT_BGR, WRONG_BGR, UNJUDGED_BGR = (44, 160, 44), (40, 39, 214), (110, 110, 110)
TILE_PX = 320, 240
BORDER_PX, CAPTION_PX = 6, 28
VIEW_MARGIN_M = 8.0


@dataclass(frozen=True, eq=False)
class JudgedMatch:
    """A query, the place that was recognised, and whether that is true; None when nobody knows."""

    query: Frame
    place: Frame
    is_right: bool | None
    caption: str


def plot_map(path: Path, level: Level, survey: Round, second: Round, matches: Sequence[JudgedMatch]) -> None:
    """Save a plan of the level, both rounds, and a line from each query to its place, as a PNG or PDF."""
    figure = Figure(figsize=(10, 10), layout="constrained")
    axes = figure.subplots()
    axes.add_collection(LineCollection(list(level.walls().reshape(-1, 2, 2)), colors="0.6", linewidths=0.8))
    axes.plot(*survey.points.T, color="#1f77b4", linewidth=2, label="survey round")
    axes.plot(*second.points.T, color="#ff7f0e", linewidth=1, label="second round")
    ends = np.array([_ends(match) for match in matches]).reshape(-1, 2, 2)
    colours = [RIGHT if match.is_right else WRONG for match in matches]
    axes.add_collection(LineCollection(list(ends), colors=colours, linewidths=1.2, zorder=3))
    axes.scatter(ends[:, 0, 0], ends[:, 0, 1], c=colours, s=14, zorder=4)
    low, high = (bound(np.concatenate([survey.points, second.points]), axis=0) for bound in (np.min, np.max))
    axes.set(
        aspect="equal",
        xlim=(low[0] - VIEW_MARGIN_M, high[0] + VIEW_MARGIN_M),
        ylim=(low[1] - VIEW_MARGIN_M, high[1] + VIEW_MARGIN_M),
        xlabel="x in metres",
        ylabel="y in metres",
        title=f"{level.name}: {sum(bool(match.is_right) for match in matches)} of {len(matches)} matches are right",
    )
    for colour, name in ((RIGHT, "right match"), (WRONG, "wrong match")):
        axes.plot([], [], color=colour, marker="o", label=name)
    axes.legend(loc="best")
    figure.savefig(path, dpi=120)


def plot_sheet(path: Path, matches: Sequence[JudgedMatch], columns: int = 3) -> None:
    """Save the matches as picture pairs (query left, place right), captioned; green right, red wrong, grey unknown."""
    tiles = [_tile(match) for match in matches]
    if not tiles:
        raise DataError("there are no matches to show on a picture sheet")
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise DataError(f"cannot write the picture sheet {path}")


def _ends(match: JudgedMatch) -> list[tuple[float, float]]:
    if match.query.pose is None or match.place.pose is None:
        raise DataError("a match without poses cannot be drawn on a plan")
    return [match.query.pose.position_m[:2], match.place.pose.position_m[:2]]


def _tile(match: JudgedMatch) -> NDArray[np.uint8]:
    images = [match.query.image, match.place.image]
    pair = np.hstack([cv2.resize(image, TILE_PX, interpolation=cv2.INTER_AREA) for image in images])
    colour = UNJUDGED_BGR if match.is_right is None else RIGHT_BGR if match.is_right else WRONG_BGR
    framed = cv2.copyMakeBorder(pair, CAPTION_PX, BORDER_PX, BORDER_PX, BORDER_PX, cv2.BORDER_CONSTANT, value=colour)
    white, at = (255, 255, 255), (BORDER_PX, CAPTION_PX - 8)
    cv2.putText(framed, match.caption, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, white, 1, cv2.LINE_AA)
    return framed.astype(np.uint8, copy=False)
