"""The pictures of a report, small enough for one page, and the local matches between two of them."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros import result_files, verify
from etr_ros.database import PlaceMap
from etr_ros.errors import MapError
from etr_ros.result import Query, Result
from etr_ros.types import Features, Place

BUDGET = 6_000_000  # base64 characters of all pictures
LADDER = ((240, 80), (240, 60), (200, 50), (160, 45), (128, 40), (96, 35))  # longer side in pixels, JPEG quality
SAMPLE = 16
MAX_LINES = 80  # drawn for a pair; more are no clearer
ITERATIONS = 200  # of the robust fit: a fifth of those that judge, for a drawing alone; 2 % fewer agree
GRID = 255  # keypoints are told as this many steps of the picture's width and height

Lines = Future[tuple[int, int, str]]
Key = tuple[str, int]  # "own" or "map", and the number of the place in it


class Pictures:
    """What a result, and the map that it was made with, still know of pictures."""

    def __init__(self, path: Path, result: Result) -> None:
        self.notes: list[str] = []
        self.own = self._open(path / result_files.PICTURES)
        self.map: PlaceMap | None = None
        told = result.manifest.get("map")
        if isinstance(told, dict) and isinstance(told.get("path"), str):
            found = self._open(Path(told["path"]))
            if found is not None and found.info.map_id == told.get("map_id"):
                self.map = found
            else:
                self.notes.append(f"the map at {told['path']} is not the one of this replay: its pictures are left out")
        self._session = result.manifest.get("session") if result.manifest.get("mode") == "loops" else None
        self._ids = {query.stamp_ns: query.picture_id for query in result.queries}

    def key_of_query(self, query: Query) -> Key | None:
        """Where the picture of a query is."""
        return self._key("own", query.picture_id)

    def key_of_match(self, place: Place) -> Key | None:
        """Where the picture of a place is: in this recording or in the map."""
        if self._session is not None and place.session == self._session:
            return self._key("own", self._ids.get(place.stamp_ns))
        return self._key("map", place.place_id)

    def thumbnail(self, key: Key) -> NDArray[np.uint8] | None:
        """(H, W, 3) BGR."""
        return self._of(key).thumbnail(key[1])

    def features(self, key: Key) -> Features:
        """With which the pictures were compared."""
        return self._of(key).view(key[1]).features

    def _of(self, key: Key) -> PlaceMap:
        found = self.own if key[0] == "own" else self.map
        if found is None:
            raise MapError(f"there is no picture {key}")
        return found

    def _key(self, side: str, number: int | None) -> Key | None:
        found = self.own if side == "own" else self.map
        return None if found is None or number is None or not 0 <= number < len(found) else (side, number)

    def _open(self, path: Path) -> PlaceMap | None:
        if not path.exists():
            return None
        try:
            return PlaceMap(path)
        except MapError as error:
            self.notes.append(str(error))
            return None


def encode(pictures: Sequence[NDArray[np.uint8]], budget: int = BUDGET) -> list[str]:
    """JPEG as base64: of the first size and quality of `LADDER` at which all of them together fit the budget.

    What does not fit at the smallest either is left empty, the last ones first.
    """
    if not pictures:
        return []
    sample = pictures[:: max(1, len(pictures) // SAMPLE)]
    for side, quality in LADDER:
        size = sum(len(_jpeg(picture, side, quality)) for picture in sample) / len(sample)
        if size * len(pictures) <= 0.9 * budget:
            break
    encoded, used = [], 0
    for picture in pictures:
        text = _jpeg(picture, side, quality)
        used += len(text)
        encoded.append(text if used <= budget else "")
    return encoded


def lines(a: Features, b: Features) -> tuple[int, int, str]:
    """The local matches of two pictures: how many, how many agree with one epipolar geometry, and where these are.

    The places are base64 of x, y in picture a and x, y in picture b, each a byte, in units of 1 / `GRID` of width and
    height. At most `MAX_LINES`, evenly picked.
    """
    matches = verify.mutual_matches(a, b)
    agree = matches[verify.epipolar_inliers(a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]], ITERATIONS)]
    shown = agree[np.linspace(0, max(len(agree) - 1, 0), min(len(agree), MAX_LINES)).astype(np.int64)]
    both = np.hstack([_steps(a, shown[:, 0]), _steps(b, shown[:, 1])])
    return len(matches), len(agree), base64.b64encode(both.tobytes()).decode("ascii")


def compare(
    pairs: Sequence[tuple[Key, Key]], pictures: Pictures, track: Callable[[Sequence[Lines]], Iterable[Lines]]
) -> list[tuple[int, int, str]]:
    """`lines` of each pair, on all cores; `track` sees the work that is to be done."""

    def both(pair: tuple[Key, Key]) -> tuple[int, int, str]:
        return lines(pictures.features(pair[0]), pictures.features(pair[1]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [work.result() for work in track([pool.submit(both, pair) for pair in pairs])]


def _steps(features: Features, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    share = (features.keypoints[rows] + 0.5) / np.array(features.image_size, np.float32)
    steps: NDArray[np.uint8] = np.clip(np.rint(share * GRID), 0, GRID).astype(np.uint8)
    return steps


def _jpeg(picture: NDArray[np.uint8], side: int, quality: int) -> str:
    scale = min(1.0, side / max(picture.shape[:2]))
    if scale < 1:
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    return base64.b64encode(data.tobytes()).decode("ascii")
