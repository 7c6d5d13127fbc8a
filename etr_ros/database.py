"""The map on disk: its one format, one reader and one writer.

    my_map/
        manifest.json            what the map is and how it was made; replaced atomically, so it is the commit point
        data-<map id>/
            index.faiss          FAISS index over the global descriptors, row = place id
            places.csv           name, session, stamp, pose and picture size of each place
            offsets.i64          (places + 1,) first local of each place
            keypoints.f32        (locals, 2) pixels
            scores.f16           (locals,)
            descriptors.f16      (locals, D), opened by memory mapping
            scales.u8            (locals,)
            thumbnails/<id>.jpg  optional
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros import index as retrieval
from etr_ros.errors import MapError
from etr_ros.types import Features, FloatArray, Frame, Place, Pose

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PLACE_COLUMNS = ("name", "session", "stamp_ns", "width", "height", "x_m", "y_m", "z_m", "qx", "qy", "qz", "qw")
MAX_PLACES = 50_000_000


@dataclass(frozen=True)
class FeatureSpec:
    """What made the features of a map: values that a query's extractor must share, by name."""

    extractor: str
    global_descriptor: str
    max_keypoints: int
    max_side_px: int
    local_dim: int
    global_dim: int
    weights: str  # fingerprint of all weight files

    def difference(self, other: FeatureSpec) -> str:
        """The values in which the two differ, in words; empty when there are none."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return ", ".join(
            f"{name} {mine[name]} instead of {theirs[name]}" for name in mine if mine[name] != theirs[name]
        )


@dataclass(frozen=True)
class MapInfo:
    """The manifest of a map."""

    map_id: str
    path: str
    format_version: int
    places: int
    locals: int
    sessions: tuple[str, ...]
    has_poses: bool
    frame_id: str
    features: FeatureSpec
    index: str
    index_parameters: dict[str, int]
    metric: str
    created: str  # ISO 8601, UTC
    files: dict[str, int]  # name -> bytes
    config: dict[str, Any]

    @property
    def extractor(self) -> str:
        return self.features.extractor

    @property
    def global_descriptor(self) -> str:
        return self.features.global_descriptor

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())


def read_info(path: Path) -> MapInfo:
    """The manifest of the map at `path`. Raises MapError when it is missing, damaged or of another format version."""
    manifest = path / MANIFEST
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MapError(f"{path} is not a map (it has no {MANIFEST}): make one with `etr build-map`") from error
    except (OSError, ValueError) as error:
        raise MapError(f"cannot read {manifest} ({error}): build the map again") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise MapError(
            f"{path} has map format version {version}, this program reads version {FORMAT_VERSION}: build the map again"
        )
    try:
        values["features"] = FeatureSpec(**values["features"])
        values["sessions"] = tuple(values["sessions"])
        info = MapInfo(**values | {"path": str(path)})
        counts_are_sane = 0 < info.places <= MAX_PLACES and info.locals >= 0 and set(info.files) >= set(_ARRAYS)
    except (KeyError, TypeError) as error:
        raise MapError(f"{manifest} is incomplete ({error}): build the map again") from error
    if not counts_are_sane or not info.map_id.isalnum():
        raise MapError(f"{manifest} holds impossible values: build the map again")
    return info


def check_files(info: MapInfo) -> None:
    """Raises MapError that names the first file of a map that is missing or has not the size it was written with."""
    folder = Path(info.path) / f"data-{info.map_id}"
    for name, size in info.files.items():
        file = folder / name
        actual = file.stat().st_size if file.is_file() else None
        if actual is None:
            raise MapError(f"the map {info.path} lacks its file {name}: copy it whole or build it again")
        if actual != size:
            raise MapError(f"{file} has {actual} bytes instead of {size}: copy the map whole or build it again")


_ARRAYS = ("offsets.i64", "keypoints.f32", "scores.f16", "descriptors.f16", "scales.u8")
_DTYPES = {"i64": np.int64, "f32": np.float32, "f16": np.float16, "u8": np.uint8}


class PlaceMap:
    """A map opened for reading. Local features stay on disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        """Raises MapError that names the file and what is wrong with it."""
        self.info = info = read_info(path)
        self._folder = path / f"data-{info.map_id}"
        check_files(info)
        self.index = retrieval.read_index(self._folder / "index.faiss", info.places, info.features.global_dim)
        self.places, self._image_sizes = self._read_places()
        self._offsets = self._array("offsets.i64", (info.places + 1,))
        if self._offsets[0] != 0 or self._offsets[-1] != info.locals or (np.diff(self._offsets) < 0).any():
            raise MapError(f"{self._folder / 'offsets.i64'} is damaged: build the map again")
        self._keypoints = self._array("keypoints.f32", (info.locals, 2))
        self._scores = self._array("scores.f16", (info.locals,))
        self._descriptors = self._array("descriptors.f16", (info.locals, info.features.local_dim))
        self._scales = self._array("scales.u8", (info.locals,))

    def __len__(self) -> int:
        return len(self.places)

    def search(
        self, query: Features, top_k: int, places_before: int | None = None
    ) -> tuple[list[Place], FloatArray]:
        """The `top_k` places most similar to the query's global descriptor, best first, and their cosines (K,)."""
        ids, cosines = retrieval.search(self.index, query.global_descriptor, top_k, places_before)
        return [self.places[i] for i in ids], cosines

    def features(self, place_id: int) -> Features:
        """The features of one place (descriptors back in float32)."""
        rows = slice(int(self._offsets[place_id]), int(self._offsets[place_id + 1]))
        return Features(
            keypoints=np.array(self._keypoints[rows]),
            scores=self._scores[rows].astype(np.float32),
            descriptors=self._descriptors[rows].astype(np.float32),
            scales=np.array(self._scales[rows]),
            image_size=self._image_sizes[place_id],
            global_descriptor=self.index.reconstruct(place_id),
        )

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None:
        """A small (H, W, 3) BGR picture of the place, or None when the map has none."""
        picture = cv2.imread(str(self._folder / "thumbnails" / f"{place_id}.jpg"))
        return None if picture is None else picture.astype(np.uint8, copy=False)

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = np.dtype(_DTYPES[name.rsplit(".", 1)[1]])
        expected = math.prod(shape) * dtype.itemsize
        if self.info.files[name] != expected:
            raise MapError(f"{self._folder / name} does not fit the manifest: build the map again")
        if expected == 0:
            return np.empty(shape, dtype)
        return np.memmap(self._folder / name, dtype, mode="r", shape=shape)

    def _read_places(self) -> tuple[list[Place], list[tuple[int, int]]]:
        places: list[Place] = []
        sizes: list[tuple[int, int]] = []
        path = self._folder / "places.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    places.append(self._place(len(places), row))
                    sizes.append((int(row["width"]), int(row["height"])))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise MapError(f"{path} is damaged ({error}): build the map again") from error
        if len(places) != self.info.places:
            raise MapError(f"{path} lists {len(places)} places instead of {self.info.places}: build the map again")
        return places, sizes

    def _place(self, place_id: int, row: dict[str, str]) -> Place:
        pose = None
        if row["x_m"]:
            x, y, z, qx, qy, qz, qw = (float(row[column]) for column in PLACE_COLUMNS[5:])
            pose = Pose((x, y, z), (qx, qy, qz, qw), self.info.frame_id)
        return Place(place_id, row["name"], row["session"], int(row["stamp_ns"]), pose)


