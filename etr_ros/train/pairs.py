"""Training pairs from maps: which pictures show the same place, which look alike and do not."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import verify
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError
from etr_ros.etr import Locals
from etr_ros.rerank import centred
from etr_ros.types import Place, Pose

COPY_MARK = "#"  # "hall_0007.jpg#2" is the second changed copy of hall_0007.jpg
NEIGHBOURS = 8  # frames of a sequence that may show the same place
MIN_INLIERS = 30  # geometrically verified matches that make a positive
NEAR_M, NEAR_DEG = 3.0, 40.0  # poses that may show the same place
FAR_M = 8.0  # poses that certainly do not
MIN_OVERLAP = 0.3  # of known covisibility
HARD_POOL = 40  # look-alikes kept per picture


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The pictures of one environment. Sources show different environments, so pairs across them are negatives."""

    place_map: PlaceMap
    overlaps: dict[frozenset[str], float] | None  # of picture names, where covisibility is known


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Features of M pictures, and pairs among the P originals of them.

    `copies[p]` are the rows of original p and of its changed copies; `positives[p]` the originals that show the same
    place; `lookalikes[p]` the most similar originals that certainly do not, most similar first.
    """

    locals: Locals
    copies: list[NDArray[np.int64]]
    positives: list[NDArray[np.int64]]
    lookalikes: list[NDArray[np.int64]]
    globals: NDArray[np.float32]  # (P, G)

    @property
    def anchors(self) -> NDArray[np.int64]:
        """The originals that have a positive and a look-alike."""
        usable = [p for p in range(len(self.copies)) if len(self.positives[p]) and len(self.lookalikes[p])]
        return np.array(usable, np.int64)


def read_overlaps(path: Path) -> dict[frozenset[str], float]:
    """Covisibility in [0, 1] by pair of picture names from a CSV `file_a,file_b,overlap`. Raises DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                frozenset((Path(row["file_a"]).name, Path(row["file_b"]).name)): float(row["overlap"])
                for row in csv.DictReader(file)
            }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} must be a CSV with the columns file_a,file_b,overlap: {error}") from error


def collect(sources: Sequence[Source], max_locals: int, progress: Callable[[str, int, int], None]) -> PairSet:
    """Read the features of all sources and find the pairs. `progress` hears (stage, done, total).

    Raises DataError when the sources give no pairs to learn from.
    """
    copies: list[NDArray[np.int64]] = []
    positives: list[NDArray[np.int64]] = []
    allowed: list[tuple[int, NDArray[np.float64] | None]] = []  # source and position of each original
    rows: list[tuple[Source, int]] = []
    vectors: list[NDArray[np.float32]] = []
    for number, source in enumerate(sources):
        first = len(copies)
        originals, rows_of = _originals(source.place_map.places)
        for place in originals:
            copies.append(np.array([len(rows) + k for k in range(len(rows_of[place.name]))], np.int64))
            rows += [(source, row) for row in rows_of[place.name]]
            position = np.array(place.pose.position_m) if place.pose else None
            allowed.append((number, position))
            vectors.append(source.place_map.view(place.place_id).features.global_descriptor)
        found = _positives(source, originals, partial(progress, f"pairs of source {number + 1}"))
        positives += [np.array(sorted(first + p for p in partners), np.int64) for partners in found]
    globals_ = np.stack(vectors)
    pairs = PairSet(_locals(rows, max_locals), copies, positives, _lookalikes(globals_, positives, allowed), globals_)
    if not len(pairs.anchors):
        raise DataError(
            "no picture has both a picture of the same place and one of another place: give more than one environment, "
            "or poses, and sequences that show places more than once"
        )
    return pairs


def _originals(places: Sequence[Place]) -> tuple[list[Place], dict[str, list[int]]]:
    rows: dict[str, list[int]] = {}
    originals = []
    for place in places:
        name = place.name.split(COPY_MARK)[0]
        if name not in rows:
            originals.append(place)
        rows.setdefault(name, []).append(place.place_id)
    # an original that gave no features leaves only its copies: the first of them takes its part
    return [p if COPY_MARK not in p.name else _renamed(p) for p in originals], rows


def _renamed(place: Place) -> Place:
    return Place(place.place_id, place.name.split(COPY_MARK)[0], place.session, place.stamp_ns, place.pose)


