"""How often matches of each probability are right, before and after calibration, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etr_ros.calibration import Calibration
from etr_ros.errors import DataError


def write_picture(path: Path, calibration: Calibration) -> None:
    """Two reliability diagrams side by side; the area of a dot grows with its samples.

    Raises DataError when the file cannot be written, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DataError("a picture needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
        _draw(axes, name, calibration.facts[name])
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _draw(axes: Any, name: str, facts: dict[str, Any]) -> None:
    bins, error = facts["bins"], facts["calibration_error"]
    most = max((count for _, _, count in bins), default=1)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as said")
    sizes = [30 + 300 * count / most for *_, count in bins]
    axes.scatter([p for p, *_ in bins], [share for _, share, _ in bins], s=sizes, color="#0072b2", alpha=0.8)
    title = name if error is None else f"{name}: expected calibration error {error:.3f}"
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability said", ylabel="share right", title=title)
    axes.set_aspect("equal")
