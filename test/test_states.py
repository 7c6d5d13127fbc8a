"""LOCALIZED, AMBIGUOUS and UNKNOWN in a world with look-alike stretches and places that the map does not have."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from etr_ros import measure
from etr_ros.calibration import ALWAYS, Calibration, Model
from etr_ros.config import Config
from etr_ros.database import PlaceMap
from etr_ros.loops import LoopDetector
from etr_ros.pipeline import Networks, PlaceRecognizer
from etr_ros.replay import replay
from etr_ros.result import Result
from etr_ros.types import Pose, State
from landmarks import Landmarks

COPY_M = 24.0  # what stands from 24 m on is what stands from 0 m on
MAPPED = *np.arange(0.0, 4.0, 0.6), *np.arange(11.0, 13.5, 0.6), *np.arange(24.0, 28.0, 0.6)
CONFIG = Config().replace(**{"loop.enabled": True, "geometry.candidates": 0})


def by_hand() -> Calibration:
    """Half sure without a lead over the best other place, surer with one; not at all with few mutual matches."""
    low, high = np.array([100.0, -1.0, -40.0]), np.array([250.0, 1.0, 40.0])
    weights = np.array([0.05, 0.0, 0.15])
    model = Model(ALWAYS, low, high, np.array([185.0, 0.0, 0.0]), np.ones(3), weights, 0.0)
    return Calibration("made-up", "landmarks", "logistic", (model,), {}, {})


@pytest.fixture(scope="module")
def world() -> Landmarks:
    return Landmarks(length_m=48.0, seed=3, copy_m=COPY_M)


@pytest.fixture(scope="module")
def town(world: Landmarks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of both look-alike stretches and of one whose copy is left out, with poses."""
    detector = LoopDetector(world.networks, CONFIG)
    for number, x in enumerate(MAPPED):
        pose = Pose((float(x), 0.0, 0.0))
        detector.answer(world.frame(pose, number, pose))
    path = tmp_path_factory.mktemp("map") / "town"
    detector.save_map(path)
    return path


def asked(world: Landmarks, town: Path, poses: list[Pose]) -> Result:
    """Each pose looked at from a little beside it, without odometry."""
    recognizer = PlaceRecognizer(PlaceMap(town), Networks(world, world.networks.scorer, by_hand()), CONFIG)  # type: ignore[arg-type]
    frames = [world.frame(pose, 1000 * (number + 1)) for number, pose in enumerate(poses)]
    truth = {frame.stamp_ns: pose for frame, pose in zip(frames, poses, strict=True)}
    played = replay(frames, recognizer, truth_at=truth.get)
    return Result({"mode": "localization", "config": {}}, tuple(played.queries))


UNIQUE = [Pose((x, 0.1, 0.0)) for x in (11.1, 11.7, 12.3)]
TWINS = [Pose((x, 0.1, 0.0)) for x in (1.3, 1.9, COPY_M + 1.3, COPY_M + 1.9)]
ELSEWHERE = [Pose((x, 0.0, 0.0)) for x in (42.6, 43.0, 43.4)]  # sees nothing that the map saw


def test_look_alike_stretches_are_ambiguous_and_weighted(world: Landmarks, town: Path) -> None:
    result = asked(world, town, TWINS)
    for query in result.queries:
        assert query.match is not None and query.truth is not None
        assert query.match.state is State.AMBIGUOUS
        named = [each for each in query.match.candidates if each.weight > 0]
        assert sum(each.weight for each in named) == pytest.approx(1.0)
        at = sorted(each.place.pose.position_m[0] for each in named if each.place.pose)
        assert len(at) == 2 and at[1] - at[0] == pytest.approx(COPY_M, abs=1.0)
        assert min(abs(x - query.truth.position_m[0]) for x in at) < 1.0


def test_what_is_unique_is_localized(world: Landmarks, town: Path) -> None:
    for query in asked(world, town, UNIQUE).queries:
        assert query.match is not None and query.match.state is State.LOCALIZED
        assert sum(each.weight for each in query.match.candidates) == 1.0
        best = query.match.best
        assert best is not None and best.place.pose is not None and query.truth is not None
        assert math.dist(best.place.pose.position_m, query.truth.position_m) < 1.0


def test_precision_and_recall_of_the_states(world: Landmarks, town: Path) -> None:
    result = asked(world, town, [*UNIQUE, *TWINS, *ELSEWHERE])
    states = measure.measure_result(result, PlaceMap(town).places)["places"]["states"]
    assert (states["localized"], states["ambiguous"], states["unknown"]) == (3, 4, 3)
    assert states["unknown_precision"] == states["unknown_recall"] == 1.0
    assert states["localized_precision"] == states["ambiguous_precision"] == 1.0
