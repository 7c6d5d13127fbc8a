"""A picture of an answer for people: the query beside its best candidates, with scores and verdict."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.types import Candidate, PlaceMatch, State

Image = NDArray[np.uint8]

_TILE_PX = (320, 240)
_TEXT_PX = 44
_GREEN, _AMBER, _RED, _GREY, _WHITE = (80, 200, 80), (0, 170, 255), (80, 80, 220), (90, 90, 90), (255, 255, 255)
_STATE_COLOURS = {State.LOCALIZED: _GREEN, State.AMBIGUOUS: _AMBER, State.UNKNOWN: _GREY}


def draw_match(query: Image, match: PlaceMatch, thumbnail: Callable[[int], Image | None], count: int = 3) -> Image:
    """Query and its `count` best candidates side by side, (H, W, 3) uint8 BGR.

    `query` is (H, W, 3) uint8 BGR of any size; `thumbnail` gives the picture of a place id, or None.
    The frame of a candidate is green when it was accepted, else red.
    """
    tiles = [_tile(query, ("query", match.state.value), _STATE_COLOURS[match.state])]
    for rank, candidate in enumerate(match.candidates[:count], 1):
        colour = _GREEN if candidate.accepted else _RED
        tiles.append(_tile(thumbnail(candidate.place.place_id), _words(rank, candidate), colour))
    return np.hstack(tiles)


def _words(rank: int, candidate: Candidate) -> tuple[str, str]:
    place = candidate.place
    scores = [f"retrieval {candidate.retrieval_score:.2f}"]
    if candidate.etr_score is not None:
        scores.append(f"ETR {candidate.etr_score:+.2f}")
    if candidate.probability is not None:
        scores.append(f"p {candidate.probability:.2f}")
    if candidate.inliers is not None:
        scores.append(f"{candidate.inliers} inliers")
    return f"{rank}. {place.session}/{place.name}"[-40:], "  ".join(scores)


def _tile(picture: Image | None, words: tuple[str, str], colour: tuple[int, int, int]) -> Image:
    width, height = _TILE_PX
    tile = np.zeros((height + _TEXT_PX, width, 3), np.uint8)
    if picture is None:
        _write(tile, "no thumbnail in the map", height // 2)
    else:
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        tile[top : top + size[1], left : left + size[0]] = small
    cv2.rectangle(tile, (0, 0), (width - 1, height - 1), colour, 3)
    for line, text in enumerate(words):
        _write(tile, text, height + 16 + 20 * line)
    return tile


def _write(tile: Image, text: str, y: int) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    cv2.putText(tile, plain, (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _WHITE, 1, cv2.LINE_AA)
