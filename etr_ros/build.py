"""Build a map: frames in, features out, written as one map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from etr_ros.config import Config
from etr_ros.database import MapInfo
from etr_ros.errors import CameraError, ImageError
from etr_ros.features import Extractor
from etr_ros.map_writer import MapWriter
from etr_ros.neighbours import Neighbours
from etr_ros.types import Frame
from etr_ros.views import look


def build_map(
    frames: Iterable[Frame],
    output: Path,
    config: Config,
    progress: Callable[[int], None] | None = None,
    skipped: Callable[[Frame, str], None] | None = None,
) -> MapInfo:
    """Every frame becomes a place, its locals in 3-D where depth, or the poses of a calibrated camera, tell.

    An existing map at `output` is replaced when all is written, not before.

    `progress` is told after each frame how many places there are; `skipped` hears of each picture that shows too
    little and why. Raises MapError when nothing is left, WeightsError when the extractor has no weights.
    """
    extractor, neighbours = Extractor.load(config), Neighbours()
    with MapWriter(output, extractor.spec, config.retrieval.index, config.to_dict()) as writer:
        for frame in frames:
            try:
                view = neighbours.complete(look(extractor, frame, config.geometry), frame.pose, config.geometry)
                writer.add(frame, view.features)
            except (ImageError, CameraError) as error:
                if skipped:
                    skipped(frame, str(error))
            if progress:
                progress(len(writer))
        return writer.commit()
