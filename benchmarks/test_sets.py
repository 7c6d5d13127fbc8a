"""The places that re-rankers are judged on: databases, queries and which pairs are the same place.

Makes, below a work folder and once, what is not there: the office tower split into database and queries, and rounds
through simulator levels. `benchmarks/split.yaml` says which floors and levels.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.split_sequences import split
from examples.simulator.export import TRUE_OVERLAP, export_rounds

SPLIT = Path(__file__).with_name("split.yaml")
ROUND_M, ROUND_HZ = 250.0, 2.0
QUERY_STRIDE = 3  # of the pictures of a second round


@dataclass(frozen=True)
class TestSet:
    """Pictures of a database and of queries. `positives[query]` names the pictures of the same place;
    `doubtful[query]` those that share something with it, which a detector neither gains nor loses by."""

    name: str
    database: Path
    query: Path
    queries: tuple[str, ...]
    positives: dict[str, frozenset[str]]
    doubtful: dict[str, frozenset[str]]


def test_sets(part: str, data: Path, work: Path) -> Iterator[TestSet]:
    """The sets of a part of the split ("validation", "test") from the pictures below `data`."""
    names = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))[part]
    tower = work / f"tower-{part}"
    if not (tower / "ground_truth.csv").is_file():
        split([data / "ie_tower" / floor for floor in names["floors"]], tower)
    for name, folder in (("office tower", "query"), ("office tower, changed", "query_changed")):
        yield _of_pairs(name, tower / "database", tower / folder, tower / "ground_truth.csv", tower / "doubtful.csv")
    for level in names["levels"]:
        folder = work / "levels" / level
        if not (folder / "ground_truth.csv").is_file():
            export_rounds(level, ROUND_M, ROUND_HZ, 0, folder)
        yield _of_level(level, folder)
    if part == "test":
        streets = data / "sf_streets"
        yield _of_pairs("SF streets", streets / "database", streets / "query", streets / "ground_truth.csv", None)


def _of_pairs(name: str, database: Path, query: Path, truth: Path, doubtful: Path | None) -> TestSet:
    queries = tuple(sorted(file.name for file in query.glob("*.jpg")))
    unsure = _pairs(doubtful) if doubtful else {}
    return TestSet(name, database, query, queries, _pairs(truth), unsure)


def _of_level(level: str, folder: Path) -> TestSet:
    positives, doubtful = defaultdict(set), defaultdict(set)
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = positives if float(row["overlap"]) >= TRUE_OVERLAP else doubtful
            found[row["file_a"]].add(row["file_b"])
    queries = sorted(file.name for file in (folder / "second").glob("*.jpg"))[::QUERY_STRIDE]
    both = ({query: frozenset(names) for query, names in found.items()} for found in (positives, doubtful))
    return TestSet(f"simulator {level}", folder / "survey", folder / "second", tuple(queries), *both)


def _pairs(path: Path) -> dict[str, frozenset[str]]:
    found = defaultdict(set)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["query"]].add(row["database"])
    return {query: frozenset(names) for query, names in found.items()}
