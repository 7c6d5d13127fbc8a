"""Measure recognition: query pictures against a database, or a sequence against its own past."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from etr_ros import ground_truth, rerank
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import MANIFEST
from etr_ros.datasets import FrameSource, ImageFolder
from etr_ros.errors import DataError, ImageError
from etr_ros.features.extractor import choose_device
from etr_ros.ground_truth import GroundTruth
from etr_ros.pipeline import PlaceRecognizer
from etr_ros.predictions import Answer, measure, stage_times, write_results
from etr_ros.types import Frame, Place, PlaceMatch
from etr_ros.versions import versions

Track = Callable[[FrameSource, str], Iterable[Frame]]  # passes on the frames of a source and shows how far it is


class Recognizer(Protocol):
    """What is measured; see `PlaceRecognizer`."""

    def query(self, frame: Frame, places_before: int | None = None) -> PlaceMatch: ...


@dataclass(frozen=True)
class Request:
    """What to measure: the pictures in `query` against those in `database` (a folder, or a map).

    Without a database, `query` is a sequence: each frame is sought among the frames before it, except the last
    `exclude_frames` of them. Ground truth is a CSV of pairs, a radius (with poses), a frame tolerance, or none.
    """

    query: Path
    output: Path
    database: Path | None = None
    exclude_frames: int = 0
    ground_truth: Path | None = None
    poses_database: Path | None = None
    poses_query: Path | None = None
    radius_m: float | None = None
    frame_tolerance: int | None = None

    def check(self) -> None:
        """Raises DataError when the values contradict each other."""
        truths = [value for value in (self.ground_truth, self.radius_m, self.frame_tolerance) if value is not None]
        if len(truths) > 1:
            raise DataError("give one ground truth only: a CSV of pairs, a radius or a frame tolerance")
        if self.exclude_frames < 0 or (self.frame_tolerance or 0) < 0 or not (self.radius_m or 0) >= 0:
            raise DataError("excluded frames, frame tolerance and radius must be 0 or more")
        if self.database is None and self.frame_tolerance is not None and self.frame_tolerance <= self.exclude_frames:
            raise DataError("all frames within the frame tolerance are excluded: give a larger tolerance")
        if self.poses_database and (self.database is None or _is_map(self.database)):
            raise DataError("poses of the database go with a folder of pictures only: a map has its own")
        if _is_map(self.output):
            raise DataError(f"{self.output} is a map: give another folder for the results")


@dataclass(frozen=True)
class Report:
    """The content of metrics.json, and what the user has to know besides, one line each."""

    metrics: dict[str, Any]
    notes: tuple[str, ...]


def untracked(source: FrameSource, _: str) -> Iterable[Frame]:
    """Show nothing."""
    return source


def evaluate(request: Request, config: Config, track: Track = untracked) -> Report:
    """Make a map of the database in `output`/map (unless it is one), query it, and write what came out to `output`:

    predictions.csv, metrics.json and, for a sequence, loops.csv. Raises EtrError; then no results are written.
    """
    request.check()
    pairs = ground_truth.read_pairs(request.ground_truth) if request.ground_truth else None
    queries = ImageFolder(request.query, request.poses_query)
    queries.enough_px = config.extractor.max_side_px
    is_sequence = request.database is None
    # wrong weights are told before the map is built, not after
    rerank.load(config.rerank.name, config.extractor.name, choose_device(config.compute.device))
    frames = len(queries.names)
    if is_sequence and request.exclude_frames >= frames - 1:
        raise DataError(f"excluding {request.exclude_frames} frames leaves nothing of {frames}: exclude fewer")
    start = time.perf_counter()
    if request.database is not None and _is_map(request.database):
        database, map_path = None, request.database
    else:
        database = queries if request.database is None else ImageFolder(request.database, request.poses_database)
        database.enough_px = config.extractor.max_side_px
        map_path = request.output / "map"
        build_map(track(database, "database"), map_path, config, skipped=database.reject)
    notes = database.notes() if database else []
    build_s = time.perf_counter() - start

    recognizer = PlaceRecognizer.open(map_path, config)
    places = recognizer.places
    numbers = _frame_numbers(places, database)
    limits = _past_only(queries.names, numbers, request.exclude_frames) if is_sequence else None
    if limits and not any(limits.values()):
        raise DataError(f"excluding {request.exclude_frames} frames leaves nothing of {len(limits)}: exclude fewer")
    truth = _truth(request, pairs, queries, places, numbers)
    if truth and limits:
        truth = truth.before(limits)

    answers = answer_all(recognizer, queries, track, limits)
    if not is_sequence:
        notes += queries.notes()
    result = measure(answers, truth) | {
        "places": len(places),
        "config": config.to_dict(),
        "versions": versions(),
        "timing": {"build_s": build_s, "query_ms": stage_times(answers)},
    }
    write_results(request.output, answers, result, with_loops=is_sequence)
    return Report(result, tuple(notes))


def answer_all(
    recognizer: Recognizer, queries: ImageFolder, track: Track = untracked, limits: Mapping[str, int] | None = None
) -> list[Answer]:
    """One answer for each picture of `queries`, in their order; an empty one for a picture that is of no use.

    With `limits`, only places with an id below the query's limit are candidates.
    """
    answers: dict[str, Answer] = {}
    for frame in track(queries, "queries"):
        limit = None if limits is None else limits[frame.name]
        if limit == 0:
            continue
        try:
            match = recognizer.query(frame, limit)
        except ImageError as error:
            queries.reject(frame, str(error))
            continue
        answers[frame.name] = Answer(frame.name, match.candidates, match.stage_ms)
    return [answers.get(name, Answer(name)) for name in queries.names]


def _is_map(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _frame_numbers(places: Sequence[Place], database: ImageFolder | None) -> list[int]:
    """The number of each place: its position in the folder, or in the map when there is no folder."""
    if database is None:
        return list(range(len(places)))
    position = {name: number for number, name in enumerate(database.names)}
    return [position[place.name] for place in places]


def _past_only(names: Sequence[str], place_numbers: Sequence[int], exclude_frames: int) -> dict[str, int]:
    """How many places lie more than `exclude_frames` frames before each frame; place numbers rise."""
    return {name: bisect.bisect_left(place_numbers, number - exclude_frames) for number, name in enumerate(names)}


def _truth(
    request: Request,
    pairs: ground_truth.Pairs | None,
    queries: ImageFolder,
    places: Sequence[Place],
    place_numbers: Sequence[int],
) -> GroundTruth | None:
    if pairs is not None:
        if request.database is None:  # in a sequence either frame of a pair may be the later one
            pairs = [*pairs, *((database, query) for query, database in pairs)]
        return ground_truth.from_pairs(pairs, queries.names, places)
    if request.radius_m is not None:
        poses = {name: posed.pose for name, posed in zip(queries.names, queries.posed, strict=True)}
        return ground_truth.from_poses(poses, places, request.radius_m)
    if request.frame_tolerance is not None:
        return ground_truth.from_frame_numbers(queries.names, place_numbers, request.frame_tolerance)
    return None
