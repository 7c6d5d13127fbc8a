"""Command-line options made from `config.py`: a file, single values, and short forms of the common ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.options import Option, options

SHORT_FORMS = {
    "--extractor": ("extractor.name", "NAME"),
    "--reranker": ("rerank.name", "NAME"),
    "--top-k": ("retrieval.top_k", "N"),
    "--device": ("compute.device", "DEVICE"),
}


def add_config_options(
    parser: argparse.ArgumentParser, short_forms: Sequence[str] = ("--extractor", "--device")
) -> None:
    """Add `--config`, `--set` and short forms, and list every value below the help text."""
    known = {option.name: option for option in options(Config())}
    group = parser.add_argument_group(
        "configuration", "what is given later on the line wins over what is given earlier"
    )
    group.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="read values from a YAML file, before all others"
    )
    group.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set one value of the list below",
    )
    for flag in short_forms:
        name, metavar = SHORT_FORMS[flag]
        group.add_argument(
            flag,
            dest="settings",
            action="append",
            type=f"{name}={{}}".format,
            metavar=metavar,
            help=f"short for --set {name}={metavar} (default: {known[name].value})",
        )
    parser.formatter_class = _LineByLine
    parser.epilog = "\n".join(["values for --set and --config:", *map(_describe, known.values())])


def config_from(args: argparse.Namespace) -> Config:
    """The configuration that the options ask for. Raises ConfigError."""
    config = Config.from_yaml(args.config) if args.config else Config()
    known = {option.name: option for option in options(config)}
    values = {}
    for setting in args.settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE such as retrieval.top_k=20, not '{setting}'")
        if name not in known:
            raise ConfigError(f"unknown configuration value '{name}'; known are: {', '.join(known)}")
        values[name] = known[name].parse(text)
    return config.replace(**values)


class _LineByLine(argparse.HelpFormatter):
    """Keeps line breaks of descriptions, and indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line.startswith(" ") else fill(line, width, indent) for line in text.splitlines())


def _describe(option: Option) -> str:
    allowed = ""
    if option.choices:
        allowed = f"; one of {', '.join(option.choices)}"
    elif option.low is not None and option.high is not None:
        allowed = f"; {option.low:g} to {option.high:g}"
    default = f"'{option.value}'" if option.value == "" else option.value
    return f"  {option.name}: {option.help} (default: {default}{allowed})"
