"""Training pairs from maps: which pictures show the same place, which look alike and do not."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import verify
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError
from etr_ros.rerank import centred
from etr_ros.tokens import Locals
from etr_ros.train.lookalikes import Origin, find_lookalikes, without_aliased
from etr_ros.types import Place, Pose

COPY_MARK = "#"  # "hall_0007.jpg#2" is the second changed copy of hall_0007.jpg
NEIGHBOURS = 8  # frames of a sequence that may show the same place
SURE_INLIERS = 60  # geometrically verified matches that make a certain positive; half as many make a positive at all
NEAR_M, NEAR_DEG = 3.0, 40.0  # poses that may show the same place
SURE_OVERLAP = 0.5  # known covisibility of a certain positive; half as much makes a positive at all
DOUBTFUL_INLIERS = 15  # fewer tell nothing
MIN_LABEL = 0.5
OWN_LOOKALIKES = 20  # of the same source, where it is not known what they share: verified one by one
ALIASED_INLIERS = 30  # of different environments that look the same: geometry cannot tell them apart, nor can ETR


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The pictures of one environment. Sources show different environments, so pairs across them are negatives.

    With `sequences`, only those of its sequences are read, see `sequence_of`. Which pictures verify geometrically is
    asked of `judge`, a map of the same pictures with more exact locals, where there is one.
    """

    place_map: PlaceMap
    overlaps: dict[frozenset[str], float] | None  # of picture names, where covisibility is known
    sequences: frozenset[str] | None = None
    judge: PlaceMap | None = None

    @property
    def places(self) -> list[Place]:
        """The pictures that are read."""
        every = self.place_map.places
        return [place for place in every if self.sequences is None or sequence_of(place) in self.sequences]

    def judged(self, places: Sequence[Place]) -> dict[str, tuple[PlaceMap, int]]:
        """Where the locals lie that verify `places`, by name; a picture that `judge` lacks is judged by its own."""
        found = {place.name: (self.place_map, place.place_id) for place in places}
        if self.judge is not None:
            theirs = {place.name: (self.judge, place.place_id) for place in self.judge.places}
            found |= {name: theirs[name] for name in found.keys() & theirs.keys()}
        return found


@dataclass(frozen=True, eq=False)
class PairSet:
    """Features of M pictures, and pairs among the P originals of them.

    `copies[p]` are the rows of original p and of its changed copies; `positives[p]` the originals that show the same
    place, with their soft labels in [0.5, 1]; `doubtful[p]` those that share a little with it, with labels below 0.5;
    `lookalikes[p]` the most similar originals that certainly show another place, most similar first.
    """

    locals: Locals
    copies: list[NDArray[np.int64]]
    positives: list[NDArray[np.int64]]
    positive_labels: list[NDArray[np.float32]]
    doubtful: list[NDArray[np.int64]]
    doubtful_labels: list[NDArray[np.float32]]
    lookalikes: list[NDArray[np.int64]]
    globals: NDArray[np.float32]  # (P, G)
    sources: NDArray[np.int64]  # (P,) the number of the source that each is of
    names: list[str]  # (P,) of the originals

    @cached_property
    def anchors(self) -> NDArray[np.int64]:
        """The originals that have a positive and a look-alike."""
        usable = [p for p in range(len(self.copies)) if len(self.positives[p]) and len(self.lookalikes[p])]
        return np.array(usable, np.int64)

    @cached_property
    def anchors_by_source(self) -> list[NDArray[np.int64]]:
        """The same for each source that has any."""
        of = self.sources[self.anchors]
        return [self.anchors[of == number] for number in np.unique(of)]


