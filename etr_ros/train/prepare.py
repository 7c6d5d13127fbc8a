"""From folders of pictures to training sources: features are computed once and kept as maps, with changed copies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import MANIFEST, PlaceMap, read_info
from etr_ros.datasets import image_folder
from etr_ros.errors import DataError, MapError
from etr_ros.features import Extractor
from etr_ros.train.augment import augment
from etr_ros.train.pairs import COPY_MARK, Source, read_overlaps
from etr_ros.types import Frame

POSES_FILE, OVERLAPS_FILE = "poses.csv", "pairs.csv"

Progress = Callable[[str, int, int], None]  # stage, done, total


def open_sources(
    paths: Sequence[Path], cache: Path, config: Config, copies: int, seed: int, progress: Progress
) -> list[Source]:
    """Each path is a map, or a folder of pictures (with `poses.csv` and `pairs.csv` where these are known).

    Folders become maps below `cache`, with `copies` changed copies of every picture; a map that is already there and
    was made alike is used again. Raises DataError for an unusable source, MapError for a map with other features.
    """
    spec = Extractor.load(config).spec
    sources = []
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path} is not a folder: give folders of pictures or maps")
        place_map = path if (path / MANIFEST).is_file() else _cached(path, cache, config, copies, seed, progress)
        difference = read_info(place_map).features.difference(spec)
        if difference:
            raise MapError(f"the map {place_map} was made with {difference}: build it again")
        overlaps = read_overlaps(path / OVERLAPS_FILE) if (path / OVERLAPS_FILE).is_file() else None
        sources.append(Source(PlaceMap(place_map), overlaps))
    return sources


def with_copies(frames: Iterable[Frame], copies: int, seed: int) -> Iterator[Frame]:
    """Each frame, then its changed copies, named `<name>#1`, `<name>#2`, ..., which depend on name and seed only."""
    for frame in frames:
        yield frame
        for number in range(1, copies + 1):
            key = hashlib.sha256(f"{seed}/{number}/{frame.name}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
            yield replace(frame, image=augment(frame.image, rng), name=f"{frame.name}{COPY_MARK}{number}")


def _cached(path: Path, cache: Path, config: Config, copies: int, seed: int, progress: Progress) -> Path:
    poses = path / POSES_FILE
    frames = image_folder(path, poses if poses.is_file() else None)
    made_from = repr((path.resolve(), frames.expected, copies, seed, config.extractor))
    place_map = cache / f"{path.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}"
    try:
        read_info(place_map)
    except MapError:
        stage, total = f"features of {path.name}", (frames.expected or 0) * (1 + copies)
        build_map(with_copies(frames, copies, seed), place_map, config, lambda done: progress(stage, done, total))
    return place_map
