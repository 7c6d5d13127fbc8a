"""The pairs of pictures that changed between two replays, on one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros import result_files
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError, MapError
from etr_ros.result import Result
from etr_ros.result_diff import Difference
from etr_ros.types import LoopClosure

Picture = NDArray[np.uint8]
TILE = (240, 180)  # width, height in pixels
TEXT_PX = 26
MAX_PAIRS = 40
COLOURS = {"gained": (90, 160, 40), "lost": (60, 60, 200), "moved": (200, 130, 30)}  # BGR


def write_sheet(path: Path, found: Difference, a: tuple[Path, Result], b: tuple[Path, Result]) -> str:
    """Query and match of each gained, lost or moved loop side by side; gives back one line on what was written.

    Pictures that are not there, as of a map that was removed, are grey. Raises DataError when it cannot be written.
    """
    pairs = [*((each, "gained", b) for each in found.gained), *((each, "lost", a) for each in found.lost)]
    pairs += [(after, "moved", b) for _, after in found.moved]
    if not pairs:
        return f"no loop changed: {path} was not written"
    sources = {side[0]: _Pictures(*side) for side in (a, b)}
    tiles = [_tile(loop, kind, sources[side[0]]) for loop, kind, side in pairs[:MAX_PAIRS]]
    columns = min(3, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])
    if not path.suffix or not cv2.haveImageWriter(str(path)) or not cv2.imwrite(str(path), sheet):
        raise DataError(f"cannot write the picture {path}: give a name that ends in .png in a folder that exists")
    left_out = f", {len(pairs) - MAX_PAIRS} more are left out" if len(pairs) > MAX_PAIRS else ""
    return f"{path}: {min(len(pairs), MAX_PAIRS)} pairs{left_out}"


class _Pictures:
    """Thumbnails of a result, and of the map that it was made with, where they are still there."""

    def __init__(self, path: Path, result: Result) -> None:
        self._session = result.manifest.get("session")
        self._own = _open(path / result_files.PICTURES)
        place_map = result.manifest.get("map")
        self._map = _open(Path(str(place_map["path"]))) if isinstance(place_map, dict) else None
        self._ids = {query.stamp_ns: query.picture_id for query in result.queries}

    def of(self, loop: LoopClosure) -> Iterator[Picture | None]:
        """Of the query and of the match."""
        yield self._thumbnail(self._own, self._ids.get(loop.query.stamp_ns))
        if loop.match.session == loop.query.session:
            yield self._thumbnail(self._own, self._ids.get(loop.match.stamp_ns))
        else:
            yield self._thumbnail(self._map, loop.match.place_id)

    def _thumbnail(self, place_map: PlaceMap | None, place_id: int | None) -> Picture | None:
        if place_map is None or place_id is None or not 0 <= place_id < len(place_map.places):
            return None
        return place_map.thumbnail(place_id)


def _open(path: Path) -> PlaceMap | None:
    try:
        return PlaceMap(path)
    except MapError:
        return None


def _tile(loop: LoopClosure, kind: str, pictures: _Pictures) -> Picture:
    """(H, W, 3) BGR: a line of text over the two pictures."""
    both = np.hstack([_fitted(picture) for picture in pictures.of(loop)])
    line = np.full((TEXT_PX, both.shape[1], 3), 255, np.uint8)
    text = f"{kind}: {loop.geometry.inliers} inliers, {loop.query.name} - {loop.match.name}"
    cv2.putText(line, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.4, COLOURS[kind], 1, cv2.LINE_AA)
    return np.pad(np.vstack([line, both]), ((4, 4), (4, 4), (0, 0)), constant_values=255)


def _fitted(picture: Picture | None) -> Picture:
    width, height = TILE
    canvas = np.full((height, width, 3), 200, np.uint8)
    if picture is None:
        return canvas
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    canvas[: size[1], : size[0]] = small
    return canvas
