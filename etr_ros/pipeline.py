"""Place recognition, start to end: the one place where the stages meet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from etr_ros import calibration, decision, evidence, geometry, ranking, rerank, verify
from etr_ros.anytime import UNLIMITED, Allowance, is_settled
from etr_ros.calibration import PLACES, Calibration
from etr_ros.config import Config, GeometryConfig
from etr_ros.database import MapInfo, PlaceMap
from etr_ros.errors import ConfigError, MapError
from etr_ros.evidence import Past
from etr_ros.features import Extractor
from etr_ros.types import Candidate, Features, FloatArray, Frame, LoopAnswer, LoopClosure, Place, PlaceMatch, View
from etr_ros.views import look


class Stopwatch:
    """Milliseconds of each stage, in the order in which the stages ended."""

    def __init__(self) -> None:
        self.stage_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now


@dataclass(frozen=True, eq=False)
class Drive:
    """What a query is part of: itself with its odometry, the queries before it, the unbroken piece of odometry."""

    query: Place
    past: Past | None = None
    segment: int = 0


class Places(Protocol):
    """Places that can be searched: `etr_ros.database.PlaceMap` or `etr_ros.session.SessionMap`."""

    @property
    def places(self) -> Sequence[Place]: ...

    def search(
        self, query: Features, top_k: int, places_before: int | None = None
    ) -> tuple[list[Place], FloatArray]: ...

    def view(self, place_id: int) -> View: ...

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None: ...


@dataclass(frozen=True, eq=False)
class Networks:
    """What reads pictures, puts candidates in order, and (`calibration`) knows how probable they are."""

    extractor: Extractor
    scorer: rerank.Scorer | None
    calibration: Calibration | None = None

    @staticmethod
    def load(config: Config) -> Networks:
        """Raises WeightsError or ConfigError when a network or the calibration cannot be loaded."""
        extractor = Extractor.load(config)
        name, max_locals = config.rerank.name, config.rerank.max_locals
        scorer = rerank.load(name, config.extractor.name, extractor.device, max_locals)
        networks = Networks(extractor, scorer, calibration.load(config))
        networks.check(config)
        return networks

    def check(self, config: Config) -> None:
        """Raises ConfigError when the calibration does not tell what the configuration asks of it."""
        self.least(PLACES, config)

    def least(self, kind: str, config: Config) -> float | None:
        """The least probability that `max_false_loops_per_km` asks for of places or loops; None when it is off.

        Raises ConfigError when there is no calibration that tells it.
        """
        allowed = config.decision.max_false_loops_per_km
        if not allowed:
            return None
        if self.calibration is None:
            raise ConfigError(
                "decision.max_false_loops_per_km needs a calibration: fit one with `etr calibrate` and name it in "
                "decision.calibration"
            )
        return self.calibration.threshold(kind, allowed)

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Run once on noise, so that the first real picture is not the slow one."""
        features = self.extractor(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
        if self.scorer is not None:
            self.scorer(features, [features, features])

    def find(
        self,
        view: View,
        stamp_ns: int,
        places: Places,
        config: Config,
        watch: Stopwatch,
        *,
        before: int | None = None,
        expected: Sequence[int] = (),
        with_geometry: bool = True,
        drive: Drive | None = None,
        allowance: Allowance = UNLIMITED,
    ) -> PlaceMatch:
        """Which of the places (with `before`: of those with a smaller id) shows the view?

        `with_geometry` verifies the best candidates, see `geometry.estimate`; the `expected` places are candidates
        whatever they look like, and are verified first. A picture of a `drive` may be supported by those before it.
        """
        effort = allowance.effort
        found, cosines = places.search(view.features, effort.share(config.retrieval.top_k, effort.candidates), before)
        found, cosines = _with_expected(found, cosines, expected, view.features, places)
        candidates = [Candidate(place, float(cosine)) for place, cosine in zip(found, cosines, strict=True)]
        watch.lap("retrieve")
        asked_least = self.least(PLACES, config)
        least = config.decision.min_probability if asked_least is None else asked_least
        limit = effort.share(config.extractor.max_keypoints, effort.locals) if effort.locals < 1 else None
        view = _cut(view, limit)
        can_settle = allowance.is_limited and not with_geometry and self.calibration is None

        def view_of(place_id: int) -> View:
            return _cut(places.view(place_id), limit)

        @cache
        def matches_of(place_id: int) -> NDArray[np.int64]:
            return verify.mutual_matches(view.features, view_of(place_id).features)

        def settled(scored: Sequence[Candidate], waiting: Sequence[Candidate]) -> bool:
            may_rise = [*scored, *waiting] if config.rerank.confirmed else waiting
            return can_settle and is_settled(scored, may_rise, config.decision, least)

        if self.scorer is not None:
            candidates = ranking.ranked(
                self.scorer,
                view.features,
                candidates,
                expected,
                view_of,
                allowance,
                settled,
                config.rerank.shortlist,
            )
            candidates = ranking.confirmed(
                self.scorer, view.features, candidates, view_of, matches_of, config.rerank.confirmed
            )
        watch.lap("rerank")
        if with_geometry:
            candidates = _verified(view, candidates, expected, view_of, matches_of, config.geometry)
            watch.lap("verify")
        if self.calibration is not None:
            asked = drive or Drive(Place(-1, "", "", stamp_ns))
            known, left = ([each for each in candidates if bool(each.reason) is is_left] for is_left in (False, True))
            weighed = evidence.weigh(known, config.decision, asked.query, asked.past, asked.segment)
            candidates = self.calibration.judge(known, weighed) + left
        state, judged = decision.decide(
            candidates,
            config.decision,
            config.geometry,
            least,
            is_calibrated=self.calibration is not None,
        )
        watch.lap("decide")
        return PlaceMatch(stamp_ns, state, judged, watch.stage_ms)


def _cut(view: View, limit: int | None) -> View:
    """The view with its `limit` strongest locals; as it is when there is no limit."""
    return view if limit is None else dataclasses.replace(view, features=view.features.strongest(limit))


def _with_expected(
    found: list[Place], cosines: FloatArray, expected: Sequence[int], query: Features, places: Places
) -> tuple[list[Place], FloatArray]:
    """The places that retrieval found, and after them the expected ones that it did not."""
    known = {place.place_id for place in found}
    more = [place_id for place_id in expected if place_id not in known]
    more_cosines = [places.view(i).features.global_descriptor @ query.global_descriptor for i in more]
    return found + [places.places[i] for i in more], np.concatenate([cosines, np.asarray(more_cosines, np.float32)])


def _verified(
    view: View,
    candidates: list[Candidate],
    expected: Sequence[int],
    view_of: ranking.ViewOf,
    matches_of: ranking.MatchesOf,
    config: GeometryConfig,
) -> list[Candidate]:
    """The candidates in their order, the expected and the best of the re-ranked with the relative pose to each."""
    is_expected = [each.place.place_id in expected for each in candidates]
    order = sorted(range(len(candidates)), key=lambda i: not is_expected[i])
    order = [i for i in order if is_expected[i] or not candidates[i].reason]
    verified = list(candidates)
    for i in order[: config.candidates]:
        place_id = candidates[i].place.place_id
        found = geometry.estimate(view, view_of(place_id), config, matches_of(place_id))
        verified[i] = dataclasses.replace(candidates[i], geometry=found, inliers=found.inliers)
    return verified


class Recognizer(Protocol):
    """What a node or a replay asks: `PlaceRecognizer`, or `etr_ros.loops.LoopDetector` while a session is driven."""

    networks: Networks

    @property
    def info(self) -> MapInfo: ...

    @property
    def places(self) -> Sequence[Place]: ...

    def configure(self, config: Config) -> None: ...

    def answer(
        self, frame: Frame, segment: int = 0, asked: bool = False, allowance: Allowance = UNLIMITED
    ) -> LoopAnswer | None: ...

    def finish(self) -> tuple[LoopClosure, ...]: ...

    def load_map(self, map_path: Path) -> None: ...

    def save_map(self, path: Path) -> MapInfo: ...

    def restart(self) -> None: ...

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None: ...


class PlaceRecognizer:
    """Recognises the places of one map in pictures. `query` changes nothing in the map."""

    def __init__(self, place_map: PlaceMap, networks: Networks, config: Config) -> None:
        self.map, self.networks, self._config = place_map, networks, config
        self._past = Past()

    @staticmethod
    def open(map_path: Path, config: Config | None = None) -> PlaceRecognizer:
        """Open a map and load the networks.

        Raises MapError when the map is damaged or its features were made with other weights or another configuration,
        WeightsError or ConfigError when a network cannot be loaded.
        """
        config = config or Config()
        place_map = PlaceMap(map_path, config.memory.ceiling_mb)
        networks = Networks.load(config)
        require_same_features(place_map, networks.extractor)
        return PlaceRecognizer(place_map, networks, config)

    @property
    def info(self) -> MapInfo:
        return self.map.info

    @property
    def places(self) -> Sequence[Place]:
        """All places of the map; the index is the place id."""
        return self.map.places

    def configure(self, config: Config) -> None:
        """Take over values that may change while running (`live` in config.py).

        Raises ConfigError for any other change.
        """
        require_live(self._config, config)
        self.networks.check(config)
        self._config = config

    def query(
        self,
        frame: Frame,
        places_before: int | None = None,
        drive: Drive | None = None,
        allowance: Allowance = UNLIMITED,
    ) -> PlaceMatch:
        """Where is this picture? With `places_before`, only places with a smaller id are candidates.

        What there is no time for within the `allowance` is left out, and each candidate says so.

        Raises ImageError when no features can be computed from the picture.
        """
        watch = Stopwatch()
        view = look(self.networks.extractor, frame, self._config.geometry)
        watch.lap("extract")
        calibrated = view.camera is not None  # without intrinsics geometry knows less than the re-ranker
        return self.networks.find(
            view,
            frame.stamp_ns,
            self.map,
            self._config,
            watch,
            before=places_before,
            with_geometry=calibrated,
            drive=drive,
            allowance=allowance,
        )

    def answer(
        self, frame: Frame, segment: int = 0, asked: bool = False, allowance: Allowance = UNLIMITED
    ) -> LoopAnswer:
        """The answer to any picture, as `LoopDetector.answer`; there are no loops without a session."""
        query = Place(-1, frame.name, frame.session, frame.stamp_ns, frame.pose)
        match = self.query(frame, drive=Drive(query, self._past, segment), allowance=allowance)
        self._past.add(query, match, segment)
        return LoopAnswer(match, ())

    def finish(self) -> tuple[LoopClosure, ...]:
        """Nothing waits."""
        return ()

    def save_map(self, path: Path) -> MapInfo:
        """Raises MapError: there is no session to save."""
        raise MapError("nothing is mapped while localizing: set loop.enabled to map while driving")

    def restart(self) -> None:
        """Time went back: the queries before are none."""
        self._past = Past()

    def load_map(self, map_path: Path) -> None:
        """Take another map; on failure the one in use stays. Raises MapError."""
        place_map = PlaceMap(map_path, self._config.memory.ceiling_mb)
        require_same_features(place_map, self.networks.extractor)
        self.map, self._past = place_map, Past()

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None:
        """A small (H, W, 3) BGR picture of a place, or None when the map has none."""
        return self.map.thumbnail(place_id)


def require_same_features(place_map: PlaceMap, extractor: Extractor) -> None:
    """Raises MapError when the features of a map were made with other weights or another configuration."""
    difference = place_map.info.features.difference(extractor.spec)
    if difference:
        raise MapError(
            f"the map {place_map.info.path} was made with {difference}: "
            "use the map's configuration (see `etr info`) or build it again"
        )


def require_live(old: Config, new: Config) -> None:
    """Raises ConfigError when the two differ in what is only read when the networks are loaded."""
    sections = ("compute", "extractor", "memory", "rerank")
    fixed = [section for section in sections if getattr(new, section) != getattr(old, section)]
    fixed += ["decision.calibration"] * (new.decision.calibration != old.decision.calibration)
    if fixed:
        raise ConfigError(f"{', '.join(fixed)} cannot change while running: load the map again")
