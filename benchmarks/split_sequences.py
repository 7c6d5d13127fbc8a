"""Make a database and queries out of picture sequences that pass each place once, for `etr evaluate`.

    python benchmarks/split_sequences.py FLOOR [FLOOR ...] --output DIR

Of every sequence (file names that differ in the trailing number only) each fourth picture goes into the database and
each fourth, two pictures later, is a query; `query_changed` holds the queries under another light, blur, crop and with
occluders. A database picture shows the same place (`ground_truth.csv`) when it is of the same floor and verifies
geometrically with SIFT, which none of the measured extractors uses: 40 inliers of one fundamental matrix, or 15 where
it is at most 2 numbers away in the same sequence. Pictures up to 8 numbers apart in a sequence that do not verify are
doubtful (`doubtful.csv`): they may well share something. Such a truth favours geometric re-rankers. Floors are mixed,
so that look-alike corridors of other floors are there to be confused.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.train.augment import augment
from etr_ros.verify import epipolar_inliers

STRIDE, SHIFT = 4, 2
NEAR_NUMBERS, DOUBTFUL_NUMBERS = 2, 8
MIN_INLIERS, MIN_INLIERS_NEAR = 40, 15
RATIO = 0.8


def main() -> int:
    """Write the folders; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("floors", type=Path, nargs="+", help="folders of pictures with numbered names")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    args = parser.parse_args()
    pairs = split(args.floors, args.output, args.seed)
    print(f"{args.output}: {len({query for query, _ in pairs})} queries have a place in the database")
    return 0


def split(floors: list[Path], output: Path, seed: int = 0) -> list[tuple[str, str]]:
    """Write the folders and tables; gives back the pairs of the same place, query first."""
    folders = {name: output / name for name in ("database", "query", "query_changed")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)

    database: list[Picture] = []
    queries: list[Picture] = []
    for picture in (picture for floor in floors for picture in pictures_of(floor)):
        if picture.number % STRIDE in (0, SHIFT):
            (database if picture.number % STRIDE == 0 else queries).append(picture)
    for picture in database:
        shutil.copy(picture.file, folders["database"])
    truth, doubtful = [], []
    for query in tqdm(queries, unit="query"):
        shutil.copy(query.file, folders["query"])
        key = int.from_bytes(hashlib.sha256(f"{seed}/{query.file.name}".encode()).digest()[:8], "little")
        changed = augment(cv2.imread(str(query.file)).astype(np.uint8), np.random.default_rng(key))
        cv2.imwrite(str(folders["query_changed"] / query.file.name), changed)
        for place in database:
            if same_place(query, place):
                truth.append((query.file.name, place.file.name))
            elif query.sequence_distance(place) <= DOUBTFUL_NUMBERS:
                doubtful.append((query.file.name, place.file.name))
    for name, rows in (("doubtful", doubtful), ("ground_truth", truth)):
        with (output / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("query", "database"), *rows])
    return truth


@dataclass(frozen=True)
class Picture:
    """One picture of a sequence on a floor."""

    file: Path
    floor: str
    sequence: str
    number: int

    def sequence_distance(self, other: Picture) -> float:
        """How many numbers two pictures are apart; infinite in different sequences."""
        same = (self.floor, self.sequence) == (other.floor, other.sequence)
        return abs(self.number - other.number) if same else float("inf")

    @cached_property
    def sift(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 2) and descriptors (N, 128)."""
        gray = cv2.imread(str(self.file), cv2.IMREAD_GRAYSCALE)
        keypoints, descriptors = cv2.SIFT_create(1000).detectAndCompute(gray, None)
        return np.array([k.pt for k in keypoints], np.float32), descriptors


def pictures_of(floor: Path) -> Iterator[Picture]:
    """The numbered pictures of a folder in the order of their names."""
    for file in sorted(floor.glob("*.jpg")):
        match = re.search(r"(\d+)$", file.stem)
        if match:
            yield Picture(file, floor.name, file.stem[: match.start()], int(match.group(1)))


def same_place(query: Picture, place: Picture) -> bool:
    """Whether two pictures verify geometrically; pictures of different floors never do."""
    if query.floor != place.floor:
        return False
    is_near = query.sequence_distance(place) <= NEAR_NUMBERS
    return inliers(query, place) >= (MIN_INLIERS_NEAR if is_near else MIN_INLIERS)


def inliers(a: Picture, b: Picture) -> int:
    """Ratio-tested SIFT matches that agree with one fundamental matrix."""
    (points_a, descriptors_a), (points_b, descriptors_b) = a.sift, b.sift
    if min(len(points_a), len(points_b)) < MIN_INLIERS_NEAR:
        return 0
    pairs = cv2.BFMatcher().knnMatch(descriptors_a, descriptors_b, k=2)
    good = [first for first, second in pairs if first.distance < RATIO * second.distance]
    if len(good) < MIN_INLIERS_NEAR:
        return 0
    from_a = points_a[[match.queryIdx for match in good]]
    from_b = points_b[[match.trainIdx for match in good]]
    return int(epipolar_inliers(from_a, from_b).sum())


if __name__ == "__main__":
    sys.exit(main())
