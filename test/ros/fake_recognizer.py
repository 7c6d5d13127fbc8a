"""A recogniser on a real map, without networks: the first pixel of the picture (BGR) says what it answers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from etr_ros.anytime import UNLIMITED, Allowance, Effort
from etr_ros.config import Config
from etr_ros.database import MapInfo, PlaceMap
from etr_ros.errors import ImageError, MapError
from etr_ros.types import Candidate, Frame, LoopAnswer, Place, PlaceMatch, State

# Meanings of the red value; any other is localized
AMBIGUOUS, UNKNOWN, NO_KEYPOINTS, BUG = 201, 202, 203, 204
SECONDS_PER_GREEN = 0.01


def pixels(place_id: int = 0, delay_s: float = 0.0, red: int = 0) -> np.ndarray:
    """A BGR picture that is answered with `place_id` first, after `delay_s`; `red` as above."""
    picture = np.full((48, 64, 3), 128, np.uint8)
    picture[:] = place_id, round(delay_s / SECONDS_PER_GREEN), red
    return picture


class FakeRecognizer:
    """The surface of `etr_ros.pipeline.PlaceRecognizer`."""

    def __init__(self, place_map: PlaceMap, config: Config) -> None:
        self._map, self._config = place_map, config

    @staticmethod
    def open(path: Path | None, config: Config) -> FakeRecognizer:
        if path is None:
            raise MapError("no map is given: set the parameter node.map to the folder of one (launch: map:=FOLDER)")
        return FakeRecognizer(PlaceMap(path), config)

    def load_map(self, path: Path) -> None:
        self._map = PlaceMap(path)

    def save_map(self, path: Path) -> MapInfo:
        raise MapError("nothing is mapped while localizing")

    def restart(self) -> None:
        pass

    def answer(
        self, frame: Frame, segment: int = 0, asked: bool = False, allowance: Allowance = UNLIMITED
    ) -> LoopAnswer:
        return LoopAnswer(self.query(frame, allowance.effort), ())

    @property
    def info(self) -> MapInfo:
        return self._map.info

    @property
    def places(self) -> list[Place]:
        return self._map.places

    def configure(self, config: Config) -> None:
        self._config = config

    def query(self, frame: Frame, effort: Effort) -> PlaceMatch:
        blue, green, red = map(int, frame.image[0, 0])
        time.sleep(green * SECONDS_PER_GREEN)
        if red == NO_KEYPOINTS:
            raise ImageError("no features in this picture")
        if red == BUG:
            raise ZeroDivisionError("a bug")
        state = {AMBIGUOUS: State.AMBIGUOUS, UNKNOWN: State.UNKNOWN}.get(red, State.LOCALIZED)
        count = effort.share(min(self._config.retrieval.top_k, len(self._map)), effort.candidates)
        ids = [(blue + i) % len(self._map) for i in range(count)]
        candidates = tuple(self._candidate(rank, place_id, state) for rank, place_id in enumerate(ids))
        return PlaceMatch(frame.stamp_ns, state, candidates, {"extract": 1.0, "retrieve": 2.0})

    def thumbnail(self, place_id: int) -> np.ndarray | None:
        return self._map.thumbnail(place_id)

    def _candidate(self, rank: int, place_id: int, state: State) -> Candidate:
        accepted = rank == 0 and state is not State.UNKNOWN
        reason = "" if accepted else "not the first"
        return Candidate(self._map.places[place_id], 0.9 - 0.01 * rank, 2.0 - rank, 0.75, None, accepted, reason)
