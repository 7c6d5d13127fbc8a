"""Which places are correct answers to a query: by listed pairs, by distance, or by frame number."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from etr_ros.errors import DataError
from etr_ros.types import Place, Pose

Pairs = Sequence[tuple[str, str]]  # query name, database name


@dataclass(frozen=True)
class GroundTruth:
    """The correct places of each query, by name; empty where no place is correct.

    A query that is missing here has an unknown answer and counts nowhere.
    """

    positives: Mapping[str, frozenset[int]]  # query name -> place ids
    source: str

    def before(self, limits: Mapping[str, int]) -> GroundTruth:
        """The same with only those places of each query whose id is below the query's limit."""
        kept = {
            query: frozenset(place_id for place_id in place_ids if place_id < limits[query])
            for query, place_ids in self.positives.items()
        }
        return GroundTruth(kept, self.source)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The rows of a CSV file with the header `query,database`; folders in the names are dropped. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the ground truth {path}: {error}") from error
    reader = csv.DictReader(lines)
    if not {"query", "database"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path} must start with the header query,database")
    pairs = []
    for row in reader:
        if not row["query"] or not row["database"]:
            raise DataError(f"{path}, line {reader.line_num}: expected query,database")
        pairs.append((Path(row["query"]).name, Path(row["database"]).name))
    return pairs


def from_pairs(pairs: Pairs, queries: Sequence[str], places: Sequence[Place]) -> GroundTruth:
    """Correct are the listed pairs; a query without a pair has no correct place. Raises DataError when no pair fits."""
    ids: dict[str, set[int]] = {}
    for place in places:
        ids.setdefault(place.name, set()).add(place.place_id)
    found: dict[str, set[int]] = {query: set() for query in queries}
    for query, database in pairs:
        if query in found:
            found[query] |= ids.get(database, set())
    if not any(found.values()):
        raise DataError(
            "the ground truth names no pair of a query and a database picture that are both there"
            + (f" (such as {pairs[0][0][:80]} and {pairs[0][1][:80]})" if pairs else "")
        )
    return GroundTruth({query: frozenset(positives) for query, positives in found.items()}, "listed pairs")


def unknown_names(pairs: Pairs, queries: Sequence[str], places: Sequence[Place]) -> str:
    """A line on pairs that name pictures which are not there; empty when all are."""
    known = set(queries) | {place.name for place in places}
    lost = [name for pair in pairs for name in pair if name not in known]
    if not lost:
        return ""
    return f"the ground truth names {len(set(lost))} pictures that are not there, such as {lost[0][:80]}"


def from_poses(poses: Mapping[str, Pose | None], places: Sequence[Place], radius_m: float) -> GroundTruth:
    """Correct are the places at most `radius_m` metres away (in 3-D); a query without a pose is unknown.

    Raises DataError when no query, or no place, has a pose.
    """
    posed = [place for place in places if place.pose is not None]
    known = {query: pose for query, pose in poses.items() if pose is not None}
    if not posed or not known:
        side = "the queries (--poses-query)" if posed else "the database (--poses-database, or a map with poses)"
        raise DataError(f"ground truth by radius needs poses of {side}")
    ids = np.array([place.place_id for place in posed])
    positions = np.array([place.pose.position_m for place in posed if place.pose])
    found = {}
    for query, pose in known.items():
        distances = np.linalg.norm(positions - pose.position_m, axis=1)
        found[query] = frozenset(ids[distances <= radius_m].tolist())
    return GroundTruth(found, f"poses at most {radius_m:g} m apart")


def from_frame_numbers(queries: Sequence[str], place_numbers: Sequence[int], tolerance: int) -> GroundTruth:
    """Correct are places whose frame number differs from the query's by at most `tolerance`.

    `place_numbers` holds the frame number of each place id; the number of a query is its position in `queries`.
    """
    numbers = np.array(place_numbers)
    found = {
        query: frozenset(np.flatnonzero(np.abs(numbers - number) <= tolerance).tolist())
        for number, query in enumerate(queries)
    }
    return GroundTruth(found, f"frame numbers at most {tolerance} apart")