class MapWriter:
    """Writes a map; nothing is visible at `path` before `commit`, and a map that was there stays until then.

    Use as a context manager: leaving it without `commit` removes what was written.
    """

    def __init__(
        self, path: Path, spec: FeatureSpec, index: str, config: dict[str, Any], thumbnail_px: int = 240
    ) -> None:
        """`thumbnail_px` is the longer side of the stored thumbnails; 0 stores none. Raises MapError."""
        if path.exists() and not path.is_dir():
            raise MapError(f"{path} is a file: give another --output")
        if path.is_dir() and any(path.iterdir()) and not _looks_like_map(path):
            raise MapError(f"{path} holds other files and is not a map: give another --output")
        self._path, self._spec, self._kind, self._config, self._thumbnail_px = path, spec, index, config, thumbnail_px
        self._map_id = hashlib.sha256(f"{time.time_ns()}-{os.getpid()}".encode()).hexdigest()[:12]
        self._folder = path / f"data-{self._map_id}"
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise MapError(f"cannot write a map to {path}: {error}") from error
        self._globals: list[FloatArray] = []
        self._offsets = [0]
        self._sessions: dict[str, None] = {}
        self._frame_id = ""
        self._posed = 0
        self._files: dict[str, IO[Any]] = {
            name: (self._folder / name).open("wb") for name in _ARRAYS if name != "offsets.i64"
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
        numbers = [repr(float(v)) for v in (*pose.position_m, *pose.quat_xyzw)] if pose else [""] * 7
        place_id = len(self._globals)
        self._places.writerow([frame.name, frame.session, frame.stamp_ns, *features.image_size, *numbers])
        self._files["keypoints.f32"].write(features.keypoints.astype("<f4").tobytes())
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
        names = (*_ARRAYS, "index.faiss", "places.csv")
        info = MapInfo(
            map_id=self._map_id,
            path=str(self._path),
            format_version=FORMAT_VERSION,
            places=len(self._globals),
            locals=self._offsets[-1],
            sessions=tuple(self._sessions),
            has_poses=self._posed > 0,
            frame_id=self._frame_id,
            features=self._spec,
            index=self._kind,
            index_parameters=parameters,
            metric="inner product of L2-normalised descriptors",
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
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


def _looks_like_map(path: Path) -> bool:
    """A folder that only holds a manifest and data folders (also those of an interrupted build)."""
    return all(entry.name == MANIFEST or entry.name.startswith("data-") for entry in path.iterdir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
