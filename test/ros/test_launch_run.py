"""The launch file under the real `launch`, down to the answer to an image."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from fake_recognizer import pixels
from rcl_interfaces.srv import GetParameters
from robot import FAKE_NODE, Robot

pytest.importorskip("launch_ros", reason="launch_ros comes with ROS 2 and is not among its Python wheels")

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "etr.launch.py"
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(text.split(":=", 1)) for text in sys.argv[2:]]
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


class Launch:
    """`ros2 launch` with these arguments; leaving the context ends it as Ctrl-C in a terminal does."""

    def __init__(self, prefix: Path, *arguments: str) -> None:
        path = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(LAUNCH_FILE), *arguments],
            env=os.environ | {"AMENT_PREFIX_PATH": path, "ROS_LOG_DIR": str(prefix / "log")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._signal(signal.SIGINT)
            self.output = self.process.communicate(timeout=60)[0]
        finally:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed package `etr_ros` whose node needs no networks."""
    prefix = tmp_path_factory.mktemp("prefix")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "etr_ros").touch()
    node = prefix / "lib" / "etr_ros" / "etr_node"
    node.parent.mkdir(parents=True)
    node.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_NODE} "$@"\n')
    node.chmod(0o755)
    return prefix


@pytest.fixture
def namespaced() -> Iterator[Robot]:
    rclpy.init()
    robot = Robot("/robot1/etr")
    yield robot
    robot.close()
    rclpy.shutdown()


def test_every_argument_is_described() -> None:
    spec = importlib.util.spec_from_file_location("etr_launch", LAUNCH_FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description: LaunchDescription = module.generate_launch_description()
    arguments: list[DeclareLaunchArgument] = description.get_launch_arguments()
    names = {"map", "image", "compressed", "namespace", "params_file", "device", "autostart", "log_level"}
    names |= {"loop", "camera_info", "depth", "odom", "camera_mount", "base_frame", "back_ends"}
    assert {argument.name for argument in arguments} == names
    assert all(len(argument.description) > 10 for argument in arguments)


def test_starts_by_itself_and_answers(namespaced: Robot, prefix: Path, map_path: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        "/**: {ros__parameters: {retrieval: {top_k: 3}, node: {image_topic: /elsewhere, min_period_s: 0}}}"
    )
    arguments = (f"map:={map_path}", "image:=/camera", "namespace:=robot1", f"params_file:={parameters}", "device:=cpu")
    with Launch(prefix, *arguments) as launch:
        match = namespaced.show(namespaced.image(pixels(place_id=2)))
    assert [candidate.place_id for candidate in match.candidates] == [2, 3, 4]
    assert launch.process.returncode == 0, launch.output
    assert "process has finished cleanly" in launch.output
    assert "Traceback" not in launch.output


def test_loop_mode_reaches_the_node(namespaced: Robot, prefix: Path, map_path: Path) -> None:
    arguments = ("loop:=true", "camera_info:=/info", "odom:=/odom", "camera_mount:=0.2 0 0.3 0 0 0", "back_ends:=cslam")
    names = ["loop.enabled", "sensor.camera_info_topic", "sensor.odom_topic", "sensor.camera_mount", "backend.names"]
    with Launch(prefix, f"map:={map_path}", "namespace:=robot1", "autostart:=false", *arguments) as launch:
        values = namespaced.call(GetParameters, "get_parameters", names=names).values
    assert values[0].bool_value
    assert [value.string_value for value in values[1:]] == ["/info", "/odom", "0.2 0 0.3 0 0 0", "cslam"]
    assert launch.process.returncode == 0, launch.output


def test_waits_for_a_lifecycle_manager_when_told(namespaced: Robot, prefix: Path, map_path: Path) -> None:
    with Launch(prefix, f"map:={map_path}", "namespace:=robot1", "autostart:=false") as launch:
        assert namespaced.state() == "unconfigured"
        assert namespaced.transition("configure")
        assert namespaced.map_info().loaded
    assert launch.process.returncode == 0, launch.output


def test_argument_that_is_not_allowed(prefix: Path) -> None:
    with Launch(prefix, "compressed:=maybe") as launch:
        assert launch.process.wait(60) == 1
    assert "compressed" in launch.output
    assert "maybe" in launch.output
