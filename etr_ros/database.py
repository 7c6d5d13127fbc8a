"""The map on disk: its one format and its reader; `etr_ros.map_writer` writes it.

my_map/
    manifest.json            what the map is and how it was made; replaced atomically, so it is the commit point
    data-<map id>/
        index.faiss          FAISS index over the global descriptors, row = place id
        places.csv           name, session, stamp, picture size, rig and pose of each place
        offsets.i64          (places + 1,) first local of each place
        keypoints.f32        (locals, 2) pixels
        depths.f16           (locals, 2) metres along the optical axis, their standard deviation; NaN: unknown
        scores.f16           (locals,)
        descriptors.f16      (locals, D), opened by memory mapping
        scales.u8            (locals,)
        thumbnails/<id>.jpg  optional
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros import index as retrieval
from etr_ros.camera import Camera
from etr_ros.errors import CameraError, MapError
from etr_ros.poses import to_pose
from etr_ros.types import Features, FloatArray, Place, Pose, View

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
POSE_COLUMNS = ("x_m", "y_m", "z_m", "qx", "qy", "qz", "qw")
PLACE_COLUMNS = ("name", "session", "stamp_ns", "width", "height", "rig", *POSE_COLUMNS)
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
class Rig:
    """A camera and where its optical frame sits on the robot; None where unknown."""

    camera: Camera | None = None
    body_t_camera: Pose | None = None

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Rig:
        """A rig of a manifest. Raises CameraError, KeyError, TypeError or ValueError."""
        camera, mount = values["camera"], values["body_t_camera"]
        if camera is not None:
            k = camera["fx"], 0, camera["cx"], 0, camera["fy"], camera["cy"], 0, 0, 1
            sizes = int(camera["width"]), int(camera["height"])
            camera = Camera.create(*sizes, k, camera["distortion_model"], camera["distortion"])
        if mount is not None:
            mount = to_pose((*mount["position_m"], *mount["quat_xyzw"]), mount["frame_id"])
            if mount is None:
                raise ValueError("a camera's mount is no pose")
        return Rig(camera, mount)


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
    rigs: tuple[Rig, ...]
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
        values["rigs"] = tuple(Rig.from_dict(rig) for rig in values["rigs"])
        info = MapInfo(**values | {"path": str(path)})
        counts_are_sane = 0 < info.places <= MAX_PLACES and info.locals >= 0 and set(info.files) >= set(ARRAYS)
    except (KeyError, TypeError, ValueError, CameraError) as error:
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


def share_in_3d(info: MapInfo) -> float:
    """The share of the local features whose place in 3-D is known, in [0, 1]; the map's files were checked before."""
    if not info.locals:
        return 0.0
    file = Path(info.path) / f"data-{info.map_id}" / "depths.f16"
    depths = np.memmap(file, np.float16, mode="r", shape=(info.locals, 2))[:, 0]
    return float(np.isfinite(depths).mean())


ARRAYS = ("offsets.i64", "keypoints.f32", "depths.f16", "scores.f16", "descriptors.f16", "scales.u8")
_DTYPES = {"i64": np.int64, "f32": np.float32, "f16": np.float16, "u8": np.uint8}


class PlaceMap:
    """A map opened for reading. Local features stay on disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        """Raises MapError that names the file and what is wrong with it."""
        self.info = info = read_info(path)
        self._folder = path / f"data-{info.map_id}"
        check_files(info)
        self.index = retrieval.read_index(self._folder / "index.faiss", info.places, info.features.global_dim)
        self.places, self._image_sizes, self._rigs = self._read_places()
        self._offsets = self._array("offsets.i64", (info.places + 1,))
        if self._offsets[0] != 0 or self._offsets[-1] != info.locals or (np.diff(self._offsets) < 0).any():
            raise MapError(f"{self._folder / 'offsets.i64'} is damaged: build the map again")
        self._keypoints = self._array("keypoints.f32", (info.locals, 2))
        self._depths = self._array("depths.f16", (info.locals, 2))
        self._scores = self._array("scores.f16", (info.locals,))
        self._descriptors = self._array("descriptors.f16", (info.locals, info.features.local_dim))
        self._scales = self._array("scales.u8", (info.locals,))

    def __len__(self) -> int:
        return len(self.places)

    def search(self, query: Features, top_k: int, places_before: int | None = None) -> tuple[list[Place], FloatArray]:
        """The `top_k` places most similar to the query's global descriptor, best first, and their cosines (K,)."""
        ids, cosines = retrieval.search(self.index, query.global_descriptor, top_k, places_before)
        return [self.places[i] for i in ids], cosines

    def view(self, place_id: int) -> View:
        """What is known of one place's picture (descriptors back in float32)."""
        rows = slice(int(self._offsets[place_id]), int(self._offsets[place_id + 1]))
        rig = self.info.rigs[self._rigs[place_id]]
        keypoints = np.array(self._keypoints[rows])
        features = Features(
            keypoints=keypoints,
            scores=self._scores[rows].astype(np.float32),
            descriptors=self._descriptors[rows].astype(np.float32),
            scales=np.array(self._scales[rows]),
            image_size=self._image_sizes[place_id],
            global_descriptor=self.index.reconstruct(place_id),
            points_m=_points(keypoints, self._depths[rows, 0], rig.camera),
            depth_sigma_m=self._depths[rows, 1].astype(np.float32),
        )
        return View(features, rig.camera, rig.body_t_camera)

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

    def _read_places(self) -> tuple[list[Place], list[tuple[int, int]], list[int]]:
        places: list[Place] = []
        sizes: list[tuple[int, int]] = []
        rigs: list[int] = []
        path = self._folder / "places.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    places.append(self._place(len(places), row))
                    sizes.append((int(row["width"]), int(row["height"])))
                    rigs.append(int(row["rig"]))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise MapError(f"{path} is damaged ({error}): build the map again") from error
        if len(places) != self.info.places:
            raise MapError(f"{path} lists {len(places)} places instead of {self.info.places}: build the map again")
        if not all(0 <= rig < len(self.info.rigs) for rig in rigs):
            raise MapError(f"{path} names cameras that the manifest does not have: build the map again")
        return places, sizes, rigs

    def _place(self, place_id: int, row: dict[str, str]) -> Place:
        pose = None
        if row["x_m"]:
            x, y, z, qx, qy, qz, qw = (float(row[column]) for column in POSE_COLUMNS)
            pose = Pose((x, y, z), (qx, qy, qz, qw), self.info.frame_id)
        return Place(place_id, row["name"], row["session"], int(row["stamp_ns"]), pose)


def _points(keypoints: FloatArray, depths: NDArray[np.float16], camera: Camera | None) -> FloatArray | None:
    """(N, 3) in the optical frame from pixels (N, 2) and depths (N,); None when no depth is known."""
    if camera is None or not np.isfinite(depths).any():
        return None
    z = depths.astype(np.float32)[:, None]
    return np.hstack([camera.rays(keypoints).astype(np.float32) * z, z])
