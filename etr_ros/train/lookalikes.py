"""Which pictures look like another and certainly show another place: what re-ranking has to tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etr_ros import verify
from etr_ros.database import PlaceMap
from etr_ros.types import Features, Pose

HARD_POOL = 40  # look-alikes kept per picture
FAR_M = 8.0  # poses that certainly show different places
ALIASED_INLIERS = 30  # matches that agree with one motion, though the places are not the same


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an original is from: the number of its source, its pose, whether all that it shares is listed, and the map
    and place that hold its features."""

    source: int
    pose: Pose | None
    is_listed: bool
    place_map: PlaceMap
    place_id: int

    @property
    def features(self) -> Features:
        return self.place_map.view(self.place_id).features


def find_lookalikes(
    vectors: NDArray[np.float32],
    partners: list[dict[int, float]],
    different: list[set[int]],
    origins: list[Origin],
) -> list[NDArray[np.int64]]:
    """Per original the HARD_POOL most similar ones, by `vectors` (P, G), that certainly show another place: of another
    source, far by pose, known to share nothing (`partners` list what does), or verified to be `different`."""
    source = np.array([origin.source for origin in origins])
    listed = np.array([origin.is_listed for origin in origins])
    position = np.array([np.full(3, np.nan) if o.pose is None else o.pose.position_m for o in origins])
    result = []
    for i in range(len(vectors)):
        far = np.linalg.norm(position - position[i], axis=1) >= FAR_M  # False where a pose is unknown
        allowed = (source != source[i]) | listed | far
        allowed[[*different[i]]] = True
        allowed[[i, *partners[i]]] = False
        ids = np.flatnonzero(allowed)
        order = np.argsort(-(vectors[ids] @ vectors[i]), kind="stable")[:HARD_POOL]
        result.append(ids[order])
    return result


def without_aliased(
    lookalikes: list[NDArray[np.int64]], origins: list[Origin], progress: Callable[[int, int], None]
) -> list[NDArray[np.int64]]:
    """The look-alikes without those of other sources that geometry takes for the same place; not asked where a source
    lists what its pictures share, as these are made up and their places differ."""
    known: dict[tuple[int, int], bool] = {}

    def aliased(i: int, j: int) -> bool:
        a, b = origins[i], origins[j]
        if a.source == b.source or a.is_listed or b.is_listed:
            return False
        pair = min(i, j), max(i, j)
        if pair not in known:
            known[pair] = len(verify.inliers(a.features, b.features)) >= ALIASED_INLIERS
        return known[pair]

    kept = []
    for i, rows in enumerate(lookalikes):
        kept.append(np.array([j for j in rows.tolist() if not aliased(i, j)], np.int64))
        progress(i + 1, len(lookalikes))
    return kept
