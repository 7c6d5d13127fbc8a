"""The node as users start it, networks included: a map of real features, images in, the right places out."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from robot import NodeProcess, Robot

from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.types import Frame, Pose
from etr_ros_msgs.msg import PlaceMatch

COMMAND = (sys.executable, "-m", "etr_ros.ros.main")
PLACES = 4


def scene(seed: int) -> np.ndarray:
    """A picture full of corners, different for each seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((240, 320, 3), 90, np.uint8)
    for _ in range(120):
        corner, size = rng.integers(0, 300, 2), rng.integers(8, 60, 2)
        cv2.rectangle(picture, corner, corner + size, rng.integers(0, 256, 3).tolist(), -1)
    return picture


@pytest.fixture(scope="module")
def real_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "map"
    frames = [Frame(scene(i), i, f"{i}.png", "survey", Pose((float(i), 0.0, 0.0))) for i in range(PLACES)]
    build_map(frames, path, Config())
    return path


def test_images_of_places_find_their_places(robot: Robot, real_map: Path, tmp_path: Path) -> None:
    parameters = {"node.map": real_map, "node.image_topic": "/camera", "node.autostart": True}
    with NodeProcess(tmp_path / "log", COMMAND, **parameters) as process:
        for place_id in range(PLACES):
            seen_later = cv2.GaussianBlur(np.roll(scene(place_id), 5, axis=1), (3, 3), 0)
            match = robot.show(robot.image(seen_later))
            assert match.candidates[0].place_id == place_id
            assert match.candidates[0].retrieval_score > match.candidates[1].retrieval_score
        stages = {stage.name: stage.duration_ms for stage in match.stages}
        assert {"wait", "decode", "extract", "retrieve", "rerank"} <= stages.keys()
        assert all(duration_ms >= 0 for duration_ms in stages.values())
        assert match.scored == len(match.candidates) == PLACES

        assert robot.set(node__deadline_ms=0.01).successful  # shorter than extraction
        unranked = robot.show(robot.image(scene(1)))
        assert (unranked.scored, unranked.state) == (0, PlaceMatch.STATE_UNKNOWN)
        assert unranked.candidates[0].place_id == 1
        assert all("not re-ranked: the answer was due" in candidate.reason for candidate in unranked.candidates)
        assert int(robot.value("answers without re-ranking")) == 1
        assert robot.set(node__deadline_ms=60_000.0).successful
        ranked = robot.show(robot.image(scene(1)))
        assert ranked.scored == PLACES
        assert process.stop() == 0
        assert "Traceback" not in process.output
