"""The picture of a back end's run: what it says of each loop, and that it can be drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from examples.back_end.picture import DrawnLoop, Run, drift_between_ends_m, plot_runs
from lap_drive import lap_drive

LOOPS = [DrawnLoop(0, 20, True, True), DrawnLoop(5, 40, True, False), DrawnLoop(7, 30, False, False)]


def test_drift_of_a_loop_does_not_depend_on_where_the_trajectory_lies() -> None:
    truth, odometry = lap_drive(seed=1, laps=1).matrices
    moved = np.linalg.inv(odometry[9]) @ odometry
    assert drift_between_ends_m(moved, truth, LOOPS) == pytest.approx(drift_between_ends_m(odometry, truth, LOOPS))
    assert drift_between_ends_m(truth, truth, LOOPS) == pytest.approx([0, 0, 0])
    shifted = truth.copy()
    shifted[20, :3, 3] += [0.0, 3.0, 4.0]
    assert drift_between_ends_m(shifted, truth, LOOPS) == pytest.approx([5, 0, 0])


@pytest.mark.parametrize("loops", [LOOPS, []])
def test_a_run_can_be_drawn(tmp_path: Path, loops: list[DrawnLoop]) -> None:
    truth, odometry = lap_drive(seed=1, laps=1).matrices
    walls = np.array([[-1.0, -1, 11, -1], [11, -1, 11, 11]])
    run = Run("a lap", truth, odometry, truth, loops, walls)
    heights = []
    for runs in ([run], [run, run]):
        plot_runs(tmp_path / "run.png", runs)
        image = cv2.imread(str(tmp_path / "run.png"))
        assert image is not None and image.std() > 10
        heights.append(image.shape[0])
    assert heights[1] > 1.5 * heights[0]
