"""The launch file, as far as it can be read where `launch` is not installed; test/ros/test_launch_run.py runs it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

LAUNCH_FILE = Path(__file__).parent.parent / "launch" / "etr.launch.py"
ARGUMENTS = {"map", "image", "compressed", "namespace", "params_file", "device", "autostart", "log_level"}
ARGUMENTS |= {"reliable", "loop", "camera_info", "depth", "odom", "camera_mount", "base_frame", "back_ends"}


@pytest.fixture(scope="module")
def tree() -> ast.Module:
    return ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"))


def calls(tree: ast.Module, name: str) -> list[ast.Call]:
    return [each for each in ast.walk(tree) if isinstance(each, ast.Call) and getattr(each.func, "id", "") == name]


def test_every_argument_has_a_default_and_a_description(tree: ast.Module) -> None:
    declared = calls(tree, "DeclareLaunchArgument")
    assert {ast.literal_eval(call.args[0]) for call in declared} == ARGUMENTS
    for call in declared:
        assert {"default_value", "description"} <= {keyword.arg for keyword in call.keywords}


def test_arguments_set_parameters_that_exist(tree: ast.Module) -> None:
    parameters = pytest.importorskip("etr_ros.ros.parameters", reason="ROS 2 is not here", exc_type=ImportError)
    table = next(
        each.value
        for each in tree.body
        if isinstance(each, ast.Assign) and getattr(each.targets[0], "id", "") == "PARAMETERS"
    )
    mapping = ast.literal_eval(table)
    assert set(mapping) <= ARGUMENTS
    assert set(mapping.values()) <= {option.name for option in parameters.node_options()}


def defined(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return getattr(statement.targets[0], "id", "")
    return getattr(statement, "name", "")


def test_arguments_become_parameters(tree: ast.Module) -> None:
    names = {"PARAMETERS", "SWITCHES", "parameters_of"}
    kept = [each for each in tree.body if defined(each) in names]
    space: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), str(LAUNCH_FILE), "exec"), space)  # noqa: S102 - our own file
    given = {
        "map": "",
        "loop": "true",
        "compressed": "false",
        "reliable": "false",
        "odom": "/odom",
        "back_ends": "rtabmap,initialpose",
    }
    assert space["parameters_of"](given | {"camera_mount": "0.2 0 0.3 0 0 0"}) == {
        "loop.enabled": True,
        "node.compressed": False,
        "node.reliable": False,
        "sensor.odom_topic": "/odom",
        "backend.names": "rtabmap,initialpose",
        "sensor.camera_mount": "0.2 0 0.3 0 0 0",
    }


def test_starts_the_installed_executable(tree: ast.Module) -> None:
    (node,) = calls(tree, "Node")
    values = {keyword.arg: keyword.value for keyword in node.keywords}
    assert ast.literal_eval(values["package"]) == "etr_ros"
    executable = ast.literal_eval(values["executable"])
    assert f'"{executable} = etr_ros.ros.' in (LAUNCH_FILE.parents[1] / "setup.py").read_text(encoding="utf-8")
