"""Build a map: frames in, features out, written as one map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from etr_ros.config import Config
from etr_ros.dask_workers import DaskPool
from etr_ros.database import FeatureSpec, MapInfo
from etr_ros.errors import CameraError, ImageError, MapError, WeightsError
from etr_ros.features import Extractor
from etr_ros.map_writer import MapWriter
from etr_ros.neighbours import Neighbours
from etr_ros.types import Frame, View
from etr_ros.views import look
from etr_ros.workers import Pool

Seen = View | ImageError | CameraError


def build_map(
    frames: Iterable[Frame],
    output: Path,
    config: Config,
    progress: Callable[[int], None] | None = None,
    skipped: Callable[[Frame, str], None] | None = None,
    *,
    workers: int = 0,
    dask: str | None = None,
    add: bool = False,
) -> MapInfo:
    """Every frame becomes a place, its locals in 3-D where depth, or the poses of a calibrated camera, tell.

    An existing map at `output` is replaced when all is written, not before. With `add` the places are added to it, and
    it keeps its own index and ways to store; its sessions cannot be added again.

    `workers` processes compute the features, each with `compute.threads` threads or one; the map is the same for any
    number of them. With 0 this process does. `dask` is the address of a Dask scheduler whose workers compute them, or
    empty for a Dask cluster of `workers` processes on this machine.

    `progress` is told after each frame how many places there are; `skipped` hears of each picture that shows too
    little and why. Raises MapError when nothing is left or the disk is full, WeightsError when the extractor has no
    weights or a worker has others, DataError when workers die again and again, ConfigError when there is no Dask.
    """
    extractor, neighbours = Extractor.load(config), Neighbours()
    writer = (
        MapWriter.add_to(output, extractor.spec)
        if add
        else MapWriter(output, extractor.spec, config.retrieval.index, config.to_dict(), memory=config.memory)
    )
    with writer:
        known = set(writer.sessions)
        for frame, seen in _look_at_all(frames, extractor, config, workers, dask):
            if frame.session in known:
                raise MapError(f"the map {output} has the session '{frame.session}' already: give another --session")
            try:
                if not isinstance(seen, View):
                    raise seen
                writer.add(frame, neighbours.complete(seen, frame.pose, config.geometry).features)
            except (ImageError, CameraError) as error:
                if skipped:
                    skipped(frame, str(error))
            if progress:
                progress(len(writer))
        return writer.commit()


def _look_at_all(
    frames: Iterable[Frame], extractor: Extractor, config: Config, workers: int, dask: str | None
) -> Iterator[tuple[Frame, Seen]]:
    arguments = config.to_dict(), extractor.spec
    if dask is not None:
        yield from DaskPool(_start, arguments, dask, workers).map(frames)
    elif workers:
        yield from Pool(_start, arguments, workers).map(frames)
    else:
        for frame in frames:
            yield frame, _look(extractor, config, frame)


def _start(values: dict[str, Any], spec: FeatureSpec) -> Callable[[Frame], Seen]:
    config = Config.from_dict(values)
    config = config.replace(**{"compute.threads": config.compute.threads or 1})
    extractor = Extractor.load(config)
    if difference := extractor.spec.difference(spec):
        raise WeightsError(f"a worker computes other features than this process: {difference}")
    return lambda frame: _look(extractor, config, frame)


def _look(extractor: Extractor, config: Config, frame: Frame) -> Seen:
    try:
        return look(extractor, frame, config.geometry)
    except (ImageError, CameraError) as error:
        return error
