"""Who may import what: the core has no ROS and no command line, the ROS layer no algorithms, imports go down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "etr_ros"
FILES = sorted(PACKAGE.rglob("*.py"))
CORE = [file for file in FILES if file.relative_to(PACKAGE).parts[0] not in ("ros", "cli")]
ROS = [file for file in FILES if file.relative_to(PACKAGE).parts[0] == "ros"]
ALGORITHMS = {"torch", "faiss", "safetensors"}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_ros(name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    return top in ("rclpy", "launch", "launch_ros", "rosidl_runtime_py", "cv_bridge") or top.endswith("_msgs")


def label(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_there_is_a_core_and_a_ros_layer() -> None:
    assert len(CORE) > 15 and len(ROS) > 3


@pytest.mark.parametrize("file", CORE, ids=label)
def test_the_core_knows_neither_ros_nor_the_command_line(file: Path) -> None:
    wrong = {name for name in imported(file) if is_ros(name) or name.split(".")[0] == "argparse"}
    wrong |= {name for name in imported(file) if name.startswith(("etr_ros.ros", "etr_ros.cli"))}
    assert not wrong


@pytest.mark.parametrize("file", CORE, ids=label)
def test_the_core_never_prints_or_exits(file: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "exit", "quit", "input"}


@pytest.mark.parametrize("file", ROS, ids=label)
def test_the_ros_layer_holds_no_algorithm(file: Path) -> None:
    assert not {name for name in imported(file) if name.split(".")[0] in ALGORITHMS}
    assert not {name for name in imported(file) if name.startswith("etr_ros.cli")}


@pytest.mark.parametrize("file", FILES, ids=label)
def test_nothing_is_unpickled(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "shelve.open")
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called != "torch.load" or keywords.get("weights_only") == "True"
            assert called != "np.load" or keywords.get("allow_pickle", "False") == "False"


@pytest.mark.parametrize("file", FILES, ids=label)
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400
