"""Loop-closure mode from frames to loops, on a made-up world with exact geometry: drives, look-alikes, breaks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from etr_ros.config import Config
from etr_ros.database import PlaceMap
from etr_ros.loops import LoopDetector
from etr_ros.transforms import between, error
from etr_ros.types import LoopClosure, Pose, State
from landmarks import Landmarks

CONFIG = Config().replace(
    **{
        "loop.exclusion_s": 5.0,
        "loop.exclusion_m": 3.0,
        "loop.min_support": 2,
        "retrieval.top_k": 10,
        "geometry.candidates": 3,
    }
)


def there_and_again(length_m: float, beside_m: float = 0.4) -> list[Pose]:
    """Along x, back without looking at what is mapped (far away), and along x again somewhat beside."""
    first = [Pose((x, 0.0, 0.0)) for x in np.arange(1.0, length_m, 0.6)]
    away = [Pose((x, 50.0, 0.0), (0.0, 0.0, 1.0, 0.0)) for x in np.arange(length_m, 1.0, -2.0)]
    return first + away + [Pose((x + 0.13, beside_m, 0.0)) for x in np.arange(1.0, length_m, 0.6)]


def drifted(true: Iterable[Pose], per_m: float = 0.01) -> list[Pose]:
    grown = 1 + per_m
    return [Pose((p.position_m[0] * grown, p.position_m[1] * grown, 0.0), p.quat_xyzw, "odom") for p in true]


def drive(
    detector: LoopDetector, world: Landmarks, poses: list[Pose], odometry: list[Pose | None] | None = None
) -> list[LoopClosure]:
    loops: list[LoopClosure] = []
    believed = drifted(poses) if odometry is None else odometry
    for number, (true, pose) in enumerate(zip(poses, believed, strict=True)):
        frame = world.frame(true, number, pose)
        answer = detector.answer(frame)
        loops += answer.loops if answer else ()
    return loops + list(detector.finish())


def test_the_second_lap_closes_loops_that_are_right(tmp_path: Path) -> None:
    world, poses = Landmarks(seed=1), there_and_again(12.0)
    detector = LoopDetector(world.networks, CONFIG)
    loops = drive(detector, world, poses)
    accepted = [loop for loop in loops if loop.accepted]
    second_lap = range(len(poses) - 18, len(poses))
    assert {loop.query.place_id for loop in accepted} >= set(second_lap[1:-1])
    for loop in accepted:
        true = between(poses[int(loop.match.name)], poses[int(loop.query.name)])
        assert loop.geometry.is_metric and loop.geometry.match_t_query is not None
        assert np.linalg.norm(error(loop.geometry.match_t_query, true)[:3]) < 0.05
        assert loop.query.session == loop.match.session and loop.query.stamp_ns > loop.match.stamp_ns


def test_every_decided_loop_of_a_query_is_told_once() -> None:
    world, poses = Landmarks(seed=2), there_and_again(8.0)
    loops = drive(LoopDetector(world.networks, CONFIG), world, poses)
    pairs = [(loop.query.place_id, loop.match.place_id) for loop in loops]
    assert len(pairs) == len(set(pairs))
    assert all(loop.accepted != bool(loop.reason) for loop in loops)


def test_a_stretch_that_looks_alike_is_refused_by_odometry() -> None:
    """From x = 20 on everything is a copy of what stands at 0: matches are perfect, and 20 m wrong."""
    world = Landmarks(length_m=32.0, seed=3, copy_m=20.0)
    poses = [Pose((x, 0.0, 0.0)) for x in np.arange(1.0, 30.0, 0.6)]
    config = CONFIG.replace(**{"loop.exclusion_m": 8.0})
    loops = drive(LoopDetector(world.networks, config), world, poses)
    assert not any(loop.accepted for loop in loops)
    assert sum("odometry contradicts" in loop.reason for loop in loops) > 5


def test_without_odometry_loops_come_by_the_order_of_the_pictures() -> None:
    world, poses = Landmarks(seed=4), there_and_again(8.0)
    loops = drive(LoopDetector(world.networks, CONFIG), world, poses, [None] * len(poses))
    accepted = [loop for loop in loops if loop.accepted]
    assert len(accepted) > 5
    for loop in accepted:
        match, query = (poses[int(place.name)].position_m for place in (loop.match, loop.query))
        assert math.dist(match, query) < 6.0, "the range of sight"


def test_a_prebuilt_session_is_localized_in_while_the_new_one_is_mapped(tmp_path: Path) -> None:
    world = Landmarks(seed=5)
    first = [Pose((x, 0.0, 0.0)) for x in np.arange(1.0, 12.0, 0.6)]
    mapping = LoopDetector(world.networks, CONFIG)
    drive(mapping, world, first)
    info = mapping.save_map(tmp_path / "map")
    assert info.places == len(first) and info.frame_id == "odom"

    today = LoopDetector(world.networks, CONFIG, PlaceMap(tmp_path / "map"), session="today")
    poses = [Pose((x, 0.3, 0.0)) for x in np.arange(1.3, 12.0, 0.6)]
    loops = drive(today, world, poses)
    to_map = [loop for loop in loops if loop.accepted and loop.match.session != "today"]
    assert len(to_map) >= len(poses) - 3
    for loop in to_map:
        true = between(first[int(loop.match.name)], poses[int(loop.query.name)])
        assert loop.geometry.match_t_query is not None
        assert np.linalg.norm(error(loop.geometry.match_t_query, true)[:3]) < 0.05
    assert len(today.session) == len(poses)


def test_only_keyframes_are_added_and_others_are_answered_when_asked() -> None:
    world = Landmarks(seed=6)
    detector = LoopDetector(world.networks, CONFIG)
    poses = [Pose((1.0 + 0.1 * i, 0.0, 0.0)) for i in range(20)]
    answers = [detector.answer(world.frame(pose, i, pose)) for i, pose in enumerate(poses)]
    assert sum(answer is not None for answer in answers) == len(detector.session) == 4
    asked = detector.answer(world.frame(poses[-1], 20, poses[-1]), asked=True)
    assert asked is not None and len(detector.session) == 4


def test_what_was_just_driven_is_no_answer_to_where_the_robot_is() -> None:
    world = Landmarks(seed=6)
    detector = LoopDetector(world.networks, CONFIG)
    poses = there_and_again(8.0)
    drive(detector, world, poses[:12])
    here = Pose((poses[11].position_m[0] + 0.05, 0.0, 0.0))
    answer = detector.answer(world.frame(here, 12, drifted([here])[0]), asked=True)
    assert answer is not None and answer.match.candidates
    for candidate in answer.match.candidates:
        assert here.position_m[0] - poses[int(candidate.place.name)].position_m[0] > 2.9

    again = LoopDetector(world.networks, CONFIG)
    drive(again, world, poses)
    x_m, y_m, _ = poses[-1].position_m
    here = Pose((x_m + 0.05, y_m, 0.0))
    answer = again.answer(world.frame(here, len(poses), drifted([here])[0]), asked=True)
    assert answer is not None and answer.match.state is State.LOCALIZED
    assert answer.match.best is not None and int(answer.match.best.place.name) < 12


def test_a_picture_whose_odometry_is_missing_is_no_keyframe() -> None:
    world = Landmarks(seed=6)
    detector = LoopDetector(world.networks, CONFIG)
    poses = [Pose((1.0 + i, 0.0, 0.0)) for i in range(4)]
    answers = [detector.answer(world.frame(pose, i, None if i == 2 else pose)) for i, pose in enumerate(poses)]
    assert [answer is not None for answer in answers] == [True, True, False, True]


def test_poses_of_two_segments_of_odometry_are_not_compared() -> None:
    world, poses = Landmarks(seed=7), there_and_again(8.0)
    detector, loops = LoopDetector(world.networks, CONFIG), []
    jump = len(poses) - 12
    for number, true in enumerate(poses):
        pose = true if number < jump else Pose((true.position_m[0] + 30, true.position_m[1] - 9, 0.0), true.quat_xyzw)
        loops += detector.add(world.frame(true, number, pose), segment=int(number >= jump)).loops
    accepted = [loop for loop in loops if loop.accepted]
    assert len(accepted) > 5, "within the new segment queries support each other"
    for loop in accepted:
        true = between(poses[int(loop.match.name)], poses[int(loop.query.name)])
        assert loop.geometry.match_t_query is not None
        assert math.dist(loop.geometry.match_t_query.position_m, true.position_m) < 0.05


def test_the_same_drive_gives_the_same_loops() -> None:
    def once() -> list[tuple[object, ...]]:
        world, poses = Landmarks(seed=8), there_and_again(8.0)
        loops = drive(LoopDetector(world.networks, CONFIG), world, poses)
        return [(x.query.place_id, x.match.place_id, x.accepted, x.reason, x.geometry.match_t_query) for x in loops]

    assert once() == once()


def test_restarting_forgets_the_session() -> None:
    world, poses = Landmarks(seed=9), [Pose((x, 0.0, 0.0)) for x in np.arange(1.0, 6.0, 0.6)]
    detector = LoopDetector(world.networks, CONFIG)
    drive(detector, world, poses)
    before = detector.info.map_id
    detector.restart()
    assert len(detector.session) == 0 and detector.pending == 0
    drive(detector, world, poses)
    assert detector.info.places == len(poses) and detector.info.map_id == before


@pytest.mark.parametrize("changed", [{"loop.min_support": 0}, {"geometry.min_inliers": 400}])
def test_live_values_take_effect(changed: dict[str, object]) -> None:
    world, poses = Landmarks(seed=10), there_and_again(8.0)
    detector = LoopDetector(world.networks, CONFIG.replace(**{"loop.min_support": 50}))
    detector.configure(CONFIG.replace(**changed))
    accepted = [loop for loop in drive(detector, world, poses) if loop.accepted]
    assert bool(accepted) == ("loop.min_support" in changed)


def test_without_intrinsics_it_takes_twice_the_matches() -> None:
    world, poses = Landmarks(seed=4), there_and_again(8.0)
    bare = [dataclasses.replace(world.frame(true, number), camera=None) for number, true in enumerate(poses)]
    found = {}
    for least in (20, 200):
        detector = LoopDetector(world.networks, CONFIG.replace(**{"geometry.min_inliers": least}))
        loops = [loop for frame in bare for loop in detector.add(frame).loops] + [*detector.finish()]
        found[least] = [loop for loop in loops if loop.accepted]
        assert all(loop.geometry.inliers >= 2 * least for loop in found[least])
    assert found[20] and len(found[200]) < len(found[20])
