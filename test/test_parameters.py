"""ROS parameters are the configuration: every option, its range and whether it may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from etr_ros.config import Config, RobotConfig
from etr_ros.errors import ConfigError
from etr_ros.options import Option, options

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["etr", "cpu", "gpu"])
def test_parameter_files_are_configurations(name: str) -> None:
    RobotConfig.from_yaml(ROOT / "config" / f"{name}.yaml")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_profiles_also_serve_the_command_line(name: str) -> None:
    Config.from_yaml(ROOT / "config" / f"{name}.yaml")


def test_etr_yaml_shows_the_defaults() -> None:
    assert RobotConfig.from_yaml(ROOT / "config" / "etr.yaml") == RobotConfig()


def test_replace_keeps_the_kind_of_configuration() -> None:
    config = RobotConfig().replace(**{"node.map": "a", "retrieval.top_k": 3})
    assert isinstance(config, RobotConfig)
    assert (config.node.map, config.retrieval.top_k) == ("a", 3)


parameters = pytest.importorskip("etr_ros.ros.parameters", reason="ROS 2 is not here", exc_type=ImportError)


@pytest.mark.parametrize("option", list(parameters.node_options()), ids=lambda option: option.name)
def test_descriptor_tells_all_about_an_option(option: Option) -> None:
    descriptor = parameters.descriptor(option)
    assert (descriptor.description, descriptor.read_only) == (option.help, not option.live)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    if option.low is None:
        assert not ranges
    else:
        assert [(each.from_value, each.to_value) for each in ranges] == [(option.low, option.high)]
    for choice in option.choices:
        assert choice in descriptor.additional_constraints


def test_parameters_that_build_maps_are_left_out_and_no_other() -> None:
    names = {option.name for option in parameters.node_options()}
    left_out = {option.name for option in options(RobotConfig())} - names
    assert left_out == {"retrieval.index", "memory.locals", "memory.descriptors"}


def test_updated_changes_known_names_and_passes_over_others() -> None:
    rclpy_parameter = pytest.importorskip("rclpy.parameter")
    changed = [
        rclpy_parameter.Parameter("retrieval.top_k", value=7),
        rclpy_parameter.Parameter("decision.ambiguity_m", value=3),
        rclpy_parameter.Parameter("use_sim_time", value=True),
    ]
    config = parameters.updated(RobotConfig(), changed)
    assert config == RobotConfig().replace(**{"retrieval.top_k": 7, "decision.ambiguity_m": 3.0})


def test_updated_refuses_a_value_out_of_range() -> None:
    rclpy_parameter = pytest.importorskip("rclpy.parameter")
    with pytest.raises(ConfigError, match="top_k must be between 1 and 1000, not 0"):
        parameters.updated(RobotConfig(), [rclpy_parameter.Parameter("retrieval.top_k", value=0)])


def test_reference_page_is_up_to_date() -> None:
    page = pytest.importorskip("etr_ros.ros.reference", reason="etr_ros_msgs is not built", exc_type=ImportError)
    command = "python -m etr_ros.ros.reference docs/reference.md README.md"
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == page.reference(), f"run `{command}`"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.BEGIN in readme and readme == page.embedded(readme), f"run `{command}`"


def test_reference_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pytest.importorskip("etr_ros.ros.reference", reason="etr_ros_msgs is not built", exc_type=ImportError)

    def run(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["reference", *arguments])
        return int(page.main())

    with pytest.raises(SystemExit) as left:
        run("--help")
    assert left.value.code == 0 and "PAGE.md" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run() == 0 and capsys.readouterr().out == page.reference()
    assert run("new.md") == 0 and (tmp_path / "new.md").read_text(encoding="utf-8") == page.reference()
    assert run(str(tmp_path)) == 1 and "cannot bring" in capsys.readouterr().err
