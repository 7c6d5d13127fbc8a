"""The places of a map on disk: rows of one size and a text of all names, decoded when a place is asked for."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from etr_ros.errors import MapError
from etr_ros.mapped import MappedArrays
from etr_ros.types import Place, Pose

ROWS, NAMES = "places.rows", "names.utf8"
ROW = np.dtype(
    [
        ("stamp_ns", "<i8"),
        ("name_end", "<u8"),  # bytes of NAMES up to the end of this place's name
        ("width", "<u4"),
        ("height", "<u4"),
        ("session", "<u4"),  # index into the manifest's sessions
        ("rig", "<u4"),  # index into the manifest's rigs
        ("pose", "<f8", (7,)),  # map_T_body: metres, quaternion x y z w; NaN: unknown
    ]
)
MAX_NAME_BYTES = 65536
_BLOCK = 4096


_PACKED = struct.Struct("<qQIIII7d")  # a row of `ROW`, for one at a time


def pack(place: Place, name_end: int, size: tuple[int, int], session: int, rig: int) -> bytes:
    """One row; `size` is width and height of the picture in pixels."""
    pose = place.pose
    values = (math.nan,) * 7 if pose is None else (*pose.position_m, *pose.quat_xyzw)
    return _PACKED.pack(place.stamp_ns, name_end, *size, session, rig, *values)


@dataclass(frozen=True)
class Shot:
    """What a place's picture was taken with: its size in pixels, and the row of the manifest's list of rigs."""

    image_size: tuple[int, int]
    rig: int


class PlaceTable(Sequence[Place]):
    """All places; the index is the place id. Raises MapError where a row is damaged, when it is read."""

    def __init__(self, arrays: MappedArrays, count: int, sessions: Sequence[str], rigs: int, frame_id: str) -> None:
        self._arrays, self._count, self._sessions, self._rigs, self._frame_id = arrays, count, sessions, rigs, frame_id

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Place: ...
    @overload
    def __getitem__(self, index: slice) -> list[Place]: ...
    def __getitem__(self, index: int | slice) -> Place | list[Place]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        place_id = range(self._count)[index]
        return self._block(place_id, place_id + 1)[0]

    def __iter__(self) -> Iterator[Place]:
        for start in range(0, self._count, _BLOCK):
            yield from self._block(start, min(start + _BLOCK, self._count))

    def shot(self, place_id: int) -> Shot:
        """Of one place."""
        row = self._arrays.read(ROWS, slice(place_id, place_id + 1))[0]
        rig = int(row["rig"])
        if rig >= self._rigs:
            raise MapError(f"{ROWS} of the map is damaged at place {place_id}: build the map again")
        return Shot((int(row["width"]), int(row["height"])), rig)

    def _block(self, start: int, stop: int) -> list[Place]:
        data = self._arrays.read(ROWS, slice(max(0, start - 1), stop)).tobytes()
        rows = list(_PACKED.iter_unpack(data))
        first = rows.pop(0)[1] if start else 0
        total, end = self._arrays.rows(NAMES), first
        for row in rows:
            if not end <= row[1] <= min(end + MAX_NAME_BYTES, total) or row[4] >= len(self._sessions):
                raise MapError(f"{ROWS} of the map is damaged at places {start} to {stop - 1}: build the map again")
            end = row[1]
        text = self._arrays.read(NAMES, slice(first, end)).tobytes()
        places, begin = [], 0
        for place_id, (stamp_ns, name_end, _, _, session, _, *values) in enumerate(rows, start):
            pose = None
            if not math.isnan(values[0]):
                x, y, z, qx, qy, qz, qw = values
                pose = Pose((x, y, z), (qx, qy, qz, qw), self._frame_id)
            name = text[begin : name_end - first].decode(errors="replace")
            places.append(Place(place_id, name, self._sessions[session], stamp_ns, pose))
            begin = name_end - first
        return places
