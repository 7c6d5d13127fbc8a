"""Replays: every picture is answered as the node would, the same every time, also when it was interrupted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from etr_ros import result_files
from etr_ros.bag_replay import Request, replay_bag
from etr_ros.config import Config
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError
from etr_ros.loops import LoopDetector
from etr_ros.measure import Protocol
from etr_ros.pipeline import Networks
from etr_ros.replay import replay
from etr_ros.result import Outcome
from etr_ros.result_diff import compare
from etr_ros.types import Frame, Pose
from landmark_bag import LAPS, SENSORS, WORLD
from landmarks import SHORT_LAPS, Landmarks

pytestmark = pytest.mark.usefixtures("landmark_networks")

S = 1_000_000_000
CONFIG = Config().replace(**SHORT_LAPS | {"loop.enabled": True})


def frames(world: Landmarks, poses: Iterable[Pose] = LAPS, step_s: float = 1.0) -> Iterator[Frame]:
    for number, pose in enumerate(poses):
        yield world.frame(pose, number, dataclasses.replace(pose, frame_id="odom"), rate_hz=1 / step_s)


def test_every_picture_is_answered_and_judged_by_its_truth() -> None:
    world = Landmarks(seed=1)
    truth = {frame.stamp_ns: pose for frame, pose in zip(frames(world), LAPS, strict=True)}
    heard: list[str] = []
    out = replay(
        frames(world), LoopDetector(world.networks, CONFIG), truth_at=truth.get, answered=lambda f: heard.append(f.name)
    )
    assert [query.outcome for query in out.queries] == [Outcome.ANSWERED] * len(LAPS)
    assert [query.picture_id for query in out.queries] == list(range(len(LAPS)))
    assert [query.truth for query in out.queries] == LAPS and heard == [query.name for query in out.queries]
    accepted = [loop for loop in out.loops if loop.accepted]
    assert len(accepted) >= 9
    assert all(out.queries[loop.query.place_id].stamp_ns == loop.query.stamp_ns for loop in out.loops)


def test_what_is_no_keyframe_and_what_shows_nothing_says_so() -> None:
    world = Landmarks(seed=1)
    poses = [Pose((1.0, 0.0, 0.0)), Pose((1.05, 0.0, 0.0)), Pose((2.0, 0.0, 0.0))]
    shown = list(frames(world, poses, step_s=0.1))
    wrong_depth = dataclasses.replace(shown[2], depth_m=np.ones((3, 3), np.float32))
    out = replay([*shown[:2], wrong_depth], LoopDetector(world.networks, CONFIG))
    assert [query.outcome for query in out.queries] == [Outcome.ANSWERED, Outcome.SKIPPED, Outcome.UNUSABLE]
    assert "depth" in out.queries[2].reason and "keyframe" in out.queries[1].reason
    assert [query.picture_id for query in out.queries] == [0, None, None]


def test_a_busy_node_drops_what_came_before_the_newest() -> None:
    """Answers take 2.5 s, pictures come each second: while one is worked on, the newest waits."""
    world = Landmarks(seed=1)
    shown = list(frames(world))
    out = replay(shown, LoopDetector(world.networks, CONFIG), compute_ms=2500)
    answered = [row for row, query in enumerate(out.queries) if query.outcome is Outcome.ANSWERED]
    assert answered[:5] == [0, 2, 4, 7, 9]
    assert all(query.outcome is not Outcome.DROPPED for query in replay(
        shown, LoopDetector(world.networks, CONFIG), compute_ms=900).queries)  # fmt: skip


def test_where_time_goes_back_the_replay_ends_and_a_jump_ahead_is_told() -> None:
    world = Landmarks(seed=1)
    shown = list(frames(world))
    ahead = [dataclasses.replace(each, stamp_ns=each.stamp_ns + 100 * S) for each in shown[5:]]
    back = dataclasses.replace(shown[9], stamp_ns=shown[0].stamp_ns)
    out = replay([*shown[:5], *ahead[:3], back, *ahead[3:]], LoopDetector(world.networks, CONFIG))
    assert len(out.queries) == 8
    assert ["ahead" in note or "went back by 1" in note for note in out.notes] == [True, True]


def test_a_second_picture_of_one_stamp_is_left_out() -> None:
    world = Landmarks(seed=1)
    shown = list(frames(world))
    out = replay([shown[0], shown[0], shown[1]], LoopDetector(world.networks, CONFIG))
    assert len(out.queries) == 2 and "second picture" in out.notes[0]


# Whole bags


def request(bag: Path, output: Path, **changes: object) -> Request:
    values: dict[str, object] = {"pose_topic": "/odom", "truth_topic": "/truth", "sensors": SENSORS} | changes
    return Request(bag, output, "/camera", **values)  # type: ignore[arg-type]


def untracked(source: FrameSource, _: str) -> Iterable[Frame]:
    return source


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "timing.csv")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_bag_becomes_a_result(laps_bag: Path, tmp_path: Path) -> None:
    result, live = replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, untracked)
    assert live is None and not (tmp_path / "r" / "work").exists()
    read = result_files.read(tmp_path / "r")
    assert read.manifest == result.manifest and len(read.queries) == len(LAPS)
    pictures = result_files.open_pictures(tmp_path / "r")
    assert pictures is not None and len(pictures.places) == len(LAPS)
    assert sum(loop.accepted for loop in read.loops) >= 9
    loops = json.loads((tmp_path / "r" / "metrics.json").read_text())["loops"]
    assert loops["false_loops"] == [] and loops["recall"] > 0.8
    assert (tmp_path / "r" / "odometry.tum").read_text().count("\n") == len(LAPS)
    edges = [line.split()[1:3] for line in (tmp_path / "r" / "loops.g2o").read_text().splitlines() if "EDGE" in line]
    rows = [row for row in range(len(LAPS) - 1) if row not in (11, 15)]  # there the drive jumps by 50 m
    assert edges[: len(rows)] == [[str(row), str(row + 1)] for row in rows]
    assert len(edges) >= len(rows) + 9


def test_where_the_camera_sits_is_part_of_what_a_result_was_made_of(laps_bag: Path, tmp_path: Path) -> None:
    moved = dataclasses.replace(SENSORS, camera_mount="0.3 0 0.5 0 0 0")
    one, other = (
        replay_bag(request(laps_bag, tmp_path / name, sensors=sensors), CONFIG, untracked)[0].manifest["bag"]
        for name, sensors in (("one", SENSORS), ("other", moved))
    )
    assert one != other


def test_replays_are_the_same_bytes(laps_bag: Path, tmp_path: Path) -> None:
    hashes = set()
    for number in range(3):
        result, _ = replay_bag(request(laps_bag, tmp_path / str(number)), CONFIG, untracked)
        hashes.add(result.manifest["hash"])
    assert len(hashes) == 1
    assert bytes_of(tmp_path / "0") == bytes_of(tmp_path / "2")
    other, _ = replay_bag(request(laps_bag, tmp_path / "x"), CONFIG.replace(**{"loop.min_support": 5}), untracked)
    assert other.manifest["hash"] not in hashes


@pytest.mark.parametrize("after", [1, 9, 20])
def test_an_interrupted_replay_goes_on_and_gives_the_same(laps_bag: Path, tmp_path: Path, after: int) -> None:
    def broken(source: FrameSource, _: str) -> Iterator[Frame]:
        for number, frame in enumerate(source):
            if number == after:
                raise KeyboardInterrupt
            yield frame

    with pytest.raises(KeyboardInterrupt):
        replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, broken)
    with pytest.raises(DataError, match=r"no result|it has no result\.json"):
        result_files.read(tmp_path / "r")
    matches = tmp_path / "r" / "work" / "all" / "matches.jsonl"
    with matches.open("a") as file:
        file.write('["cut')
    replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, untracked)
    replay_bag(request(laps_bag, tmp_path / "whole"), CONFIG, untracked)
    assert bytes_of(tmp_path / "r") == bytes_of(tmp_path / "whole")


def test_going_on_asks_the_networks_for_nothing_again(
    laps_bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: FrameSource, _: str) -> Iterator[Frame]:
        yield from source
        yield WORLD.frame(Pose((1.0, 0.0, 0.0)), len(LAPS))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, broken)

    def used(*_: object) -> None:
        raise AssertionError("the networks were asked again")

    monkeypatch.setattr(Landmarks, "__call__", used)
    networks = Networks(WORLD, used)  # type: ignore[arg-type]
    monkeypatch.setattr(Networks, "load", lambda config: networks)
    result, _ = replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, untracked)
    assert result.manifest["counts"]["loops_accepted"] >= 9


def test_work_left_by_another_configuration_is_not_used(laps_bag: Path, tmp_path: Path) -> None:
    def broken(source: FrameSource, _: str) -> Iterator[Frame]:
        yield from source
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_bag(request(laps_bag, tmp_path / "r"), CONFIG.replace(**{"geometry.candidates": 1}), broken)
    replay_bag(request(laps_bag, tmp_path / "r"), CONFIG, untracked)
    replay_bag(request(laps_bag, tmp_path / "whole"), CONFIG, untracked)
    assert bytes_of(tmp_path / "r") == bytes_of(tmp_path / "whole")


def test_a_live_node_is_simulated_besides(laps_bag: Path, tmp_path: Path) -> None:
    result, live = replay_bag(request(laps_bag, tmp_path / "r", compute_ms=1500.0), CONFIG, untracked)
    assert live is not None and live.manifest["counts"]["outcomes"]["dropped"] > 5
    assert result.manifest["counts"]["outcomes"]["dropped"] == 0
    found = compare(result_files.read(tmp_path / "r"), result_files.read(tmp_path / "r" / "live"))
    assert found.lost and any("loops:" in line for line in found.lines())


def test_localizing_in_a_map_that_was_made_of_a_bag(laps_bag: Path, tmp_path: Path) -> None:
    detector = LoopDetector(WORLD.networks, CONFIG)
    for frame in frames(WORLD, LAPS[:12]):
        detector.answer(frame)
    detector.save_map(tmp_path / "map")
    config = CONFIG.replace(**{"loop.enabled": False})
    wanted = request(laps_bag, tmp_path / "r", map_path=tmp_path / "map", protocol=Protocol(correct_m=1.0))
    result, _ = replay_bag(wanted, config, untracked)
    assert result.manifest["mode"] == "localization" and result.manifest["map"]["places"] == 12
    places = json.loads((tmp_path / "r" / "metrics.json").read_text())["places"]
    assert places["reranked"]["recall_at_1"] == 1.0
    assert places["states"]["unknown_precision"] == 1.0


def test_a_bag_without_poses_is_replayed_and_says_what_that_means(laps_bag: Path, tmp_path: Path) -> None:
    result, _ = replay_bag(request(laps_bag, tmp_path / "r", pose_topic=None, truth_topic=None), CONFIG, untracked)
    assert any("no odometry" in note for note in result.notes)
    assert not (tmp_path / "r" / "metrics.json").exists() and not (tmp_path / "r" / "odometry.tum").exists()


def test_a_folder_with_other_things_is_left_alone(laps_bag: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds other files \(thesis\.tex\)"):
        replay_bag(request(laps_bag, tmp_path), CONFIG, untracked)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
