"""What the scripts of the page show, as plain values for JSON. Names and reasons in it come from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from etr_ros.config import Config
from etr_ros.localization import pose_of
from etr_ros.options import options
from etr_ros.report import figures
from etr_ros.report.entries import Entry
from etr_ros.report.pictures import Key, Pictures
from etr_ros.report.verdicts import Truth
from etr_ros.report.words import Facts
from etr_ros.result import Query, Result
from etr_ros.transforms import rotation, rotation_vector
from etr_ros.types import Geometry, Place, Pose

MAX_CANDIDATES = 5
Drawn = Mapping[int, tuple[int, int, str]]  # by the row of the entry


class Spots:
    """Pictures and places that entries point to by number: those of the recording first, then those of the map."""

    def __init__(self, result: Result, pictures: Pictures, truth: Truth) -> None:
        self._pictures, self._session = pictures, result.manifest.get("session")
        self._start_ns = min((query.stamp_ns for query in result.queries), default=0)
        self._is_loops = result.manifest.get("mode") == "loops"
        self._rows = {query.stamp_ns: row for row, query in enumerate(result.queries)}
        self._places: dict[tuple[str, int], int] = {}
        self.keys: list[Key | None] = [pictures.key_of_query(query) for query in result.queries]
        self.values = [self._of_query(query) for query in result.queries]

    def of(self, place: Place) -> int:
        """The number of a matched place."""
        if self._is_loops and place.session == self._session and place.stamp_ns in self._rows:
            return self._rows[place.stamp_ns]
        known = (place.session, place.place_id)
        if known not in self._places:
            self._places[known] = len(self.values)
            self.keys.append(self._pictures.key_of_match(place))
            value = {"name": place.name, "session": place.session, "map": _xy(place.pose), "id": place.place_id}
            self.values.append(value)
        return self._places[known]

    def _of_query(self, query: Query) -> dict[str, Any]:
        state = query.match.state.value if query.match is not None else None
        times = query.match.stage_ms.values() if query.match is not None else ()
        value = {
            "name": query.name,
            "t": round((query.stamp_ns - self._start_ns) / 1e9, 3),
            "outcome": query.outcome.value,
            "reason": query.reason,
            "state": state,
            "id": query.picture_id,
            "ms": round(sum(times), 2) if times else None,
            "truth": _xy(query.truth),
            "odometry": _xy(query.odometry),
        }
        best = query.match.best if query.match is not None else None
        found = pose_of(best, 0.0, 0.0) if best is not None else None
        return _without_none(value | {"found": _xy(found[0]) if found is not None else None})


def payload(facts: Facts, pictures: Pictures, spots: Spots, drawn: Drawn) -> dict[str, Any]:
    """All but the pictures themselves."""
    result, truth = facts.result, facts.truth
    other = None if facts.is_loops else pictures.map
    entries = [_entry(entry, spots, result, drawn.get(row)) for row, entry in enumerate(facts.entries)]
    return {
        "mode": result.manifest.get("mode"),
        "judged": truth.is_known,
        "spots": spots.values,
        "entries": entries,
        "map_places": [_xy(place.pose) for place in pictures.map.places if place.pose] if pictures.map else [],
        "pr": figures.precision_recall(result.queries, truth),
        "reliability": _reliability(facts.measured),
        "times": {stage: {k: round(v, 2) for k, v in each.items()} for stage, each in facts.times.items()},
        "similarity": figures.similarity(pictures.own, other),
        "grid": 255,
    }


def settings(result: Result) -> Iterator[tuple[str, str, str, bool]]:
    """Name, value, what it is for, and whether it is not the default, of each configuration value that was recorded."""
    config = result.manifest.get("config")
    flat = dict(_flat("", config if isinstance(config, Mapping) else {}))
    for option in options(Config()):
        if option.name in flat:
            value = flat.pop(option.name)
            yield option.name, _text(value), option.help, value != option.value
    for name, value in flat.items():
        yield name, _text(value), "", True


def _entry(entry: Entry, spots: Spots, result: Result, drawn: tuple[int, int, str] | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "q": entry.row,
        "m": None if entry.match is None else spots.of(entry.match),
        "accepted": entry.accepted,
        "verdict": entry.verdict.value,
        "reason": entry.reason,
        "probability": _short(entry.probability),
        "support": entry.support,
        "retrieval": _short(entry.retrieval_score),
        "etr": _short(entry.etr_score),
        "apart": None if entry.apart is None else [_short(v) for v in entry.apart],
        "off": None if entry.off is None else [_short(v) for v in entry.off],
        "candidates": [*_candidates(result.queries[entry.row], entry)],
    }
    if entry.geometry is not None and entry.geometry.inliers >= 0:
        value["geometry"] = _geometry(entry.geometry)
    if drawn is not None:
        value |= {"matches": drawn[0], "agree": drawn[1], "lines": drawn[2]}
    return _without_none(value)


def _candidates(query: Query, entry: Entry) -> Iterator[list[Any]]:
    """Name, retrieval score, ETR score, probability, inliers and reason of the first ones."""
    for each in query.match.candidates[:MAX_CANDIDATES] if query.match is not None else ():
        yield [
            each.place.name,
            *(_short(v) for v in (each.retrieval_score, each.etr_score, each.probability)),
            each.inliers,
            "accepted" if each.accepted else each.reason,
        ]


def _geometry(found: Geometry) -> dict[str, Any]:
    """Translation in metres and rotation vector in degrees, with standard deviations."""
    value: dict[str, Any] = {"inliers": found.inliers, "matches": found.matches, "coverage": _short(found.coverage)}
    if found.degeneracy:
        value["degeneracy"] = found.degeneracy
    if found.match_t_query is not None:
        turn = rotation_vector(rotation(found.match_t_query.quat_xyzw))
        value["metric"] = found.is_metric
        value["pose"] = [*(_short(v) for v in found.match_t_query.position_m), *(_short(math.degrees(v)) for v in turn)]
        if found.covariance is not None:
            sigma = np.sqrt(np.maximum(np.diag(found.covariance), 0.0)).tolist()
            value["sigma"] = [_short(v) for v in (*sigma[:3], *map(math.degrees, sigma[3:]))]
    return value


def _reliability(measured: Mapping[str, Any]) -> list[list[float]]:
    """Rows of mean probability, share correct, count; those that are not numbers left out."""
    places = measured.get("places")
    told = places.get("reliability") if isinstance(places, Mapping) else None
    rows = [row for row in told if isinstance(row, Mapping)] if isinstance(told, list) else []
    values: list[list[Any]] = [[row.get(name) for name in ("probability", "share_correct", "count")] for row in rows]
    return [row for row in values if all(isinstance(value, int | float) for value in row)]


def _xy(pose: Pose | None) -> list[float] | None:
    return None if pose is None else [round(pose.position_m[0], 3), round(pose.position_m[1], 3)]


def _short(value: float | None) -> float | None:
    """With 4 significant digits, as fractions; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if each is not None and each != ""}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), each)
    else:
        yield name, value


def _text(value: Any) -> str:
    if value == "" or value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
