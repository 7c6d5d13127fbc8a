"""Poses from files and over time: TUM and CSV in, `Pose` of a picture out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etr_ros.errors import DataError
from etr_ros.types import Pose

MAX_GAP_NS = 500_000_000  # poses further apart are not interpolated
NEAREST_NS = 20_000_000  # a single pose holds this long before and after its stamp
MAX_M = 1e9  # numbers beyond are no poses
MIN_NORM = 1e-6  # of a quaternion

_QUATERNION = ("qx", "qy", "qz", "qw")


class PosedFile(NamedTuple):
    """What a pose file tells about one picture; None where it tells nothing usable."""

    pose: Pose | None
    stamp_ns: int | None


def to_pose(values: ArrayLike, frame_id: str = "map") -> Pose | None:
    """The pose of (7,) x, y, z in metres and qx, qy, qz, qw; None when the numbers are no pose."""
    row = np.asarray(values, np.float64)
    if not _are_poses(row[None])[0]:
        return None
    x, y, z = row[:3].tolist()
    qx, qy, qz, qw = (row[3:] / np.linalg.norm(row[3:])).tolist()
    return Pose((x, y, z), (qx, qy, qz, qw), frame_id)


def is_pose(values: Sequence[float]) -> bool:
    """Whether `to_pose` would take the 7 numbers."""
    return all(abs(value) < MAX_M for value in values) and math.hypot(*values[3:]) >= MIN_NORM  # NaN is not below


class PoseTrack:
    """Poses of one moving body over time, read at any stamp."""

    def __init__(self, stamps_ns: ArrayLike, values: ArrayLike, frame_id: str = "map") -> None:
        """`stamps_ns` (N,) in any order; `values` (N, 7) x, y, z in metres and qx, qy, qz, qw.

        Rows that are no pose (NaN, infinite or beyond 1e9, zero quaternion) are left out.
        """
        stamps = np.asarray(stamps_ns, np.int64).reshape(-1)
        rows = np.asarray(values, np.float64).reshape(-1, 7)
        usable = _are_poses(rows)
        self._stamps, first = np.unique(stamps[usable], return_index=True)
        self._values = rows[usable][first]
        self._frame_id = frame_id

    def __len__(self) -> int:
        return len(self._stamps)

    def __iter__(self) -> Iterator[tuple[int, Pose]]:
        """Stamps in nanoseconds, rising, and poses."""
        for stamp, row in zip(self._stamps.tolist(), self._values, strict=True):
            pose = to_pose(row, self._frame_id)
            if pose is not None:
                yield stamp, pose

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose at `stamp_ns`, or None where the track has a hole.

        Between two poses at most 0.5 s apart: linear in position, spherical-linear in rotation.
        Elsewhere: the nearest pose when it is at most 0.02 s away.
        """
        after = int(np.searchsorted(self._stamps, stamp_ns))
        if 0 < after < len(self) and self._stamps[after] - self._stamps[after - 1] <= MAX_GAP_NS:
            start, end = self._stamps[after - 1], self._stamps[after]
            share = float(stamp_ns - start) / float(end - start)
            return to_pose(_between(self._values[after - 1], self._values[after], share), self._frame_id)
        for row in (after - 1, after):
            if 0 <= row < len(self) and abs(int(self._stamps[row]) - stamp_ns) <= NEAREST_NS:
                return to_pose(self._values[row], self._frame_id)
        return None


def _are_poses(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, 7) -> (N,)"""
    in_range = (np.abs(rows) < MAX_M).all(axis=1)
    norms = np.linalg.norm(np.where(in_range[:, None], rows[:, 3:], 0.0), axis=1)
    return np.asarray(in_range & (norms >= MIN_NORM))


def _between(start: NDArray[np.float64], end: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Row (7,) at `share` in [0, 1] of the way from `start` to `end`, along the shorter rotation."""
    from_quat, to_quat = start[3:] / np.linalg.norm(start[3:]), end[3:] / np.linalg.norm(end[3:])
    cosine = float(from_quat @ to_quat)
    if cosine < 0:
        to_quat, cosine = -to_quat, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        weights = (1 - share, share)
    else:
        weights = (np.sin((1 - share) * angle) / np.sin(angle), np.sin(share * angle) / np.sin(angle))
    return np.concatenate([(1 - share) * start[:3] + share * end[:3], weights[0] * from_quat + weights[1] * to_quat])


