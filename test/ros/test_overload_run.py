"""A node process that cannot keep its deadline: it does less step by step, says so, and recovers."""

from __future__ import annotations

from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from fake_recognizer import pixels
from robot import NodeProcess, Robot

from etr_ros.overload import CALM_IN_A_ROW, STRAINED_IN_A_ROW

DEADLINE_MS, SLOW_S = 700.0, 0.75
PLACES = 5


def test_an_overloaded_node_does_less_says_so_and_recovers(robot: Robot, map_path: Path, tmp_path: Path) -> None:
    parameters = {"node.map": map_path, "node.image_topic": "/camera", "node.autostart": True}
    with NodeProcess(tmp_path / "log", **parameters) as process:
        for _ in range(STRAINED_IN_A_ROW + 1):
            robot.show(robot.image(pixels(delay_s=SLOW_S)))
        assert robot.value("answers get") == "all"  # there is no deadline to miss

        assert robot.set(node__deadline_ms=DEADLINE_MS).successful
        for _ in range(STRAINED_IN_A_ROW):
            match = robot.show(robot.image(pixels(delay_s=SLOW_S)))
            assert len(match.candidates) == PLACES
        status = robot.status(lambda status: status.level == DiagnosticStatus.WARN, "a warning")
        assert status.message.startswith("overloaded: answers get half of the candidates")
        match = robot.show(robot.image(pixels(delay_s=SLOW_S)))
        assert len(match.candidates) == PLACES // 2
        assert match.age_ms > 0
        assert int(robot.value("answers after the deadline")) > STRAINED_IN_A_ROW

        for _ in range(10 * CALM_IN_A_ROW):  # a busy machine may be late again in between
            match = robot.show(robot.image(pixels()))
            if len(match.candidates) == PLACES:
                break
        assert len(match.candidates) == PLACES
        assert robot.value("answers get") == "all"
        assert process.stop() == 0
        assert "Traceback" not in process.output
