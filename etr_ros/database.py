"""The map on disk: its one format and its reader; `etr_ros.map_writer` writes it.

my_map/
    manifest.json            what the map is and how it was made; replaced atomically, so it is the commit point
    data-<map id>/
        globals.f16          (places, G) global descriptors; row = place id
        index-<places>.faiss FAISS index over them, unless the index is exact
        places.rows          stamp, picture size, session, rig and pose of each place, see `etr_ros.place_table`
        names.utf8           their names
        offsets.i64          (places + 1,) first local of each place
        keypoints.f32        (locals, 2) pixels
        depths.f16           (locals, 2) metres along the optical axis, their standard deviation; NaN: unknown
        scores.f16           (locals,)
        descriptors.*        (locals, values), see `etr_ros.local_codes`; codebook.f32 where they are product-quantised
        scales.u8            (locals,)
        thumbnails/<id>.jpg  optional

All but the index are only ever appended to, and may be longer than the manifest says: the rest is no part of the map.
"""

from __future__ import annotations

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
from etr_ros.local_codes import CODEBOOK, KINDS, LocalCodes
from etr_ros.mapped import MappedArrays
from etr_ros.place_table import NAMES, ROW, ROWS, PlaceTable
from etr_ros.poses import to_pose
from etr_ros.types import Features, FloatArray, Place, Pose, View

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
MAX_PLACES = 50_000_000
OFFSETS = "offsets.i64"
LOCALS: dict[str, tuple[str, tuple[int, ...]]] = {
    "keypoints.f32": ("<f4", (2,)),
    "depths.f16": ("<f2", (2,)),
    "scores.f16": ("<f2", ()),
    "scales.u8": ("u1", ()),
}


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
    descriptors: str  # how the local ones are stored: a kind of `etr_ros.local_codes`
    index: str
    index_parameters: dict[str, float]
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

    @property
    def codes(self) -> LocalCodes:
        """How local descriptors are stored, without the codebook."""
        return LocalCodes(self.descriptors, self.features.local_dim)

    @property
    def index_file(self) -> str | None:
        """The exact index has none."""
        return None if self.index == retrieval.EXACT else f"index-{self.places}.faiss"

    def bytes_per_place(self) -> dict[str, float]:
        """What a place takes on disk, by part; of "index" the exact one takes none on disk, but globals in memory."""
        parts = {
            "index": [self.index_file or ""],
            "global descriptor": [retrieval.GLOBALS],
            "local features": [name for name in layout(self) if name in LOCALS or name == self.codes.file],
        }
        of_parts = {part: sum(self.files.get(name, 0) for name in names) for part, names in parts.items()}
        of_parts["the rest"] = self.size_bytes - sum(of_parts.values())
        return {part: size / self.places for part, size in of_parts.items()}


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
        counts_are_sane = 0 < info.places <= MAX_PLACES and info.locals >= 0 and info.descriptors in KINDS
    except (KeyError, TypeError, ValueError, CameraError) as error:
        raise MapError(f"{manifest} is incomplete ({error}): build the map again") from error
    if not counts_are_sane or not info.map_id.isalnum():
        raise MapError(f"{manifest} holds impossible values: build the map again")
    return info


def layout(info: MapInfo) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of every array of a map but its names, by file name."""
    shapes: dict[str, tuple[str | np.dtype[Any], tuple[int, ...]]] = {
        retrieval.GLOBALS: ("<f2", (info.places, info.features.global_dim)),
        ROWS: (ROW, (info.places,)),
        OFFSETS: ("<i8", (info.places + 1,)),
        **{name: (dtype, (info.locals, *shape)) for name, (dtype, shape) in LOCALS.items()},
        info.codes.file: (info.codes.dtype, (info.locals, info.codes.values)),
    }
    if info.descriptors == "pq":
        shapes[CODEBOOK] = ("<f4", info.codes.codebook_shape)
    return {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}


def check_files(info: MapInfo) -> None:
    """Raises MapError that names the first file of a map that is missing or shorter than it was written."""
    folder = Path(info.path) / f"data-{info.map_id}"
    expected = {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in layout(info).items()}
    needed = {*expected, NAMES, *([info.index_file] if info.index_file else [])}
    for name in sorted(needed):
        if info.files.get(name) != expected.get(name, info.files.get(name, -1)):
            raise MapError(f"{folder / name} does not fit the manifest: build the map again")
        file = folder / name
        actual = file.stat().st_size if file.is_file() else None
        if actual is None:
            raise MapError(f"the map {info.path} lacks its file {name}: copy it whole or build it again")
        if actual < info.files[name]:
            raise MapError(
                f"{file} has {actual} bytes instead of {info.files[name]}: copy the map whole or build it again"
            )


def share_in_3d(info: MapInfo) -> float:
    """The share of the local features whose place in 3-D is known, in [0, 1]; the map's files were checked before."""
    if not info.locals:
        return 0.0
    file = Path(info.path) / f"data-{info.map_id}" / "depths.f16"
    depths = np.memmap(file, np.float16, mode="r", shape=(info.locals, 2))[:, 0]
    return float(np.isfinite(depths).mean())


