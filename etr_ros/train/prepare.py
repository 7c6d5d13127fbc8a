"""From folders of pictures to training sources: features are computed once and kept as maps, with changed copies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from etr_ros.bags import BagImages
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import MANIFEST, PlaceMap, read_info
from etr_ros.datasets import FrameSource, image_folder
from etr_ros.errors import DataError, MapError
from etr_ros.features import Extractor
from etr_ros.keyframes import select
from etr_ros.train.augment import augment
from etr_ros.train.pairs import COPY_MARK, Source, read_overlaps, sequence_of
from etr_ros.types import Frame

POSES_FILE, OVERLAPS_FILE = "poses.csv", "pairs.csv"
MIN_SEQUENCES = 3

Progress = Callable[[str, int, int], None]  # stage, done, total


def open_sources(
    paths: Sequence[Path],
    cache: Path,
    config: Config,
    copies: int,
    seed: int,
    progress: Progress,
    topics: tuple[str, str | None] = ("", None),
) -> list[Source]:
    """Each path is a map, a bag, or a folder of pictures (with `poses.csv` and `pairs.csv` where these are known).

    Folders and bags become maps below `cache`, with `copies` changed copies of every picture, or none where
    `pairs.csv` tells which other pictures show the same; a map that is already there and was made alike is used again.
    `topics` are the image and pose topic of bags. Raises DataError for an unusable source, MapError for a map with
    other features.
    """
    spec = Extractor.load(config).spec
    sources = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} is not there: give folders of pictures, bags or maps")
        place_map = path
        if not (path / MANIFEST).is_file():
            made = 0 if (path / OVERLAPS_FILE).is_file() else copies
            place_map = _cached(path, cache, config, made, seed, progress, topics)
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


def hold_out(sources: Sequence[Source], seed: int) -> tuple[list[Source], list[Source]]:
    """The sources without, and with only, about a fifth of all their sequences. Raises DataError with fewer than 3."""
    names = sorted({(k, sequence_of(place)) for k, source in enumerate(sources) for place in source.places})
    if len(names) < MIN_SEQUENCES:
        raise DataError(
            f"the sources hold {len(names)} sequences, too few to hold some out (drives, or runs of names that differ "
            "in their trailing number): give --validation sources of their own"
        )
    chosen = np.random.default_rng(seed).permutation(len(names))[: max(1, len(names) // 5)]
    held = {names[i] for i in chosen}
    return _only(sources, set(names) - held), _only(sources, held)


def _only(sources: Sequence[Source], names: set[tuple[int, str]]) -> list[Source]:
    kept = [frozenset(name for number, name in names if number == k) for k in range(len(sources))]
    return [replace(source, sequences=some) for source, some in zip(sources, kept, strict=True) if some]


def _cached(
    path: Path,
    cache: Path,
    config: Config,
    copies: int,
    seed: int,
    progress: Progress,
    topics: tuple[str, str | None],
) -> Path:
    poses = path / POSES_FILE
    is_bag = path.is_file() or (path / "metadata.yaml").is_file()
    source: FrameSource
    source = BagImages(path, *topics) if is_bag else image_folder(path, poses if poses.is_file() else None)
    made_from = repr((path.resolve(), source.expected, copies, seed, config.extractor))
    place_map = cache / f"{path.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}"
    try:
        read_info(place_map)
    except MapError:
        stage, total = f"features of {path.name}", (source.expected or 0) * (1 + copies)
        kept = select(source, config.keyframe) if is_bag else source
        build_map(with_copies(kept, copies, seed), place_map, config, lambda done: progress(stage, done, total))
    return place_map