def stamp_in_name(name: str) -> int | None:
    """Nanoseconds since epoch that a file name states: `1305031102.175304.png` (seconds) or 19 digits (nanoseconds)."""
    stem = name.rpartition(".")[0]
    whole, point, fraction = stem.partition(".")
    if point and whole.isdecimal() and fraction.isdecimal():
        return int(Decimal(stem) * 10**9)
    return int(stem) if len(stem) == 19 and stem.isdecimal() else None


def poses_of_files(path: Path, names: Sequence[str]) -> list[PosedFile]:
    """What the pose file `path` tells about the pictures `names`, in the order of `names`.

    A CSV file has the header `file,x_m,y_m[,z_m][,qx,qy,qz,qw | ,yaw_rad][,stamp_ns]` and goes by file name.
    Any other file is TUM (`stamp x y z qx qy qz qw`, stamp in seconds): it is read at the time that the names
    state (see `stamp_in_name`), or line by line when they state none and there are as many lines as pictures.

    Raises DataError when the file cannot be read or does not fit to the pictures.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the pose file {path}: {error}") from error
    if path.suffix.lower() == ".csv":
        by_name = _read_csv(path, lines)
        if not by_name.keys() & set(names):
            raise DataError(f"{path} names none of the pictures; its column 'file' must hold names such as {names[0]}")
        return [by_name.get(name, PosedFile(None, None)) for name in names]
    stamps, rows = _read_tum(path, lines)
    named_stamps = [stamp_in_name(name) for name in names]
    if all(stamp is not None for stamp in named_stamps):
        track = PoseTrack(stamps, rows)
        return [PosedFile(track.at(stamp), stamp) for stamp in named_stamps if stamp is not None]
    if len(rows) != len(names):
        raise DataError(
            f"{path} has {len(rows)} poses for {len(names)} pictures whose names hold no time stamps; "
            "give a CSV file with the header file,x_m,y_m,yaw_rad"
        )
    return [PosedFile(to_pose(row), stamp) for stamp, row in zip(stamps, rows, strict=True)]


def _read_tum(path: Path, lines: Sequence[str]) -> tuple[list[int], list[list[float]]]:
    stamps, rows = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            stamp, *row = words
            stamps.append(int(Decimal(stamp) * 10**9))
            rows.append([float(word) for word in row])
            if len(row) != 7:
                raise ValueError(f"{len(words)} words")
        except (ValueError, OverflowError, InvalidOperation) as error:
            raise DataError(
                f"{path}, line {number}: expected 'stamp x y z qx qy qz qw', found '{line[:60]}'"
            ) from error
    return stamps, rows


def _read_csv(path: Path, lines: Sequence[str]) -> dict[str, PosedFile]:
    reader = csv.DictReader(lines)
    columns = reader.fieldnames or ()
    if not {"file", "x_m", "y_m"} <= set(columns):
        raise DataError(
            f"{path} must start with a header such as file,x_m,y_m,yaw_rad; found '{','.join(columns)[:60]}'"
        )
    posed: dict[str, PosedFile] = {}
    for row in reader:
        name = Path(row["file"]).name
        if name in posed:
            raise DataError(f"{path}, line {reader.line_num}: {name} is named twice")
        try:
            posed[name] = PosedFile(_csv_pose(row), int(row["stamp_ns"]) if row.get("stamp_ns") else None)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: not a number in the row of {name}") from error
    return posed


def _csv_pose(row: dict[str, str]) -> Pose | None:
    if "yaw_rad" in row:
        half_yaw = float(row["yaw_rad"]) / 2
        quaternion = [0.0, 0.0, float(np.sin(half_yaw)), float(np.cos(half_yaw))]
    elif all(column in row for column in _QUATERNION):
        quaternion = [float(row[column]) for column in _QUATERNION]
    else:
        quaternion = [0.0, 0.0, 0.0, 1.0]
    return to_pose([float(row["x_m"]), float(row["y_m"]), float(row.get("z_m", 0.0)), *quaternion])
