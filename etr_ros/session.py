"""The map of the drive that is going on: it grows in memory and can be searched and saved at any time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros import index as retrieval
from etr_ros.database import FORMAT_VERSION, FeatureSpec, MapInfo
from etr_ros.errors import MapError
from etr_ros.map_writer import MapWriter
from etr_ros.types import Features, FloatArray, Frame, Place, View

THUMBNAIL_PX = 240


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """A place of the session, its picture reduced, and the way driven until there in metres.

    `segment` changes where the odometry breaks off: poses of two segments cannot be compared.
    """

    place: Place
    view: View
    thumbnail: NDArray[np.uint8]  # an encoded JPEG
    way_m: float
    segment: int


class SessionMap:
    """Places in the order in which they were driven. Everything is appended, nothing changes afterwards."""

    def __init__(self, spec: FeatureSpec, session: str = "") -> None:
        """Without a name the session is called by the stamp of its first picture, in nanoseconds."""
        self.spec, self.session = spec, session
        self.keyframes: list[Keyframe] = []
        self._index = faiss.IndexFlatIP(spec.global_dim)
        self._locals, self._frame_id = 0, ""

    def __len__(self) -> int:
        return len(self.keyframes)

    @property
    def places(self) -> list[Place]:
        """All places; the index is the place id."""
        return [keyframe.place for keyframe in self.keyframes]

    @property
    def info(self) -> MapInfo:
        """What a manifest would say now; the session's name takes the place of the map's id."""
        return MapInfo(
            map_id=self.session,
            path="",
            format_version=FORMAT_VERSION,
            places=len(self),
            locals=self._locals,
            sessions=(self.session,),
            has_poses=bool(self._frame_id),
            frame_id=self._frame_id,
            rigs=(),
            features=self.spec,
            descriptors="half",
            index="exact",
            index_parameters={},
            metric="",
            created="",
            files={},
            config={},
        )

    def add(self, frame: Frame, view: View, segment: int = 0) -> Keyframe:
        """Append a picture as the next place."""
        self.session = self.session or str(frame.stamp_ns)
        place = Place(len(self), frame.name, self.session, frame.stamp_ns, frame.pose)
        keyframe = Keyframe(place, _half(view), _thumbnail(frame.image), self.way_to(frame, segment), segment)
        self._index.add(view.features.global_descriptor[None].astype(np.float32))
        self.keyframes.append(keyframe)
        self._locals += len(view.features)
        self._frame_id = frame.pose.frame_id if frame.pose else self._frame_id
        return keyframe

    def way_to(self, frame: Frame, segment: int = 0) -> float:
        """The way driven until `frame` in metres; nothing is added where poses are missing or the odometry broke."""
        if not self.keyframes:
            return 0.0
        last = self.keyframes[-1]
        if frame.pose is None or last.place.pose is None or segment != last.segment:
            return last.way_m
        return last.way_m + math.dist(frame.pose.position_m, last.place.pose.position_m)

    def places_before(self, stamp_ns: int, way_m: float, exclusion_s: float, exclusion_m: float) -> int:
        """How many of the first places are older than `exclusion_s` and, where the way is known, `exclusion_m` away."""
        count = len(self)
        while count and not _is_past(self.keyframes[count - 1], stamp_ns, way_m, exclusion_s, exclusion_m):
            count -= 1
        return count

    def search(self, query: Features, top_k: int, places_before: int | None = None) -> tuple[list[Place], FloatArray]:
        """The `top_k` places most similar to the query's global descriptor, best first, and their cosines (K,)."""
        if not self.keyframes:
            return [], np.empty(0, np.float32)
        ids, cosines = retrieval.search(self._index, query.global_descriptor, top_k, places_before)
        return [self.keyframes[i].place for i in ids], cosines

    def view(self, place_id: int) -> View:
        """What is known of one place's picture (descriptors back in float32)."""
        view = self.keyframes[place_id].view
        descriptors = view.features.descriptors.astype(np.float32)
        return dataclasses.replace(view, features=dataclasses.replace(view.features, descriptors=descriptors))

    def thumbnail(self, place_id: int) -> NDArray[np.uint8]:
        """A small (H, W, 3) BGR picture of the place."""
        return cv2.imdecode(self.keyframes[place_id].thumbnail, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)

    def save(self, path: Path, index: str, config: dict[str, Any]) -> MapInfo:
        """Write what there is now as a map; may be called from another thread. Raises MapError."""
        keyframes = list(self.keyframes)
        if not keyframes:
            raise MapError("there is no place to save yet: drive first")
        with MapWriter(path, self.spec, index, config, thumbnail_px=THUMBNAIL_PX) as writer:
            for keyframe in keyframes:
                place, view = keyframe.place, keyframe.view
                image, names = self.thumbnail(place.place_id), (place.name, place.session)
                frame = Frame(image, place.stamp_ns, *names, place.pose, view.camera, view.body_t_camera)
                writer.add(frame, view.features)
            return writer.commit()


def _is_past(keyframe: Keyframe, stamp_ns: int, way_m: float, exclusion_s: float, exclusion_m: float) -> bool:
    is_old = stamp_ns - keyframe.place.stamp_ns >= exclusion_s * 1e9
    return is_old and (keyframe.place.pose is None or way_m - keyframe.way_m >= exclusion_m)


def _half(view: View) -> View:
    """Descriptors in half precision, as on disk."""
    descriptors: Any = view.features.descriptors.astype(np.float16)
    return dataclasses.replace(view, features=dataclasses.replace(view.features, descriptors=descriptors))


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, THUMBNAIL_PX / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].astype(np.uint8, copy=False)
