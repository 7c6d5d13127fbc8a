"""Configuration: validation, YAML, and that every option is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.options import options


def test_nested_and_dotted_values_mean_the_same() -> None:
    assert Config.from_dict({"retrieval": {"top_k": 5}}) == Config.from_dict({"retrieval.top_k": 5})


def test_to_dict_and_back() -> None:
    config = Config().replace(**{"retrieval.top_k": 7, "extractor.name": "superpoint"})
    assert Config.from_dict(config.to_dict()) == config


def test_whole_numbers_are_taken_where_numbers_are_asked_for() -> None:
    assert Config.from_dict({"keyframe.distance_m": 2}).keyframe.distance_m == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"retrieval.top_kk": 5}, "unknown configuration value 'retrieval.top_kk'"),
        ({"retrieval.top_k": "many"}, "retrieval.top_k must be a whole number"),
        ({"retrieval.top_k": 0}, "between 1 and 1000"),
        ({"retrieval.top_k": True}, "whole number"),
        ({"decision.min_probability": float("nan")}, "between 0 and 1"),
        ({"extractor.name": "sift"}, "one of xfeat"),
        ({"retrieval": 5}, "unknown configuration value 'retrieval'"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(values)


@given(st.floats(0, 1))
def test_every_probability_is_a_threshold(value: float) -> None:
    assert Config.from_dict({"decision.min_probability": value}).decision.min_probability == value


def test_every_option_is_documented_and_its_default_is_valid() -> None:
    for option in options(Config()):
        assert option.help, option.name
        assert option.check(option.value) == option.value
        assert (option.low is None) == (option.high is None), option.name
        if option.kind in (int, float):
            assert option.low is not None, f"{option.name} needs a range"


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "etr.yaml"
    file.write_text(yaml.safe_dump({"retrieval": {"top_k": 3}}))
    assert Config.from_yaml(file).retrieval.top_k == 3


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "retrieval: [1]"])
def test_yaml_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "etr.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        Config.from_yaml(file)


def test_a_missing_yaml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        Config.from_yaml(tmp_path / "nowhere.yaml")
