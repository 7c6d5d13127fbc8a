"""Place recognition, start to end: the one place where the stages meet."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etr_ros import decision, rerank
from etr_ros.config import Config
from etr_ros.database import MapInfo, PlaceMap
from etr_ros.errors import ConfigError, MapError
from etr_ros.features import Extractor
from etr_ros.types import Candidate, Features, Frame, Place, PlaceMatch


class Stopwatch:
    """Milliseconds of each stage, in the order in which the stages ended."""

    def __init__(self) -> None:
        self.stage_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.stage_ms[stage] = (now - self._last) * 1e3
        self._last = now


class PlaceRecognizer:
    """Recognises the places of one map in pictures. `query` changes nothing in the map."""

    def __init__(self, place_map: PlaceMap, extractor: Extractor, scorer: rerank.Scorer | None, config: Config) -> None:
        self._map, self._extractor, self._scorer, self._config = place_map, extractor, scorer, config

    @staticmethod
    def open(map_path: Path, config: Config | None = None) -> PlaceRecognizer:
        """Open a map and load the networks.

        Raises MapError when the map is damaged or its features were made with other weights or another configuration,
        WeightsError or ConfigError when a network cannot be loaded.
        """
        config = config or Config()
        place_map = PlaceMap(map_path)
        extractor = Extractor.load(config)
        difference = place_map.info.features.difference(extractor.spec)
        if difference:
            raise MapError(
                f"the map {map_path} was made with {difference}: "
                "use the map's configuration (see `etr info`) or build it again"
            )
        scorer = rerank.load(config.rerank.name, config.extractor.name, extractor.device, config.rerank.max_locals)
        return PlaceRecognizer(place_map, extractor, scorer, config)

    @property
    def info(self) -> MapInfo:
        return self._map.info

    @property
    def places(self) -> list[Place]:
        """All places of the map; the index is the place id."""
        return self._map.places

    def configure(self, config: Config) -> None:
        """Take over values that may change while running (`live` in config.py).

        Raises ConfigError for any other change.
        """
        sections = ("compute", "extractor", "rerank")
        fixed = [section for section in sections if getattr(config, section) != getattr(self._config, section)]
        if fixed:
            raise ConfigError(f"{', '.join(fixed)} cannot change while running: load the map again")
        self._config = config

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Run once on noise, so that the first real query is not the slow one."""
        noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        self.query(Frame(noise, stamp_ns=0))

    def query(self, frame: Frame, places_before: int | None = None) -> PlaceMatch:
        """Where is this picture? With `places_before`, only places with a smaller id are candidates.

        Raises ImageError when no features can be computed from the picture.
        """
        watch = Stopwatch()
        features = self._extractor(frame.image)
        watch.lap("extract")
        places, cosines = self._map.search(features, self._config.retrieval.top_k, places_before)
        watch.lap("retrieve")
        candidates = self._ranked(features, places, cosines)
        watch.lap("rerank")
        state, judged = decision.decide(candidates, self._config.decision)
        watch.lap("decide")
        return PlaceMatch(frame.stamp_ns, state, judged, watch.stage_ms)

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None:
        """A small (H, W, 3) BGR picture of a place, or None when the map has none."""
        return self._map.thumbnail(place_id)

    def _ranked(self, query: Features, places: list[Place], cosines: NDArray[np.float32]) -> list[Candidate]:
        if self._scorer is None:
            return [Candidate(place, float(cosine)) for place, cosine in zip(places, cosines, strict=True)]
        scores = self._scorer(query, [self._map.features(place.place_id) for place in places])
        probabilities, inliers = scores.probabilities, scores.inliers
        return [
            Candidate(
                place=places[i],
                retrieval_score=float(cosines[i]),
                etr_score=float(scores.values[i]) if inliers is None else None,
                probability=None if probabilities is None else float(probabilities[i]),
                inliers=None if inliers is None else int(inliers[i]),
            )
            for i in np.argsort(-scores.values, kind="stable")
        ]
