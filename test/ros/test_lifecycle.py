"""Transitions, what goes wrong at each of them, and how the process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fake_recognizer import pixels
from robot import FAKE_NODE, NodeProcess, Robot


def test_whole_life(robot: Robot, map_path: Path, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "log", **{"node.map": tmp_path / "nothing", "node.image_topic": "/camera"}) as process:
        assert robot.state() == "unconfigured"
        assert not robot.transition("configure")
        status = robot.status(lambda status: status.level == DiagnosticStatus.ERROR, "an error")
        assert "cannot configure" in status.message
        assert "is not a map" in status.message
        assert "is not a map" in robot.map_info().message
        assert "is not configured" in robot.load_map(map_path).message
        assert robot.state() == "unconfigured"

        assert robot.set(node__map=str(map_path)).successful
        assert robot.transition("configure")
        assert robot.map_info().loaded
        assert robot.camera.get_subscription_count() == 0
        assert "the node is inactive" in robot.answer(robot.localize_async(), "localize").message

        assert robot.transition("activate")
        assert robot.show(robot.image(pixels(place_id=1))).candidates[0].place_id == 1

        waiting = robot.localize_async(60.0)
        robot.spin(0.3)
        assert robot.transition("deactivate")
        assert "deactivated" in robot.answer(waiting, "localize").message
        robot.until(lambda: robot.camera.get_subscription_count() == 0, "the node to unsubscribe")

        assert robot.transition("activate")
        assert robot.show(robot.image(pixels())).queries == 1  # counted anew

        assert robot.transition("deactivate")
        assert robot.transition("cleanup")
        assert not robot.map_info().loaded
        assert not robot.transition("activate")  # no such transition from here
        assert robot.transition("unconfigured_shutdown")
        assert robot.state() == "finalized"

        assert process.stop() == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_inference_and_waiting_ends_cleanly(
    robot: Robot, map_path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    parameters = {"node.map": map_path, "node.image_topic": "/camera", "node.autostart": True}
    with NodeProcess(tmp_path / "log", **parameters) as process:
        robot.show(robot.image(pixels()))
        robot.camera.publish(robot.image(pixels(delay_s=1.0)))
        robot.spin(0.1)
        robot.localize_async(60.0)
        robot.spin(0.2)
        assert process.stop(number) == 0
        assert "Traceback" not in process.output
        assert "exception" not in process.output.lower()


def test_activation_fails_for_a_topic_that_is_none(robot: Robot, map_path: Path, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "log", **{"node.map": map_path, "node.image_topic": "no topic!"}) as process:
        assert robot.transition("configure")
        assert not robot.transition("activate")
        assert robot.state() == "inactive"
        status = robot.status(lambda status: status.level == DiagnosticStatus.ERROR, "an error")
        assert "cannot activate" in status.message
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("retrieval.top_k:=0", "the parameter retrieval.top_k must be 1 to 1000"),
        ("node.map:=5", "the parameter node.map must be text"),
        ("compute.device:=tpu", "compute.device must be one of auto, cpu, cuda, not 'tpu'"),
    ],
)
def test_parameter_that_is_not_allowed_ends_the_start_with_one_line(argument: str, complaint: str) -> None:
    command = [sys.executable, str(FAKE_NODE), "--ros-args", "-p", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: {complaint}\n")


def test_misspelt_parameter_is_told(robot: Robot, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "log", **{"retrieval.topk": 5}) as process:
        assert robot.state() == "unconfigured"
        assert process.stop() == 0
        assert "'retrieval.topk' is no parameter of this node" in process.output
