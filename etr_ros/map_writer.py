"""Writes the map on disk, whole or not at all, and adds to one; `etr_ros.database` says its format."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros import index as retrieval
from etr_ros.database import FORMAT_VERSION, MANIFEST, FeatureSpec, MapInfo, Rig, check_files, layout, read_info
from etr_ros.errors import MapError
from etr_ros.local_codes import CODEBOOK, TRAINING_LOCALS, LocalCodes
from etr_ros.memory_config import MemoryConfig
from etr_ros.place_table import NAMES, ROWS, pack
from etr_ros.types import Features, FloatArray, Frame, Place

METRIC = "inner product of L2-normalised descriptors"
THUMBNAIL_PX = 240


class MapWriter:
    """Writes a map, or adds places to one (`add_to`); nothing of it is visible before `commit`.

    Use as a context manager: leaving it without `commit` removes what was written, and a map that was there stays.
    The bytes of the files depend on the places and their order alone, not on how many were added at a time.
    """

    def __init__(
        self,
        path: Path,
        spec: FeatureSpec,
        index: str,
        config: dict[str, Any],
        thumbnail_px: int = THUMBNAIL_PX,
        map_id: str = "",
        memory: MemoryConfig | None = None,
    ) -> None:
        """`thumbnail_px` is the longer side of the stored thumbnails; 0 stores none.

        With a `map_id` of your own the time of writing is left out: the same places give the same bytes.
        Raises MapError.
        """
        if path.exists() and not path.is_dir():
            raise MapError(f"{path} is a file: give another --output")
        if path.is_dir() and any(path.iterdir()) and not _looks_like_map(path):
            raise MapError(f"{path} holds other files and is not a map: give another --output")
        memory = memory or MemoryConfig()
        self._path, self._thumbnail_px = path, thumbnail_px
        self._before = MapInfo(
            map_id=map_id or hashlib.sha256(f"{time.time_ns()}-{os.getpid()}".encode()).hexdigest()[:12],
            path=str(path),
            format_version=FORMAT_VERSION,
            places=0,
            locals=0,
            sessions=(),
            has_poses=False,
            frame_id="",
            rigs=(),
            features=spec,
            descriptors=memory.descriptors,
            index="",
            index_parameters={},
            metric=METRIC,
            created="" if map_id else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files={},
            config=config,
        )
        self._kind, self._max_locals = index, memory.locals
        self._open()

    @staticmethod
    def add_to(path: Path, spec: FeatureSpec, thumbnail_px: int = THUMBNAIL_PX) -> MapWriter:
        """Add to the map at `path`, whose index and ways to store are kept.

        Raises MapError for a map that is damaged, or whose features were made otherwise than `spec` says.
        """
        info = read_info(path)
        check_files(info)
        difference = info.features.difference(spec)
        if difference:
            raise MapError(f"the map {path} was made with {difference}: add with the map's configuration (`etr info`)")
        writer = MapWriter.__new__(MapWriter)
        writer._path, writer._thumbnail_px, writer._before = path, thumbnail_px, info
        writer._kind = info.config.get("retrieval", {}).get("index", info.index)
        writer._max_locals = info.config.get("memory", {}).get("locals", 0)
        writer._open()
        return writer

    def _open(self) -> None:
        """Take up what there is, which is nothing in a new map."""
        info = self._before
        self._folder = self._path / f"data-{info.map_id}"
        self._places, self._locals, self._name_end = info.places, info.locals, info.files.get(NAMES, 0)
        self._sessions = {session: number for number, session in enumerate(info.sessions)}
        self._rigs = {rig: number for number, rig in enumerate(info.rigs)}
        self._frame_id, self._posed = info.frame_id, info.has_poses
        self._codes, self._untrained = info.codes, list[FloatArray]()
        self._files: dict[str, IO[bytes]] = {}
        self._is_committed = False
        names = [name for name in layout(info) if name != CODEBOOK] + [NAMES]
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=info.places > 0)
            for name in names:
                self._files[name] = (self._folder / name).open("ab")
        if info.places:
            self._lock()
            self._cut_back()
            if info.descriptors == "pq":
                codebook = np.fromfile(self._folder / CODEBOOK, "<f4").reshape(info.codes.codebook_shape)
                self._codes = LocalCodes(info.descriptors, info.features.local_dim, codebook)
        else:
            self._files["offsets.i64"].write(np.zeros(1, "<i8").tobytes())

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_committed:
            self._undo()
        self._close()

    def __len__(self) -> int:
        """Places, with those that were there before."""
        return self._places

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the drives that the map holds."""
        return tuple(self._sessions)

    def add(self, frame: Frame, features: Features) -> None:
        """Append `frame` as the next place. Raises MapError for poses in two different frames, or a full disk."""
        pose = frame.pose
        if pose is not None:
            if self._posed and pose.frame_id != self._frame_id:
                raise MapError(f"poses in two frames, '{self._frame_id}' and '{pose.frame_id}': a map has one frame")
            self._frame_id, self._posed = pose.frame_id, True
        if self._max_locals:
            features = features.strongest(self._max_locals)
        rig = self._rigs.setdefault(Rig(frame.camera, frame.body_t_camera), len(self._rigs))
        session = self._sessions.setdefault(frame.session, len(self._sessions))
        name = frame.name.encode(errors="replace")
        self._name_end += len(name)
        place = Place(self._places, frame.name, frame.session, frame.stamp_ns, pose)
        with self._writing():
            self._write(NAMES, name)
            self._write(ROWS, pack(place, self._name_end, features.image_size, session, rig))
            self._write(retrieval.GLOBALS, features.global_descriptor.astype("<f2"))
            self._write("keypoints.f32", features.keypoints.astype("<f4"))
            self._write("depths.f16", _depths(features).astype("<f2"))
            self._write("scores.f16", features.scores.astype("<f2"))
            self._write("scales.u8", features.scales.astype("u1"))
            self._write_descriptors(features.descriptors)
            self._locals += len(features)
            self._write("offsets.i64", np.array([self._locals], "<i8"))
            if self._thumbnail_px:
                self._write_thumbnail(self._places, frame.image)
        self._places += 1

    def commit(self) -> MapInfo:
        """Make the index, then the map visible at its path, and remove what it replaces.

        Raises MapError when it is empty, when the disk is full, or when somebody else replaced the map meanwhile.
        """
        if not self._places:
            raise MapError("no picture could be used, so there is no map: check the pictures and the topic")
        with self._writing():
            self._train_codes()
            for file in self._files.values():
                file.flush()
            info = self._index()
            names = sorted({*layout(info), NAMES, *([info.index_file] if info.index_file else [])})
            info = dataclasses.replace(info, files={name: (self._folder / name).stat().st_size for name in names})
            for name in names:
                _sync(self._folder / name)
            self._publish(info)
        self._clear_stale(info)
        return info

    def _index(self) -> MapInfo:
        """What the manifest will say but for the files, with the index on disk."""
        before, size = self._before, self._before.features.global_dim
        vectors = np.memmap(self._folder / retrieval.GLOBALS, np.float16, mode="r", shape=(self._places, size))
        kind, parameters = retrieval.choose(self._kind, self._places), before.index_parameters
        if not before.places or retrieval.is_outgrown(self._kind, before.index, before.places, self._places):
            index, parameters = retrieval.build_index(kind, vectors)
        elif before.index_file:
            index = faiss.read_index(str(self._folder / before.index_file))
            retrieval.extend_index(index, vectors)
        else:
            index = None
        info = dataclasses.replace(
            before,
            places=self._places,
            locals=self._locals,
            sessions=tuple(self._sessions),
            has_poses=self._posed,
            frame_id=self._frame_id,
            rigs=tuple(self._rigs),
            index=kind,
            index_parameters=parameters,
        )
        if index is not None and info.index_file:
            try:
                faiss.write_index(index, str(self._folder / info.index_file))
            except RuntimeError as error:
                raise OSError(f"{info.index_file} could not be written whole") from error
        return info

    def _publish(self, info: MapInfo) -> None:
        if self._before.places and _state(self._path) != (self._before.map_id, self._before.places):
            raise MapError(f"{self._path} was replaced by another map meanwhile: nothing was added, add again")
        values = dataclasses.asdict(info)
        del values["path"]
        draft = self._folder / MANIFEST
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        _sync(draft)
        os.replace(draft, self._path / MANIFEST)
        self._is_committed = True
        _sync(self._path)

    def _clear_stale(self, info: MapInfo) -> None:
        for stale in self._path.glob("data-*"):
            if stale != self._folder:
                shutil.rmtree(stale, ignore_errors=True)
        for stale in self._folder.glob("index-*.faiss"):
            if stale.name != info.index_file:
                stale.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes | NDArray[Any]) -> None:
        self._files[name].write(data if isinstance(data, bytes) else data.tobytes())

    def _write_descriptors(self, descriptors: FloatArray) -> None:
        if self._codes.is_trained:
            self._write(self._codes.file, self._codes.encode(descriptors))
            return
        self._untrained.append(descriptors)
        if sum(map(len, self._untrained)) >= TRAINING_LOCALS:
            self._train_codes()

    def _train_codes(self) -> None:
        if self._codes.is_trained:
            return
        known = np.concatenate(self._untrained)
        self._codes = self._codes.train(known)
        (self._folder / CODEBOOK).write_bytes(np.asarray(self._codes.codebook, "<f4").tobytes())
        self._write(self._codes.file, self._codes.encode(known))
        self._untrained.clear()

    def _write_thumbnail(self, place_id: int, image: NDArray[np.uint8]) -> None:
        scale = min(1.0, self._thumbnail_px / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        folder = self._folder / "thumbnails"
        folder.mkdir(exist_ok=True)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
        (folder / f"{place_id}.jpg").write_bytes(jpeg.tobytes())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that takes no more is one error that says so."""
        try:
            yield
        except OSError as error:
            kept = "the map is as it was before" if self._before.places else "nothing of it is kept"
            raise MapError(f"cannot write a map to {self._path} ({error.strerror or error}); {kept}") from error

    def _lock(self) -> None:
        """Only one may add at a time; the lock ends with the process."""
        try:
            fcntl.flock(self._files[ROWS].fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._close()
            raise MapError(f"somebody else is adding to the map {self._path} right now: try again later") from error

    def _cut_back(self) -> None:
        """Remove what an interrupted addition, or this one, wrote behind the map's end."""
        for name, file in self._files.items():
            file.truncate(self._before.files[name])

    def _undo(self) -> None:
        self._close()
        if not self._before.places:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._path.is_dir() and not any(self._path.iterdir()):
                self._path.rmdir()
            return
        for name in self._files:
            os.truncate(self._folder / name, self._before.files[name])
        for place_id in range(self._before.places, self._places + 1):
            (self._folder / "thumbnails" / f"{place_id}.jpg").unlink(missing_ok=True)
        self._clear_stale(self._before)

    def _close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # what a full disk does not take was told before
                file.close()


def _depths(features: Features) -> FloatArray:
    """(N, 2) metres along the optical axis and their standard deviation, NaN where unknown."""
    unknown = np.full(len(features), np.nan, np.float32)
    depth = unknown if features.points_m is None else features.points_m[:, 2]
    sigma = unknown if features.depth_sigma_m is None else features.depth_sigma_m
    return np.column_stack([depth, sigma])


def _state(path: Path) -> tuple[str, int] | None:
    try:
        info = read_info(path)
    except MapError:
        return None
    return info.map_id, info.places


def _looks_like_map(path: Path) -> bool:
    """A folder that only holds a manifest and data folders (also those of an interrupted build)."""
    return all(entry.name == MANIFEST or entry.name.startswith("data-") for entry in path.iterdir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
