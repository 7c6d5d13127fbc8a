"""`etr info`: what is in a map and how it was made."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from etr_ros.cli.progress import size_text

if TYPE_CHECKING:
    from etr_ros.database import MapInfo


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("info", help="show what is in a map and how it was made")
    parser.add_argument("map", type=Path, metavar="MAP", help="folder of the map")
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the manifest. Raises MapError, also when a file of the map is missing or cut."""
    from etr_ros.database import check_files, read_info, share_in_3d

    info = read_info(args.map)
    check_files(info)
    if args.json:
        print(json.dumps(_values(info), indent=2))
        return 0
    rows = _rows(info, share_in_3d(info))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    return 0


def _values(info: MapInfo) -> dict[str, object]:
    return dataclasses.asdict(info) | {"size_bytes": info.size_bytes, "bytes_per_place": info.bytes_per_place()}


def _rows(info: MapInfo, in_3d: float) -> list[tuple[str, str]]:
    features = info.features
    parameters = ", ".join(f"{name} {value}" for name, value in info.index_parameters.items())
    return [
        ("map", info.path),
        ("id", info.map_id),
        ("places", str(info.places)),
        ("sessions", ", ".join(session or "(no name)" for session in info.sessions)),
        ("poses", f"in frame {info.frame_id}" if info.has_poses else "none"),
        ("intrinsics", _which([rig.camera for rig in info.rigs])),
        ("camera mount", _which([rig.body_t_camera for rig in info.rigs])),
        ("in 3-D", f"{100 * in_3d:.0f} % of the local features"),
        (
            "local features",
            f"{info.locals} of {features.extractor}, {features.local_dim} values each, stored as {info.descriptors}",
        ),
        ("global descriptor", f"{features.global_descriptor}, {features.global_dim} values"),
        ("weights", features.weights),
        ("index", info.index + (f" ({parameters})" if parameters else "")),
        ("metric", info.metric),
        ("size", size_text(info.size_bytes)),
        ("bytes per place", _per_place(info)),
        ("created", info.created),
        ("format version", str(info.format_version)),
        *(
            (f"{section}.{name}", str(value) or "''")
            for section, values in info.config.items()
            for name, value in values.items()
        ),
    ]


def _per_place(info: MapInfo) -> str:
    parts = info.bytes_per_place()
    return f"{sum(parts.values()):.0f}: " + ", ".join(f"{part} {size:.0f}" for part, size in parts.items())


def _which(known: Sequence[object]) -> str:
    if all(each is None for each in known):
        return "none"
    return "of some places" if None in known else "of all places"
