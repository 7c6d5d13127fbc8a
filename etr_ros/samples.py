"""What results of known truth teach about evidence: the samples that a calibration is fitted to.

A sample is a candidate of an answered picture: the best by the re-ranker's score, and the best of another place.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etr_ros import loop_metrics, result_files
from etr_ros.config import Config, DecisionConfig
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError, MapError
from etr_ros.evidence import Evidence, Past, are_apart, score_of, weigh
from etr_ros.loop_metrics import LoopProtocol
from etr_ros.measure import Protocol, known_loops, true_places
from etr_ros.result import Result
from etr_ros.types import Candidate, Place

Key = tuple[str, str, int]  # name of the query; session and stamp of the place


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate: whether it is right, and the probability that the result gives it, NaN where it gives none."""

    picture: int
    evidence: Evidence
    is_right: bool
    before: float


@dataclass(frozen=True, eq=False)
class Samples:
    """What one result teaches. `loops` are the accepted ones and whether they are false; None outside of loop mode."""

    source: str
    reranker: str
    extractor: str
    rows: tuple[Sample, ...]
    km: float  # driven; 0 where no pose is known
    loops: tuple[tuple[Evidence, bool], ...] | None = None

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.array([row.is_right for row in self.rows], bool)


def read_samples(path: Path, given: Protocol | None = None) -> Samples:
    """The samples of the result at `path`, judged as it was measured unless a protocol is given.

    Raises DataError when it is no result or knows no truth.
    """
    result = result_files.read(path)
    return collect(result, _places(result, path), given or _protocol(path))


def collect(result: Result, places: Sequence[Place], protocol: Protocol, *, is_drive: bool = True) -> Samples:
    """The samples of one result; `places` as in `measure_result`. Pictures of no drive do not support each other.

    Raises DataError when nothing can be judged.
    """
    manifest = result.manifest
    source = str(_table(manifest, "bag").get("name", ""))
    answered = [query for query in result.queries if query.match is not None]
    is_named = protocol.pairs is not None or protocol.frame_tolerance is not None
    if not is_named and all(query.truth is None for query in answered):
        raise DataError(
            f"the result {source} has no picture whose true pose is known: replay the bag with --truth-topic, or give "
            "--ground-truth or --frame-tolerance"
        )
    settings = _table(manifest, "config")
    config = Config.from_dict({name: settings.get(name, {}) for name in ("decision", "loop")})
    positives = true_places(answered, places, protocol, config.loop).positives
    past, rows, weighed = Past(), list[Sample](), dict[Key, Evidence]()
    for number, query in enumerate(answered):
        if query.match is None:
            continue
        asked = Place(-1, query.name, "", query.stamp_ns, query.odometry)
        candidates = query.match.candidates
        evidence = weigh(candidates, config.decision, asked, past if is_drive else None)
        past.add(asked, query.match)
        weighed |= {_key(query.name, each.place): found for each, found in zip(candidates, evidence, strict=True)}
        if query.name in positives:
            for i in _taught(candidates, config.decision):
                is_right = candidates[i].place.place_id in positives[query.name]
                before = candidates[i].probability
                rows.append(Sample(number, evidence[i], is_right, math.nan if before is None else before))
    loops = None
    if manifest.get("mode") == "loops" and not is_named:
        loops = tuple(_judged_loops(result, weighed, protocol.loops))
    extractor = str(_table(settings, "extractor").get("name", ""))
    return Samples(source, str(manifest.get("reranker", "")), extractor, tuple(rows), driven_km(result), loops)


def driven_km(result: Result) -> float:
    """By the true poses, else by odometry; 0 where neither is known."""
    true = [query.truth for query in result.queries if query.truth is not None]
    poses = true or [query.odometry for query in result.queries if query.odometry is not None]
    return sum(math.dist(a.position_m, b.position_m) for a, b in pairwise(poses)) / 1000


def _taught(candidates: Sequence[Candidate], config: DecisionConfig) -> Iterator[int]:
    """The best candidate by score, and the best of another place."""
    order = sorted(range(len(candidates)), key=lambda i: -score_of(candidates[i]))
    yield from order[:1]
    rivals = (i for i in order[1:] if are_apart(candidates[order[0]], candidates[i], config))
    rival = next(rivals, None)
    if rival is not None:
        yield rival


def _judged_loops(
    result: Result, weighed: Mapping[Key, Evidence], protocol: LoopProtocol
) -> Iterator[tuple[Evidence, bool]]:
    """Accepted loops with the evidence of their candidate. Those with a prebuilt map may stand beside the session's."""
    loops, posed = known_loops(result)
    for loop in loops:
        evidence = weighed.get(_key(loop.query.name, loop.match))
        if loop.accepted and evidence is not None:
            yield evidence, loop_metrics.is_false(loop, posed, protocol)


def _key(query: str, place: Place) -> Key:
    return query, place.session, place.stamp_ns


def _table(values: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _places(result: Result, path: Path) -> Sequence[Place]:
    """Those of the prebuilt map, none when the session is the map."""
    named = _table(result.manifest, "map")
    if not named:
        return ()
    try:
        place_map = PlaceMap(Path(str(named.get("path", ""))))
    except MapError as error:
        raise DataError(f"the map that {path} was localized in cannot be read: {error}") from error
    if place_map.info.map_id != named.get("map_id"):
        raise DataError(f"the map {place_map.info.path} is another than that of {path}: replay the bag again")
    return place_map.places


def _protocol(path: Path) -> Protocol:
    """The one that the result was measured by, where that was by poses."""
    try:
        values = json.loads((path / "metrics.json").read_text(encoding="utf-8"))["protocol"]
        loops = dataclasses.replace(LoopProtocol(), knows_rotation=bool(values["loops"]["knows_rotation"]))
        return Protocol(correct_m=float(values["correct_m"]), correct_deg=float(values["correct_deg"]), loops=loops)
    except (OSError, ValueError, KeyError, TypeError):
        return Protocol()