def read_overlaps(path: Path) -> dict[frozenset[str], float]:
    """Covisibility in [0, 1] by pair of picture names from a CSV `file_a,file_b,overlap`. Raises DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"file_a", "file_b", "overlap"}.difference(rows.fieldnames or ())
            if missing:
                raise ValueError(f"there is no {', '.join(sorted(missing))}")
            return {
                frozenset((Path(row["file_a"]).name, Path(row["file_b"]).name)): float(row["overlap"]) for row in rows
            }
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} must be a CSV with the columns file_a,file_b,overlap: {error}") from error


def collect(
    sources: Sequence[Source],
    max_locals: int,
    progress: Callable[[str, int, int], None],
    drop_aliased: bool = False,
) -> PairSet:
    """Read the features of all sources and find the pairs. `progress` hears (stage, done, total).

    `drop_aliased` leaves out look-alikes that geometry cannot tell from the place: there is nothing to learn from them.
    Raises DataError when the sources give no pairs to learn from.
    """
    copies: list[NDArray[np.int64]] = []
    partners: list[dict[int, float]] = []  # of each original, with labels
    different: list[set[int]] = []  # of each original, those of its own source that show another place
    origins: list[Origin] = []
    rows: list[tuple[Source, int]] = []
    vectors: list[NDArray[np.float32]] = []
    names: list[str] = []
    for number, source in enumerate(sources):
        first = len(copies)
        originals, rows_of = _originals(source.places)
        judged = source.judged(originals)
        own: list[NDArray[np.float32]] = []
        for place in originals:
            copies.append(np.array([len(rows) + k for k in range(len(rows_of[place.name]))], np.int64))
            rows += [(source, row) for row in rows_of[place.name]]
            origins.append(Origin(number, place.pose, source.overlaps is not None, *judged[place.name]))
            own.append(source.place_map.view(place.place_id).features.global_descriptor)
        vectors += own
        names += [place.name for place in originals]
        found, apart = _labels(source, originals, np.stack(own), partial(progress, f"pairs of source {number + 1}"))
        partners += [{first + p: label for p, label in sorted(of_one.items())} for of_one in found]
        different += [{first + p for p in of_one} for of_one in apart]
    globals_ = np.stack(vectors)
    lookalikes = find_lookalikes(globals_, partners, different, origins)
    if drop_aliased:
        lookalikes = without_aliased(lookalikes, origins, partial(progress, "look-alikes"))
    sure = [{p: label for p, label in found.items() if label >= MIN_LABEL} for found in partners]
    doubtful = [{p: label for p, label in found.items() if label < MIN_LABEL} for found in partners]
    pairs = PairSet(
        _locals(rows, max_locals),
        copies,
        *_arrays(sure),
        *_arrays(doubtful),
        lookalikes,
        globals_,
        np.array([origin.source for origin in origins], np.int64),
        names,
    )
    if not len(pairs.anchors):
        raise DataError(
            "no picture has both a picture of the same place and one of another place: give more than one environment, "
            "or poses, and sequences that show places more than once"
        )
    return pairs


def _arrays(found: list[dict[int, float]]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    return [np.array([*of_one], np.int64) for of_one in found], [
        np.array([*of_one.values()], np.float32) for of_one in found
    ]


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


def _labels(
    source: Source, places: list[Place], vectors: NDArray[np.float32], progress: Callable[[int, int], None]
) -> tuple[list[dict[int, float]], list[set[int]]]:
    """Per place the others that share something with it, and how sure it is that they show the same place, in [0, 1]:
    by known overlap, else neighbours in space or sequence by the matches that agree with one motion.

    And per place the most similar ones by `vectors` (P, G) that are no neighbours and whose matches agree with none.
    """
    judged = source.judged(places)
    found: list[dict[int, float]] = [{} for _ in places]
    apart: list[set[int]] = [set() for _ in places]
    if source.overlaps is not None:
        rows = {place.name: i for i, place in enumerate(places)}
        for names, overlap in source.overlaps.items():
            if len(names) == 2 and all(name in rows for name in names):
                i, j = (rows[name] for name in names)
                found[i][j] = found[j][i] = min(1.0, overlap / SURE_OVERLAP)
        return found, apart
    near = set(_near(places))
    similar = {tuple(sorted((i, int(j)))) for i, row in enumerate(vectors @ vectors.T) for j in _most_similar(row, i)}
    proposals = sorted(near | similar)
    for done, (i, j) in enumerate(proposals):
        inliers = _inliers(judged[places[i].name], judged[places[j].name])
        if (i, j) in near and inliers >= DOUBTFUL_INLIERS:
            found[i][j] = found[j][i] = min(1.0, inliers / SURE_INLIERS)
        elif (i, j) not in near and inliers < DOUBTFUL_INLIERS:
            apart[i].add(j)
            apart[j].add(i)
        if done % 64 == 0 or done + 1 == len(proposals):
            progress(done + 1, len(proposals))
    return found, apart


def _most_similar(cosines: NDArray[np.float32], own: int) -> list[int]:
    return [int(j) for j in np.argsort(-cosines, kind="stable")[: OWN_LOOKALIKES + 1] if j != own]


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


def sequence_of(place: Place) -> str:
    """The name of a picture's sequence: its session and its own name without the trailing number."""
    return _clip_and_number(place)[0]


def _clip_and_number(place: Place) -> tuple[str, int]:
    stem = Path(place.name.split(COPY_MARK)[0]).stem
    match = re.search(r"(\d+)$", stem)
    return f"{place.session}/{stem[: match.start()] if match else stem}", int(match.group(1)) if match else 0


def _close(a: Pose, b: Pose) -> bool:
    near = math.dist(a.position_m, b.position_m) <= NEAR_M
    cosine = abs(sum(p * q for p, q in zip(a.quat_xyzw, b.quat_xyzw, strict=True)))
    return near and math.degrees(2 * math.acos(min(1.0, cosine))) <= NEAR_DEG


def _inliers(a: tuple[PlaceMap, int], b: tuple[PlaceMap, int]) -> int:
    first, second = (place_map.view(place_id).features for place_map, place_id in (a, b))
    return len(verify.inliers(first, second))


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