class PlaceMap:
    """A map opened for reading, in the same time however large it is: all but the index stays on disk until it is used.

    `ceiling_mb` (0: none) is how much memory the index and what is kept of the files may take, in 10^6 bytes: under a
    ceiling nothing is kept of the files, they are read each time.
    """

    def __init__(self, path: Path, ceiling_mb: int = 0) -> None:
        """Raises MapError that names the file and what is wrong with it, or the least ceiling that is enough."""
        self.info = info = read_info(path)
        self._folder = path / f"data-{info.map_id}"
        check_files(info)
        self._require_room(ceiling_mb)
        arrays = MappedArrays(self._folder, keeps_nothing=ceiling_mb > 0)
        for name, (dtype, shape) in layout(info).items():
            arrays.open(name, dtype, shape)
        arrays.open(NAMES, np.dtype("u1"), (info.files[NAMES],))
        self._arrays = arrays
        self.places = PlaceTable(arrays, info.places, info.sessions, len(info.rigs), info.frame_id)
        codebook = arrays.read(CODEBOOK, slice(None)) if info.descriptors == "pq" else None
        self._codes = LocalCodes(info.descriptors, info.features.local_dim, codebook)
        index = self._folder / info.index_file if info.index_file else None
        self.retriever = retrieval.Retriever.open(index, arrays, info.places, info.features.global_dim)

    def __len__(self) -> int:
        return self.info.places

    def search(self, query: Features, top_k: int, places_before: int | None = None) -> tuple[list[Place], FloatArray]:
        """The `top_k` places most similar to the query's global descriptor, best first, and their cosines (K,)."""
        ids, cosines = self.retriever.search(query.global_descriptor, top_k, places_before)
        return [self.places[int(i)] for i in ids], cosines

    def global_descriptors(self, place_ids: NDArray[np.int64]) -> FloatArray:
        """(N, G) of some places."""
        return self._arrays.read(retrieval.GLOBALS, place_ids).astype(np.float32)

    def view(self, place_id: int) -> View:
        """What is known of one place's picture (descriptors back in float32). Raises MapError where it is damaged."""
        start, stop = self._arrays.read(OFFSETS, slice(place_id, place_id + 2)).tolist()
        if not 0 <= start <= stop <= self.info.locals:
            raise MapError(f"{self._folder / OFFSETS} is damaged at place {place_id}: build the map again")
        rows, shot = slice(start, stop), self.places.shot(place_id)
        rig = self.info.rigs[shot.rig]
        keypoints = self._arrays.read("keypoints.f32", rows)
        depths = self._arrays.read("depths.f16", rows)
        features = Features(
            keypoints=keypoints,
            scores=self._arrays.read("scores.f16", rows).astype(np.float32),
            descriptors=self._codes.decode(self._arrays.read(self._codes.file, rows)),
            scales=self._arrays.read("scales.u8", rows),
            image_size=shot.image_size,
            global_descriptor=self.global_descriptors(np.array([place_id]))[0],
            points_m=_points(keypoints, depths[:, 0], rig.camera),
            depth_sigma_m=depths[:, 1].astype(np.float32),
        )
        return View(features, rig.camera, rig.body_t_camera)

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None:
        """A small (H, W, 3) BGR picture of the place, or None when the map has none."""
        picture = cv2.imread(str(self._folder / "thumbnails" / f"{place_id}.jpg"))
        return None if picture is None else picture.astype(np.uint8, copy=False)

    def _require_room(self, ceiling_mb: int) -> None:
        info, codes = self.info, self.info.codes
        index = info.files[info.index_file] if info.index_file else info.files[retrieval.GLOBALS]
        one_place = (codes.values * codes.dtype.itemsize + 16) * info.features.max_keypoints
        least = index + info.files.get(CODEBOOK, 0) + one_place
        if ceiling_mb and ceiling_mb * 10**6 < least:
            raise MapError(
                f"memory.ceiling_mb is {ceiling_mb}, the map {info.path} needs at least {-(-least // 10**6)}: "
                f"its index takes {index / 1e6:.1f} MB, one place {one_place / 1e6:.1f} MB"
            )


def _points(keypoints: FloatArray, depths: NDArray[np.float16], camera: Camera | None) -> FloatArray | None:
    """(N, 3) in the optical frame from pixels (N, 2) and depths (N,); None when no depth is known."""
    if camera is None or not np.isfinite(depths).any():
        return None
    z = depths.astype(np.float32)[:, None]
    return np.hstack([camera.rays(keypoints).astype(np.float32) * z, z])
