"""`etr replay`: a bag through the recognizer, and all that came out into one folder, see `etr_ros.result_files`."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etr_ros import __version__, ground_truth, measure, rerank, result_files
from etr_ros.backends.files import loop_edges, odometry_edges, write_g2o, write_tum
from etr_ros.bag_poses import BagPoses
from etr_ros.bag_storage import Bag
from etr_ros.bags import BagImages
from etr_ros.camera import Camera
from etr_ros.config import Config, SensorConfig
from etr_ros.database import PlaceMap
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError, EtrError
from etr_ros.journal import Journal, RememberingExtractor
from etr_ros.loops import LoopDetector
from etr_ros.map_writer import MapWriter
from etr_ros.measure import Protocol
from etr_ros.pipeline import Networks, PlaceRecognizer, Recognizer, require_same_features
from etr_ros.replay import Replayed, replay
from etr_ros.result import Result
from etr_ros.types import Frame, Place
from etr_ros.versions import versions

WORK = "work"
LIVE = "live"
NOT_MEASURED = "nothing was measured"
OTHER_CAMERA = 1.2  # ratio of focal lengths, in picture widths, beyond which cameras differ

BY_POSES = Protocol()

Track = Callable[[FrameSource, str], Iterable[Frame]]
WriteBag = Callable[[Path, Result, str], None]  # (folder, result, camera frame)


@dataclass(frozen=True)
class Request:
    """What to replay. Without `map_path` loops are sought within the recording; topics are those of the bag."""

    bag: Path
    output: Path
    image_topic: str
    pose_topic: str | None = None
    truth_topic: str | None = None
    map_path: Path | None = None
    sensors: SensorConfig | None = None
    protocol: Protocol = BY_POSES
    compute_ms: float | None = None  # of the live node that is simulated besides
    restart: bool = False  # do not go on with what an interrupted replay left


def replay_bag(
    request: Request, config: Config, track: Track, write_bag: WriteBag | None = None
) -> tuple[Result, Result | None]:
    """Replay, write the result folder, and give it back; and that of the simulated live node in `output`/live.

    Raises EtrError; what was answered until then is kept, and the same request goes on from there.
    """
    _require_place_for(request.output)
    if request.map_path is None:
        config = config.replace(**{"loop.enabled": True})
    job = _Job(request, config, track, write_bag)
    if request.restart:
        shutil.rmtree(request.output / WORK, ignore_errors=True)
    result = job.run(request.output, None)
    live = None if request.compute_ms is None else job.run(request.output / LIVE, request.compute_ms)
    shutil.rmtree(request.output / WORK, ignore_errors=True)
    return result, live


class _Job:
    def __init__(self, request: Request, config: Config, track: Track, write_bag: WriteBag | None) -> None:
        self._request, self._config, self._track, self._write_bag = request, config, track, write_bag
        session = request.bag.resolve().stem
        self._source = BagImages(request.bag, request.image_topic, request.pose_topic, session, request.sensors)
        self._source.enough_px = config.extractor.max_side_px
        self._truth: BagPoses | None = None
        if request.truth_topic:
            self._truth = BagPoses(Bag(request.bag), request.truth_topic, math.inf, with_fixes=True)
        self._map = None if request.map_path is None else PlaceMap(request.map_path, self._config.memory.ceiling_mb)
        self._networks = Networks.load(config)
        if self._map is not None:
            require_same_features(self._map, self._networks.extractor)

    def run(self, output: Path, compute_ms: float | None) -> Result:
        """One pass over the bag."""
        request = self._request
        work = request.output / WORK / ("live" if compute_ms is not None else "all")
        journal = Journal(work, self._work(compute_ms), request.output / WORK / "features")
        networks = journal.networks(self._networks)
        extractor: Any = networks.extractor
        recognizer = self._recognizer(networks)
        name = "simulate live" if compute_ms is not None else "replay"
        shutil.rmtree(output / result_files.PICTURES, ignore_errors=True)
        with MapWriter(
            output / result_files.PICTURES, extractor.spec, "exact", self._config.to_dict(), map_id="pictures"
        ) as pictures:
            played = replay(
                self._track(self._source, name),
                recognizer,
                segment_at=self._source.segment_at,
                truth_at=self._truth.at if self._truth else lambda stamp_ns: None,
                answered=lambda frame: pictures.add(frame, _features(extractor)),
                compute_ms=compute_ms,
            )
            if len(pictures):
                pictures.commit()
        result = Result(self._manifest(compute_ms), tuple(played.queries), tuple(played.loops), self._notes(played))
        result = self._finish(output, result)
        journal.close(remove=True)
        return result

    def _recognizer(self, networks: Networks) -> Recognizer:
        if self._config.loop.enabled:
            return LoopDetector(networks, self._config, self._map, self._source.session)
        if self._map is None:
            raise DataError("there is neither a map nor loop mode")
        return PlaceRecognizer(self._map, networks, self._config)

    def _finish(self, output: Path, result: Result) -> Result:
        """Whatever is made of the answers, then the tables and the manifest."""
        for name in (*result_files.OPTIONAL, result_files.MANIFEST):
            (output / name).unlink(missing_ok=True)
        notes = [*result.notes, *self._unknown_names(result)]
        try:
            measured = self._measure(result)
            if measured is not None:
                (output / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        except EtrError as error:
            notes.append(f"{NOT_MEASURED}: {error}")
        session = self._source.session if self._config.loop.enabled else ""
        answered = [
            Place(query.picture_id, query.name, session, query.stamp_ns, query.odometry)
            for query in result.queries
            if query.picture_id is not None
        ]
        if answered and all(place.pose is not None for place in answered):
            write_tum(output / "odometry.tum", answered)
            if self._config.loop.enabled:
                segments = [self._source.segment_at(place.stamp_ns) for place in answered]
                edges = odometry_edges(answered, segments, self._config.loop)
                write_g2o(output / "loops.g2o", answered, [*edges, *loop_edges(answered, result.loops)])
        if self._write_bag is not None:
            self._write_bag(output / result_files.OUTPUT_BAG, result, self._source.camera_frame)
        return result_files.write(output, dataclasses.replace(result, notes=tuple(notes)))

    def _unknown_names(self, result: Result) -> list[str]:
        pairs = self._request.protocol.pairs
        if pairs is None:
            return []
        names = [query.name for query in result.queries]
        line = ground_truth.unknown_names(pairs, names, self._map.places if self._map else ())
        return [line] if line else []

    def _measure(self, result: Result) -> dict[str, Any] | None:
        protocol = self._request.protocol
        if self._truth is None and protocol.pairs is None and protocol.frame_tolerance is None:
            return None
        if self._truth is not None and not self._truth.knows_rotation:
            loops = dataclasses.replace(protocol.loops, knows_rotation=False)
            protocol = dataclasses.replace(protocol, loops=loops)
        return measure.measure_result(result, self._map.places if self._map is not None else (), protocol)

    def _notes(self, played: Replayed) -> tuple[str, ...]:
        notes = [*self._source.notes(), *played.notes]
        if self._truth is not None:
            notes += self._truth.notes()
            if not any(query.truth for query in played.queries):
                notes.append(f"{self._request.truth_topic} has no pose at the time of any picture")
        if self._config.loop.enabled and not any(query.odometry for query in played.queries):
            notes.append("no odometry: loops are judged by the order of the pictures alone (give --pose-topic)")
        unusable = [query for query in played.queries if query.reason and query.outcome.value == "unusable"]
        if played.queries and len(unusable) == len(played.queries):
            notes.append(f"no picture could be used; the first: {unusable[0].reason}")
        return tuple(notes + _other_camera(self._map, self._source.camera))

    def _manifest(self, compute_ms: float | None) -> dict[str, Any]:
        request, place_map = self._request, self._map
        return {
            "etr_ros": __version__,
            "mode": "loops" if self._config.loop.enabled else "localization",
            "bag": {
                "name": request.bag.resolve().name,
                "image_topic": request.image_topic,
                "pose_topic": request.pose_topic,
                "truth_topic": request.truth_topic,
                **_named(request.sensors),
            },
            "map": place_map
            and {"path": str(place_map.info.path), "map_id": place_map.info.map_id, "places": len(place_map.places)},
            "session": self._source.session,
            "simulate": None if compute_ms is None else {"compute_ms": compute_ms},
            "reranker": rerank.identity(self._config.rerank.name, self._config.extractor.name),
            "calibration": self._networks.calibration.digest if self._networks.calibration else "",
            "config": self._config.to_dict(),
            "versions": versions(),
        }

    def _work(self, compute_ms: float | None) -> dict[str, Any]:
        """All that the answers depend on."""
        topics = {name: [topic.type, topic.messages] for name, topic in self._source.bag.topics.items()}
        spec = dataclasses.asdict(self._networks.extractor.spec)
        return json.loads(json.dumps([result_files.FORMAT_VERSION, self._manifest(compute_ms), topics, spec]))  # type: ignore[no-any-return]


def _features(extractor: RememberingExtractor) -> Any:
    return extractor.last


def _named(sensors: SensorConfig | None) -> dict[str, Any]:
    return {} if sensors is None else dataclasses.asdict(sensors)


def _other_camera(place_map: PlaceMap | None, camera: Camera | None) -> list[str]:
    """A line when the map was made with a camera that sees much wider or narrower."""
    known: Sequence[Camera] = [rig.camera for rig in place_map.info.rigs if rig.camera] if place_map else []
    if camera is None or not known:
        return []
    mine, theirs = camera.fx / camera.width, known[0].fx / known[0].width
    if max(mine / theirs, theirs / mine) <= OTHER_CAMERA:
        return []
    line = (
        f"the map was made with another camera: its focal length is {theirs:.2f} picture widths, "
        f"that of the bag {mine:.2f}; fewer places are recognised then"
    )
    return [line]


def _require_place_for(output: Path) -> None:
    """Raises DataError when the folder holds something that is neither a result nor the work of one."""
    known = {result_files.MANIFEST, result_files.PICTURES, result_files.OUTPUT_BAG, WORK, LIVE, "timing.csv"}
    known |= {*result_files.TABLES, *result_files.OPTIONAL, "report.html"}
    if output.is_file():
        raise DataError(f"{output} is a file: give another --output")
    others = sorted(entry.name for entry in output.iterdir() if entry.name not in known) if output.is_dir() else []
    if others:
        raise DataError(f"{output} holds other files ({others[0]}): give another --output")
