"""The tables of the node, made from code: `python -m etr_ros.ros.reference docs/reference.md README.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from etr_ros.options import Option
from etr_ros.ros.interfaces import PUBLISHED, SERVICES, SUBSCRIBED, Endpoint
from etr_ros.ros.parameters import allowed, node_options

_INTRODUCTION = """\
# Topics, services and parameters of the node

Made from the code by `python -m etr_ros.ros.reference docs/reference.md README.md`; a test compares them.
The node is called `etr`; `~` stands for its name, so `~/match` is `/etr/match` unless it runs in a namespace.
The fields of every message and service are described in `etr_ros_msgs/`.
"""

_TF = """\
`/tf` and `/tf_static` are read for what no parameter tells: where the camera sits (`sensor.camera_mount`), and in loop
mode the odometry (`sensor.odom_topic`).
"""

_PARAMETERS = """\
A value marked *live* may be changed while the node runs (`ros2 param set /etr retrieval.top_k 5`); the others are
read-only and are given at start, in a parameter file or with `--ros-args -p node.map:=FOLDER`.
"""


BEGIN, END = "<!-- tables: made by etr_ros.ros.reference -->\n", "<!-- /tables -->\n"


def reference() -> str:
    """The page as Markdown."""
    return f"{_INTRODUCTION}\n{tables()}"


def embedded(page: str) -> str:
    """`page` with the tables, one heading lower, between its marks; a page without the marks is all made new."""
    if BEGIN not in page or END not in page:
        return reference()
    before, rest = page.split(BEGIN, 1)
    lower = tables().replace("## ", "### ")
    return f"{before}{BEGIN}\n{lower}\n{END}{rest.split(END, 1)[1]}"


def tables() -> str:
    """Topics, services and parameters as Markdown tables with headings."""
    parts = [
        "## Published topics\n",
        _table(("topic", "type", "what"), map(_endpoint_row, PUBLISHED)),
        "## Subscribed topics\n",
        _table(("parameter that names it", "type", "what"), map(_endpoint_row, SUBSCRIBED)),
        _TF,
        "## Services\n",
        _table(("service", "type", "what"), map(_endpoint_row, SERVICES)),
        "## Parameters\n",
        _PARAMETERS,
        _table(("parameter", "default", "allowed", "live", "what"), map(_option_row, node_options())),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _endpoint_row(endpoint: Endpoint) -> tuple[str, ...]:
    return f"`{endpoint.name}`", f"`{endpoint.type_name}`", endpoint.help


def _option_row(option: Option) -> tuple[str, ...]:
    default = str(option.value).lower() if option.kind is bool else str(option.value)
    shown = f"`{default}`" if default else "empty"
    return f"`{option.name}`", shown, allowed(option), "live" if option.live else "", option.help


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> int:
    """Bring the named pages up to date, or write the page to the terminal; exit code 1 for a file that is no page."""
    parser = argparse.ArgumentParser(prog="python -m etr_ros.ros.reference", description=main.__doc__)
    parser.add_argument(
        "pages",
        type=Path,
        nargs="*",
        metavar="PAGE.md",
        help="page to write: its tables, where it has marks for them, else all of it (default: write to the terminal)",
    )
    pages: list[Path] = parser.parse_args().pages
    try:
        for path in pages:
            page = path.read_text(encoding="utf-8") if path.exists() else ""
            path.write_text(embedded(page), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"reference: cannot bring {path} up to date: {error}\n")
        return 1
    if not pages:
        sys.stdout.write(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
