"""The course of a training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

LOSSES = {"train_loss": "training", "validation_loss": "validation"}
MEASURES = {
    "recall_at_1_etr": "Recall@1",
    "recall_at_1_retrieval": "Recall@1 of retrieval",
    "average_precision": "average precision",
    "recall_at_full_precision": "recall at 100 % precision",
}


def write_curves(path: Path, history: Sequence[dict[str, float]], title: str = "") -> None:
    """Loss, and the measures on validation places, over the steps of `history`; one entry for each validation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, measures = figure.subplots(1, 2)
    steps = [entry["step"] for entry in history]
    for axes, named, label in ((loss, LOSSES, "loss"), (measures, MEASURES, "on validation places")):
        for name, shown in named.items():
            axes.plot(steps, [entry[name] for entry in history], label=shown, marker=".")
        axes.set_xlabel("step")
        axes.set_title(label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100, metadata={"Software": None})
