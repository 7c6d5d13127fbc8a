"""Every default, once. ROS parameters, command-line options and the tables in the docs are made from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from etr_ros.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

Scalar = bool | int | float | str


def _option(
    default: Scalar,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A field with its documentation. `live` values may be changed while the node runs."""
    return field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "choices": choices, "live": live},
    )


@dataclass(frozen=True)
class ComputeConfig:
    """Where the networks run."""

    device: str = _option(
        "auto", "Device of the networks; auto takes CUDA when there is one", choices=("auto", "cpu", "cuda")
    )
    threads: int = _option(0, "CPU threads of the networks; 0 takes one per core", low=0, high=256)


@dataclass(frozen=True)
class ExtractorConfig:
    """How a picture becomes features. A map remembers these values; a query must use the same."""

    name: str = _option(
        "xfeat", "Local features", choices=("xfeat", "superpoint", "delg-lite", "delg-r50", "delg-r101")
    )
    global_name: str = _option(
        "auto",
        "Global descriptor; auto takes the one that goes with the local features",
        choices=("auto", "vlad", "delg"),
    )
    global_weights: str = _option(
        "", "Weight file of the global descriptor (see `etr fit-vlad`); empty takes the registered one"
    )
    weights: str = _option("", "Weight file of the local features; empty takes the registered one (see `etr weights`)")
    max_keypoints: int = _option(512, "Local features kept per picture, strongest first", low=16, high=8192)
    max_side_px: int = _option(
        640, "Pictures with a longer side are shrunk to this before extraction", low=64, high=4096
    )


@dataclass(frozen=True)
class RetrievalConfig:
    """How candidates are found among the places of a map."""

    index: str = _option("exact", "FAISS index built with the map", choices=("exact", "hnsw", "ivf-pq"))
    top_k: int = _option(20, "Candidates retrieved for each query", low=1, high=1000, live=True)


@dataclass(frozen=True)
class RerankConfig:
    """How candidates are put in order."""

    name: str = _option("etr-s", "Re-ranker: a registered name, a weight file (.safetensors), or none")
    max_locals: int = _option(
        0, "Local features read per picture; 0 takes what the weights were trained with", low=0, high=4096
    )


@dataclass(frozen=True)
class DecisionConfig:
    """When a candidate is believed."""

    min_probability: float = _option(
        0.9, "Candidates below this match probability are not accepted", low=0.0, high=1.0, live=True
    )
    ambiguity_m: float = _option(
        5.0, "Accepted places further apart than this (metres) make the answer ambiguous", low=0.0, high=1e6, live=True
    )


@dataclass(frozen=True)
class KeyframeConfig:
    """Which pictures of a drive become places of a map: a picture is kept when any limit is passed."""

    distance_m: float = _option(0.5, "Distance to the last keyframe in metres (needs poses)", low=0.0, high=1e4)
    angle_deg: float = _option(20.0, "Turn since the last keyframe in degrees (needs poses)", low=0.0, high=180.0)
    period_s: float = _option(
        0.0, "Time since the last keyframe in seconds; 0 turns the rule off when there are poses", low=0.0, high=1e6
    )


@dataclass(frozen=True)
class NodeConfig:
    """How the ROS node meets the robot."""

    map: str = _option("", "Folder of the map, read at every configure; ~/load_map swaps it while running", live=True)
    autostart: bool = _option(False, "Configure and activate at start, without a lifecycle manager")
    image_topic: str = _option("image", "Topic of the camera")
    compressed: bool = _option(False, "The image topic carries sensor_msgs/CompressedImage")
    reliable: bool = _option(True, "Ask for reliable delivery of images; a best-effort camera needs false")
    queue_depth: int = _option(2, "Images that the middleware may hold back for the node", low=1, high=100)
    image_timeout_s: float = _option(
        5.0, "Diagnostics report an error after this many seconds without an image", low=0.1, high=3600.0, live=True
    )
    min_period_s: float = _option(
        0.0, "Least time between queries in seconds, by image stamps; 0 queries whenever the node is free",
        low=0.0, high=3600.0, live=True,
    )
    min_motion_m: float = _option(
        0.0, "Query only after moving this far in metres, or turning (needs odom_topic; 0 turns the rule off)",
        low=0.0, high=1e4, live=True,
    )
    min_motion_deg: float = _option(
        0.0, "Query only after turning this far in degrees, or moving (needs odom_topic; 0 turns the rule off)",
        low=0.0, high=180.0, live=True,
    )
    odom_topic: str = _option("", "Topic of nav_msgs/Odometry for the least motion; empty does not subscribe")
    place_sigma_m: float = _option(
        1.0, "Standard deviation of ~/pose in metres: how far from a place it is still recognised (spacing of the map)",
        low=0.01, high=1e4, live=True,
    )
    place_sigma_deg: float = _option(
        20.0, "Standard deviation of ~/pose in degrees: how far turned from a place it is still recognised",
        low=0.1, high=180.0, live=True,
    )