def _positives(source: Source, places: list[Place], progress: Callable[[int, int], None]) -> list[set[int]]:
    """Per place the others that show the same: by known overlap, else verified neighbours in space or sequence."""
    found: list[set[int]] = [set() for _ in places]
    proposals = sorted(set(_by_overlap(source.overlaps, places) if source.overlaps is not None else _near(places)))
    for done, (i, j) in enumerate(proposals):
        if source.overlaps is not None or _verified(source.place_map, places[i], places[j]):
            found[i].add(j)
            found[j].add(i)
        if done % 64 == 0 or done + 1 == len(proposals):
            progress(done + 1, len(proposals))
    return found


def _by_overlap(overlaps: dict[frozenset[str], float], places: list[Place]) -> Iterator[tuple[int, int]]:
    rows = {place.name: i for i, place in enumerate(places)}
    for names, overlap in overlaps.items():
        if overlap >= MIN_OVERLAP and len(names) == 2 and all(name in rows for name in names):
            i, j = sorted(rows[name] for name in names)
            yield i, j


def _near(places: list[Place]) -> Iterator[tuple[int, int]]:
    order = sorted(range(len(places)), key=lambda i: (_clip_and_number(places[i]), i))
    for a, i in enumerate(order):
        for j in order[a + 1 : a + 1 + NEIGHBOURS]:
            if _clip_and_number(places[i])[0] == _clip_and_number(places[j])[0]:
                yield min(i, j), max(i, j)
    posed = [(i, place.pose) for i, place in enumerate(places) if place.pose]
    for a, (i, pose) in enumerate(posed):
        for j, other in posed[a + 1 :]:
            if _close(pose, other):
                yield i, j


def _clip_and_number(place: Place) -> tuple[tuple[str, str], int]:
    """A sequence is told by its session and its name without the trailing number."""
    stem = Path(place.name).stem
    match = re.search(r"(\d+)$", stem)
    return (place.session, stem[: match.start()] if match else stem), int(match.group(1)) if match else 0


def _close(a: Pose, b: Pose) -> bool:
    near = math.dist(a.position_m, b.position_m) <= NEAR_M
    cosine = abs(sum(p * q for p, q in zip(a.quat_xyzw, b.quat_xyzw, strict=True)))
    return near and math.degrees(2 * math.acos(min(1.0, cosine))) <= NEAR_DEG


def _verified(place_map: PlaceMap, a: Place, b: Place) -> bool:
    return len(verify.inliers(place_map.view(a.place_id).features, place_map.view(b.place_id).features)) >= MIN_INLIERS


def _lookalikes(
    vectors: NDArray[np.float32],
    positives: list[NDArray[np.int64]],
    origin: list[tuple[int, NDArray[np.float64] | None]],
) -> list[NDArray[np.int64]]:
    source = np.array([number for number, _ in origin])
    position = np.array([np.full(3, np.nan) if xyz is None else xyz for _, xyz in origin])
    result = []
    for i in range(len(vectors)):
        elsewhere = source != source[i]
        far = np.linalg.norm(position - position[i], axis=1) >= FAR_M  # False where a pose is unknown
        allowed = elsewhere | far
        allowed[positives[i]] = False
        allowed[i] = False
        ids = np.flatnonzero(allowed)
        order = np.argsort(-(vectors[ids] @ vectors[i]), kind="stable")[:HARD_POOL]
        result.append(ids[order])
    return result


def _locals(rows: list[tuple[Source, int]], max_locals: int) -> Locals:
    """All local features in memory, descriptors in half precision: M x max_locals x (2 D + 8) bytes."""
    count, dim = len(rows), rows[0][0].place_map.info.features.local_dim
    descriptors = torch.zeros(count, max_locals, dim, dtype=torch.float16)
    xy = torch.zeros(count, max_locals, 2)
    scales = torch.zeros(count, max_locals, dtype=torch.uint8)
    mask = torch.zeros(count, max_locals, dtype=torch.bool)
    global_descriptors: list[Tensor] = []
    for row, (source, place_id) in enumerate(rows):
        features = source.place_map.view(place_id).features.strongest(max_locals)
        n = len(features)
        descriptors[row, :n] = torch.from_numpy(features.descriptors).half()
        xy[row, :n] = torch.from_numpy(centred(features.keypoints, features.image_size))
        scales[row, :n] = torch.from_numpy(features.scales)
        mask[row, :n] = True
        global_descriptors.append(torch.from_numpy(features.global_descriptor))
    return Locals(descriptors, xy, scales, mask, torch.stack(global_descriptors))
