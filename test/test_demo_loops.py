"""What the demo says of a drive, from hand-made ones whose answer is known. And that its processes end."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from etr_ros.config import LoopConfig
from etr_ros.errors import EtrError
from etr_ros.loop_metrics import Judgement, judge
from etr_ros.transforms import compose
from etr_ros.types import Geometry, LoopClosure, Place, Pose
from examples.demo.loop_report import Images, Report, judge_path, table
from examples.demo.node_process import running
from lap_drive import planar

T0 = 1_700_000_000 * 10**9
TRUE = {T0 + second * 10**9: planar(second, 0.0, 0.0) for second in range(60)}


def judged(*loops: LoopClosure) -> Judgement:
    return judge(loops, TRUE, list(TRUE), LoopConfig())


def false_loop(query: int, match: int) -> LoopClosure:
    """Said to be where it is not."""
    stamps = list(TRUE)
    geometry = Geometry(80, 100, Pose((0.0, 0.0, 0.0)), np.eye(6), is_metric=True)
    places = (Place(row, "", "today", stamps[row]) for row in (query, match))
    return LoopClosure(*places, geometry, 0.99, 3, accepted=True)


def test_path_is_judged_before_and_after() -> None:
    true = list(TRUE.values())
    bent = [Pose((x, y, 0.5 * (-1) ** row)) for row, (x, y, _) in enumerate(pose.position_m for pose in true)]
    moved = [compose(planar(3.0, -2.0, 1.0), pose) for pose in true]
    result = judge_path(true, bent, moved)
    assert result.odometry_m == pytest.approx(0.5, rel=0.01)
    assert result.corrected_m == pytest.approx(0.0, abs=1e-9)
    assert result.removed_per_loop_m(10) == pytest.approx(0.05, rel=0.01)
    assert math.isnan(result.removed_per_loop_m(0))


def test_a_drive_without_loops_can_be_reported() -> None:
    true = list(TRUE.values())
    report = Report("E1M1", Images(100, 80, 3), judged(), judge_path(true, true, true))
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["loops"]["nees"] is None and values["loops"]["accepted"] == 0 and values["images"]["dropped"] == 3
    header, line, row = table([report]).splitlines()
    assert header.count("|") == line.count("|") == row.count("|") and "E1M1" in row


def test_false_loops_are_named_in_the_report() -> None:
    true = list(TRUE.values())
    wrong = judged(false_loop(50, 21))
    report = Report("E1M1", Images(80, 80, 0), wrong, judge_path(true, true, true))
    assert report.to_dict()["loops"]["false_loops"] == [{"query_id": 50, "match_id": 21}]


def test_a_node_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    dies = [sys.executable, "-c", "print('why', flush=True); raise SystemExit(3)"]
    with pytest.raises(EtrError, match=r"code 3, see .*node\.log"):
        watch(dies, log)
    assert log.read_text() == "why\n"


def test_a_node_is_ended_when_something_else_fails(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    waits = "import time\ntry:\n print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n print('down')"
    with pytest.raises(ZeroDivisionError):
        fail_when_up([sys.executable, "-c", waits], log)
    assert log.read_text() == "up\ndown\n"


def watch(command: list[str], log: Path) -> None:
    with running(command, {}, log) as node:
        while True:
            node.require_alive()
            time.sleep(0.01)


def fail_when_up(command: list[str], log: Path) -> None:
    with running(command, {"a.b": "1"}, log):
        while not log.read_text():
            time.sleep(0.01)
        raise ZeroDivisionError