@dataclass(frozen=True)
class Config:
    """All of the core's configuration. Construct with `Config.from_dict`, which validates."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    keyframe: KeyframeConfig = field(default_factory=KeyframeConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from nested (`{"retrieval": {"top_k": 5}}`) or dotted (`{"retrieval.top_k": 5}`) values.

        Raises ConfigError for an unknown name, a wrong type or a value out of range.
        """
        config: Self = build(cls, values)
        return config

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file of nested values, plain or as a ROS parameter file for every node (`/**`).

        Raises ConfigError when it cannot be read or does not validate.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must hold sections such as 'retrieval:' with 'top_k: 20' below")
        if set(values) == {"/**"}:
            values = (values["/**"] or {}).get("ros__parameters") or {}
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, dict[str, Scalar]]:
        """Nested plain values, as for YAML or JSON."""
        return dataclasses.asdict(self)

    def replace(self, **dotted: Any) -> Self:
        """A copy with some values changed: `config.replace(**{"retrieval.top_k": 5})`."""
        flat: dict[str, Any] = {option.name: option.value for option in options(self)}
        return type(self).from_dict(flat | dotted)


@dataclass(frozen=True)
class RobotConfig(Config):
    """The core's configuration and that of the ROS node around it."""

    node: NodeConfig = field(default_factory=NodeConfig)


@dataclass(frozen=True)
class Option:
    """One value of the configuration with all that describes it; `name` is dotted, as in `retrieval.top_k`."""

    name: str
    value: Scalar
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    live: bool

    @property
    def kind(self) -> type[Scalar]:
        return type(self.value)

    def check(self, value: Any) -> Scalar:
        """`value` as this option's type. Raises ConfigError that names the option, the value and what is allowed."""
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise ConfigError(f"{self.name} must be {self._type_word()}, not {value!r}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name} must be one of {', '.join(self.choices)}, not '{value}'")
        # `not (low <= value)` also refuses NaN
        if isinstance(value, (int, float)) and (
            (self.low is not None and not value >= self.low) or (self.high is not None and not value <= self.high)
        ):
            raise ConfigError(f"{self.name} must be between {self.low:g} and {self.high:g}, not {value}")
        return value

    def parse(self, text: str) -> Scalar:
        """A value typed on a command line. Raises ConfigError."""
        value: Any = text
        try:
            if self.kind is float:
                value = float(text)
            elif self.kind is not str:
                value = yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            pass  # `check` says what is asked for
        return self.check(value)

    def _type_word(self) -> str:
        return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[self.kind]


def options(config: Any, prefix: str = "") -> Iterator[Option]:
    """Every option of a configuration dataclass, in the order in which it is declared."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        name = prefix + entry.name
        if dataclasses.is_dataclass(value):
            yield from options(value, name + ".")
        else:
            yield Option(name, value, **entry.metadata)


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """A validated configuration dataclass of type `kind` from nested or dotted values. Raises ConfigError."""
    known = {option.name: option for option in options(kind())}
    checked: dict[str, Scalar] = {}
    for name, value in _flatten(values):
        if name not in known:
            raise ConfigError(f"unknown configuration value '{name}'; known are: {', '.join(known)}")
        checked[name] = known[name].check(value)
    return _construct(kind, checked, "")


def _construct(kind: type, checked: Mapping[str, Scalar], prefix: str) -> Any:
    default = kind()
    arguments = {}
    for entry in dataclasses.fields(default):
        value = getattr(default, entry.name)
        name = prefix + entry.name
        section = dataclasses.is_dataclass(value)
        arguments[entry.name] = _construct(type(value), checked, name + ".") if section else checked.get(name, value)
    return kind(**arguments)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, name + ".")
        else:
            yield name, value
