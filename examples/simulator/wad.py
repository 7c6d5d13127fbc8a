"""Reads from a level archive (.wad) the one thing that the engine does not tell: what floors and ceilings are made of.

Layout: https://doomwiki.org/wiki/WAD (a directory of 16-byte entries) and https://doomwiki.org/wiki/Sector.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from etr_ros.errors import DataError

LIQUIDS = ("FWATER", "NUKAGE", "BLOOD", "LAVA", "SLIME0", "SWATER")
SKY = "F_SKY1"
LUMPS_PER_LEVEL = 11


@dataclass(frozen=True)
class Material:
    """Of one sector."""

    is_liquid: bool
    is_open_sky: bool


def materials(path: Path, level: str) -> list[Material]:
    """Of every sector of `level`, in its order. Raises DataError when there is no such level."""
    with path.open("rb") as archive:
        _, count, directory = struct.unpack("<4sii", archive.read(12))
        archive.seek(directory)
        entries = list(struct.iter_unpack("<ii8s", archive.read(16 * count)))
        names = [_text(name) for _, _, name in entries]
        if level not in names:
            raise DataError(f"{path.name} has no level {level}; take MAP01..MAP32 or E1M1..E4M9")
        marker = names.index(level)
        start, size, _ = entries[names.index("SECTORS", marker, marker + LUMPS_PER_LEVEL)]
        archive.seek(start)
        sectors = archive.read(size)
    records = struct.iter_unpack("<hh8s8shhh", sectors)
    return [Material(_text(floor).startswith(LIQUIDS), _text(ceiling) == SKY) for _, _, floor, ceiling, *_ in records]


def _text(padded: bytes) -> str:
    return padded.split(b"\0")[0].decode("ascii")
