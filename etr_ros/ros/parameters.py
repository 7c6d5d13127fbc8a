"""ROS parameters made from the configuration: name, default, description, range and whether it may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from etr_ros.config import RobotConfig
from etr_ros.errors import ConfigError
from etr_ros.options import Option, options

_MAP_BUILDING = ("retrieval.index", "memory.locals", "memory.descriptors")
_PASSED_OVER = (*_MAP_BUILDING, "qos_overrides.")


def node_options() -> Iterator[Option]:
    """The options that concern a node that answers queries; those of building a map are left out."""
    return (option for option in options(RobotConfig()) if not option.name.startswith(_MAP_BUILDING))


def declare(node: Node) -> RobotConfig:
    """Declare all parameters and return their values, overrides included.

    Raises ConfigError for an override of the wrong type or out of range.
    """
    values = {}
    for option in node_options():
        try:
            value: Any = node.declare_parameter(option.name, option.value, descriptor(option)).value
        except ParameterException as error:
            raise ConfigError(f"the parameter {option.name} must be {allowed(option)}") from error
        values[option.name] = option.check(value)
    return RobotConfig.from_dict(values)


def updated(config: RobotConfig, parameters: Sequence[Parameter[Any]]) -> RobotConfig:
    """The configuration after a change of parameters; names of other owners (`use_sim_time`) are passed over.

    Raises ConfigError for a value that is not allowed.
    """
    names = {option.name for option in node_options()}
    return config.replace(**{each.name: each.value for each in parameters if each.name in names})


def unknown(node: Node) -> list[str]:
    """Names given at start (command line, parameter file) that are no parameter of this node and have no effect."""
    given = getattr(node, "_parameter_overrides", {})  # rclpy has no public way to ask
    return sorted(name for name in given if not (node.has_parameter(name) or name.startswith(_PASSED_OVER)))


def allowed(option: Option) -> str:
    """The values that an option may have, in words."""
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    if option.low is not None and option.high is not None:
        return f"{option.low:g} to {option.high:g}"
    return "true or false" if option.kind is bool else "text"


def descriptor(option: Option) -> ParameterDescriptor:
    """How ROS tools see an option."""
    result = ParameterDescriptor(name=option.name, description=option.help, read_only=not option.live)
    result.additional_constraints = allowed(option)
    if option.low is not None and option.high is not None:
        if option.kind is int:
            result.integer_range = [IntegerRange(from_value=int(option.low), to_value=int(option.high), step=1)]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=option.low, to_value=option.high, step=0.0)]
    # People and YAML write 5.0 as 5; ROS refuses that unless the type may vary, Option.check does the rest.
    result.dynamic_typing = option.kind is float
    return result
