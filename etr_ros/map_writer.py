"""Writes the map on disk, whole or not at all; `etr_ros.database` says its format."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros import index as retrieval
from etr_ros.database import (
    ARRAYS,
    FORMAT_VERSION,
    MANIFEST,
    PLACE_COLUMNS,
    FeatureSpec,
    MapInfo,
    Rig,
    read_info,
)
from etr_ros.errors import MapError
from etr_ros.types import Features, FloatArray, Frame


class MapWriter:
    """Writes a map; nothing is visible at `path` before `commit`, and a map that was there stays until then.

    Use as a context manager: leaving it without `commit` removes what was written.
    """

    def __init__(
        self,
        path: Path,
        spec: FeatureSpec,
        index: str,
        config: dict[str, Any],
        thumbnail_px: int = 240,
        map_id: str = "",
    ) -> None:
        """`thumbnail_px` is the longer side of the stored thumbnails; 0 stores none.

        With a `map_id` of your own the time of writing is left out: the same places give the same bytes.
        Raises MapError.
        """
        if path.exists() and not path.is_dir():
            raise MapError(f"{path} is a file: give another --output")
        if path.is_dir() and any(path.iterdir()) and not _looks_like_map(path):
            raise MapError(f"{path} holds other files and is not a map: give another --output")
        self._path, self._spec, self._kind, self._config, self._thumbnail_px = path, spec, index, config, thumbnail_px
        self._map_id = map_id or hashlib.sha256(f"{time.time_ns()}-{os.getpid()}".encode()).hexdigest()[:12]
        self._created = "" if map_id else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._folder = path / f"data-{self._map_id}"
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise MapError(f"cannot write a map to {path}: {error}") from error
        self._globals: list[FloatArray] = []
        self._offsets = [0]
        self._sessions: dict[str, None] = {}
        self._rigs: dict[Rig, int] = {}
        self._frame_id = ""
        self._posed = 0
        self._files: dict[str, IO[Any]] = {
            name: (self._folder / name).open("wb") for name in ARRAYS if name != "offsets.i64"
        }
        self._places_file = (self._folder / "places.csv").open("w", encoding="utf-8", newline="")
        self._places = csv.writer(self._places_file)
        self._places.writerow(PLACE_COLUMNS)

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if not self._committed():
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._path.is_dir() and not any(self._path.iterdir()):
                self._path.rmdir()

    def __len__(self) -> int:
        return len(self._globals)

    def add(self, frame: Frame, features: Features) -> None:
        """Append `frame` as the next place. Raises MapError for poses in two different frames."""
        pose = frame.pose
        if pose is not None:
            if self._posed and pose.frame_id != self._frame_id:
                raise MapError(f"poses in two frames, '{self._frame_id}' and '{pose.frame_id}': a map has one frame")
            self._frame_id = pose.frame_id
            self._posed += 1
        rig = self._rigs.setdefault(Rig(frame.camera, frame.body_t_camera), len(self._rigs))
        numbers = [repr(float(v)) for v in (*pose.position_m, *pose.quat_xyzw)] if pose else [""] * 7
        place_id = len(self._globals)
        self._places.writerow([frame.name, frame.session, frame.stamp_ns, *features.image_size, rig, *numbers])
        self._files["keypoints.f32"].write(features.keypoints.astype("<f4").tobytes())
        self._files["depths.f16"].write(_depths(features).astype("<f2").tobytes())
        self._files["scores.f16"].write(features.scores.astype("<f2").tobytes())
        self._files["descriptors.f16"].write(features.descriptors.astype("<f2").tobytes())
        self._files["scales.u8"].write(features.scales.astype("u1").tobytes())
        self._offsets.append(self._offsets[-1] + len(features))
        self._globals.append(features.global_descriptor.astype(np.float32))
        self._sessions[frame.session] = None
        if self._thumbnail_px:
            self._write_thumbnail(place_id, frame.image)

    def commit(self) -> MapInfo:
        """Train the index, make the map visible at its path and remove the one it replaces.

        Raises MapError when it is empty.
        """
        if not self._globals:
            raise MapError("no picture could be used, so there is no map: check the pictures and the topic")
        index, parameters = retrieval.build_index(self._kind, np.stack(self._globals))
        faiss.write_index(index, str(self._folder / "index.faiss"))
        (self._folder / "offsets.i64").write_bytes(np.array(self._offsets, "<i8").tobytes())
        self._close()
        names = (*ARRAYS, "index.faiss", "places.csv")
        info = MapInfo(
            map_id=self._map_id,
            path=str(self._path),
            format_version=FORMAT_VERSION,
            places=len(self._globals),
            locals=self._offsets[-1],
            sessions=tuple(self._sessions),
            has_poses=self._posed > 0,
            frame_id=self._frame_id,
            rigs=tuple(self._rigs),
            features=self._spec,
            index=self._kind,
            index_parameters=parameters,
            metric="inner product of L2-normalised descriptors",
            created=self._created,
            files={name: (self._folder / name).stat().st_size for name in names},
            config=self._config,
        )
        for name in names:
            _sync(self._folder / name)
        values = dataclasses.asdict(info)
        del values["path"]
        draft = self._folder / MANIFEST
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        _sync(draft)
        os.replace(draft, self._path / MANIFEST)
        _sync(self._path)
        for stale in self._path.glob("data-*"):
            if stale != self._folder:
                shutil.rmtree(stale, ignore_errors=True)
        return info

    def _write_thumbnail(self, place_id: int, image: NDArray[np.uint8]) -> None:
        scale = min(1.0, self._thumbnail_px / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        folder = self._folder / "thumbnails"
        folder.mkdir(exist_ok=True)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{place_id}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 85])

    def _committed(self) -> bool:
        try:
            return read_info(self._path).map_id == self._map_id
        except MapError:
            return False

    def _close(self) -> None:
        for file in (*self._files.values(), self._places_file):
            file.close()


def _depths(features: Features) -> FloatArray:
    """(N, 2) metres along the optical axis and their standard deviation, NaN where unknown."""
    unknown = np.full(len(features), np.nan, np.float32)
    depth = unknown if features.points_m is None else features.points_m[:, 2]
    sigma = unknown if features.depth_sigma_m is None else features.depth_sigma_m
    return np.column_stack([depth, sigma])


def _looks_like_map(path: Path) -> bool:
    """A folder that only holds a manifest and data folders (also those of an interrupted build)."""
    return all(entry.name == MANIFEST or entry.name.startswith("data-") for entry in path.iterdir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
