"""The annotated picture."""

from __future__ import annotations

import numpy as np
import pytest

from builders import make_place
from etr_ros.ros.picture import draw_match
from etr_ros.types import Candidate, PlaceMatch, State

QUERY = np.full((480, 640, 3), 77, np.uint8)


def match(count: int, accepted: bool = False) -> PlaceMatch:
    candidates = tuple(Candidate(make_place(i), 0.5, 1.0, 0.9, None, accepted) for i in range(count))
    return PlaceMatch(0, State.UNKNOWN, candidates)


@pytest.mark.parametrize("shape", [(32, 32), (2000, 40), (40, 2000), (4320, 7680)])
def test_every_shape_of_query_fits(shape: tuple[int, int]) -> None:
    pictures = [draw_match(np.zeros((*size, 3), np.uint8), match(1), lambda _: QUERY) for size in (shape, (480, 640))]
    assert pictures[0].shape == pictures[1].shape
    assert pictures[0].dtype == np.uint8


def test_one_tile_per_candidate_up_to_the_count() -> None:
    widths = [draw_match(QUERY, match(count), lambda _: None).shape[1] for count in range(6)]
    tile = widths[0]
    assert widths == [tile, 2 * tile, 3 * tile, 4 * tile, 4 * tile, 4 * tile]


def test_thumbnails_of_the_candidates_are_asked_for_and_shown() -> None:
    asked: list[int] = []

    def thumbnail(place_id: int) -> np.ndarray:
        asked.append(place_id)
        return np.full((24, 32, 3), 200, np.uint8)

    picture = draw_match(QUERY, match(2), thumbnail)
    assert asked == [0, 1]
    tile = picture.shape[1] // 3
    middle = picture[120]
    assert (middle[tile // 2] == 77).all()
    assert (middle[tile + tile // 2] == 200).all()


def test_accepted_candidate_looks_different() -> None:
    accepted, refused = (draw_match(QUERY, match(1, yes), lambda _: QUERY) for yes in (True, False))
    assert not np.array_equal(accepted, refused)
