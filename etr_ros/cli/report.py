"""`etr report`: a result as one page to look at."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etr_ros.cli.progress import size_text

NAME = "report.html"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "report",
        help="make a page of a replay's result: map, pairs of pictures, curves",
        description="Write one HTML page that needs neither network nor server: a summary, a map whose loops open the "
        "picture pair with its local matches, precision and recall, reliability, times, similarity, configuration.",
    )
    parser.add_argument("result", type=Path, metavar="RESULT", help="result of etr replay")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help=f"where to write the page (default: RESULT/{NAME})"
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="CSV",
        help="the pairs that the replay was given as --ground-truth: a result does not keep them",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, and say where. Raises EtrError."""
    from etr_ros.ground_truth import read_pairs
    from etr_ros.measure import Protocol
    from etr_ros.report.page import write_report

    output = args.output or args.result / NAME
    protocol = None if args.ground_truth is None else Protocol(pairs=tuple(read_pairs(args.ground_truth)))
    written = write_report(args.result, output, _track, protocol)
    print(written.headline)
    print(f"report: {output}, {size_text(written.size_bytes)}")
    return 0


def _track(items: Iterable[Any], what: str) -> Iterable[Any]:
    """With a bar on stderr; silent when stderr is no terminal."""
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(items, desc=what, unit=" pairs", disable=None)
    return bar
