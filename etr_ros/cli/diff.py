"""`etr diff`: what changed between two replays."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "diff",
        help="show what changed between two replays of one bag",
        description="List the loops that B gained and lost against A, those with another relative pose, and the "
        "pictures that were answered otherwise. The exit code is 0 when nothing changed, else 1.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="result of etr replay")
    parser.add_argument("b", type=Path, metavar="B", help="another result of the same bag")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="lines of each kind (default: 10)")
    parser.add_argument(
        "--pictures", type=Path, metavar="FILE.png", help="write the gained and lost pairs as one picture sheet"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare. Raises EtrError."""
    from etr_ros import result_files
    from etr_ros.diff_sheet import write_sheet
    from etr_ros.result_diff import compare

    a, b = (result_files.read(path) for path in (args.a, args.b))
    found = compare(a, b)
    for line in found.lines(max(args.limit, 0)):
        print(line)
    if args.pictures is not None:
        print(write_sheet(args.pictures, found, (args.a, a), (args.b, b)))
    return 1 if found else 0
