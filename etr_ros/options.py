"""Typed, documented, range-checked values in dataclasses: how `etr_ros.config` declares its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from etr_ros.errors import ConfigError

Scalar = bool | int | float | str


def option(
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
