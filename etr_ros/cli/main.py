"""`etr`: build maps, look into them, measure recognition, get weights, train."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from etr_ros import __version__
from etr_ros.cli import build_map, calibrate, diff, evaluate, export, fit_vlad, info, replay, report, train, weights
from etr_ros.errors import EtrError

INTERRUPTED = 128 + 2  # as a shell reports SIGINT
OUTPUT_CLOSED = 128 + 13  # SIGPIPE


class Parser(argparse.ArgumentParser):
    """Takes options by their whole name only, so that a new option never changes what an old command means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)


def make_parser() -> Parser:
    """All verbs; a verb leaves the function to call in `run`."""
    parser = Parser(prog="etr", description="Visual place recognition: retrieve with FAISS, re-rank with ETR.")
    parser.add_argument("--version", action="version", version=f"etr_ros {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for verb in (build_map, info, evaluate, replay, report, diff, calibrate, weights, train, fit_vlad, export):
        verb.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Expected failures are one line on stderr and exit code 1."""
    args = make_parser().parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except EtrError as error:
        print(f"etr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("etr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    return code


if __name__ == "__main__":
    sys.exit(main())
