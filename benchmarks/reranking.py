"""Re-rankers on identical features and candidates: what each makes of every query of a test set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.test_sets import TestSet
from etr_ros import metrics
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import MANIFEST, PlaceMap
from etr_ros.datasets import ImageFolder
from etr_ros.types import Features

BLOCK = 5  # neighbouring queries, which show one place, are drawn together by the bootstrap
DRAWS = 2000

Score = Callable[[Features, Sequence[Features]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Case:
    """One query: its features, the candidates in retrieval order (K,), and of each whether it is right or doubtful."""

    name: str
    query: Features
    candidates: list[int]
    cosines: NDArray[np.float32]
    right: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    has_positive: bool


@dataclass(frozen=True, eq=False)
class Prepared:
    """A test set with its features: the places by id, and the cases."""

    name: str
    places: list[Features]
    names: list[str]
    cases: list[Case]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a re-ranker made of the cases of a set, in their order."""

    ranks: NDArray[np.float64]  # (Q,) of the first right place, inf: none among the candidates; NaN: there is none
    confidence: NDArray[np.float64]  # (Q,) of the first place
    right: NDArray[np.bool_]  # (Q,) the first place is right
    doubtful: NDArray[np.bool_]  # (Q,) neither right nor wrong
    milliseconds: NDArray[np.float64]  # (Q,) of the processor

    def recall(self, at: int = 1, rows: NDArray[np.int64] | slice = np.s_[:]) -> float:
        """Recall@K over the queries that have a place."""
        ranks = self.ranks[rows]
        return float((ranks[~np.isnan(ranks)] <= at).mean())

    def recall_at_full_precision(self, rows: NDArray[np.int64] | slice = np.s_[:]) -> float:
        """The first places as detections: the share of the queries with a place found before the first wrong one."""
        sure = ~self.doubtful[rows]
        positives = int((~np.isnan(self.ranks[rows])).sum())
        right = self.right[rows][sure]
        return metrics.precision_recall(self.confidence[rows][sure], right, positives).recall_at_full_precision

    def interval(self, measure: Callable[[NDArray[np.int64]], float], seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of a measure of rows, over blocks of neighbouring queries."""
        return interval_of(len(self.ranks), measure, seed)


def interval_of(count: int, measure: Callable[[NDArray[np.int64]], float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a measure of the rows of `count` queries, drawn in blocks."""
    rng = np.random.default_rng(seed)
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    drawn = [np.concatenate([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]) for _ in range(DRAWS)]
    low, high = np.percentile([measure(rows) for rows in drawn], [2.5, 97.5])
    return float(low), float(high)


def prepare(test_set: TestSet, config: Config, work: Path, top_k: int) -> Prepared:
    """Features are computed once and kept as maps below `work`."""
    name, _, kind = test_set.name.replace(" ", "-").partition(",")  # kinds of queries share a database
    database = _map(test_set.database, None, work / f"{name}-{config.extractor.name}-database", config)
    queries = _map(test_set.query, test_set.queries, work / f"{name}{kind}-{config.extractor.name}-query", config)
    names = [place.name for place in database.places]
    cases = []
    for place in queries.places:
        features = queries.view(place.place_id).features
        found, cosines = database.search(features, top_k)
        positives = test_set.positives.get(place.name, frozenset()) & set(names)
        doubtful = test_set.doubtful.get(place.name, frozenset())
        cases.append(
            Case(
                place.name,
                features,
                [candidate.place_id for candidate in found],
                cosines,
                np.array([candidate.name in positives for candidate in found]),
                np.array([candidate.name in doubtful for candidate in found]),
                bool(positives),
            )
        )
    return Prepared(test_set.name, [database.view(i).features for i in range(len(database))], names, cases)


def judge(prepared: Prepared, score: Score | None, name: str = "") -> Judged:
    """Re-rank every case with `score`, or leave the order of retrieval."""
    rows = []
    for case in tqdm(prepared.cases, f"{prepared.name} {name}", unit="query", leave=False):
        start = time.process_time()
        scores = case.cosines if score is None else score(case.query, [prepared.places[i] for i in case.candidates])
        milliseconds = 1e3 * (time.process_time() - start)
        order = np.argsort(-scores, kind="stable")
        hits = np.flatnonzero(case.right[order])
        rank = (hits[0] + 1 if len(hits) else np.inf) if case.has_positive else np.nan
        rows.append((rank, scores[order[0]], case.right[order[0]], case.doubtful[order[0]], milliseconds))
    ranks, confidence, right, doubtful, milliseconds = (np.array(column) for column in zip(*rows, strict=True))
    return Judged(ranks.astype(float), confidence.astype(float), right, doubtful, milliseconds)


def _map(folder: Path, names: Sequence[str] | None, path: Path, config: Config) -> PlaceMap:
    if not (path / MANIFEST).is_file():
        source = ImageFolder(folder)
        frames = tqdm(source, f"features of {path.name}", source.expected, unit="image")
        wanted = None if names is None else set(names)
        build_map((frame for frame in frames if wanted is None or frame.name in wanted), path, config)
    return PlaceMap(path)
