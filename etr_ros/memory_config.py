"""The part of `etr_ros.config` that says what maps may take."""

from __future__ import annotations

from dataclasses import dataclass

from etr_ros.options import option


@dataclass(frozen=True)
class MemoryConfig:
    """What a place of a map takes on disk, and the map in memory."""

    locals: int = option(
        0, "Local features stored per place, strongest first; 0 stores all that were extracted", low=0, high=8192
    )
    descriptors: str = option(
        "half",
        "How local descriptors are stored: in half precision, 8 bits a value, or product-quantised (4 bits a value)",
        choices=("half", "int8", "pq"),
    )
    ceiling_mb: int = option(
        0,
        "Memory (10^6 bytes) that the index of a map and what is read of it may take; 0 sets no ceiling",
        low=0,
        high=10**6,
    )
