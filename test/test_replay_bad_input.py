"""Bad input to replay, diff and calibrate: one line that says what to do, and exit code 1."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bag_maker import write_bag
from etr_ros import rerank, result_files
from etr_ros.cli.main import main
from etr_ros.config import Config
from etr_ros.loops import LoopDetector
from etr_ros.result import Result
from etr_ros.types import Frame
from landmark_bag import LAPS, T0, WORLD, S, camera_info, image
from landmarks import BODY_T_CAMERA, CAMERA, SHORT_LAPS
from result_maker import made_result

pytestmark = pytest.mark.usefixtures("landmark_networks")

x, y, z = BODY_T_CAMERA.position_m
QUICK = [word for name, value in SHORT_LAPS.items() for word in ("--set", f"{name}={value}")]
RIG = ["--camera-info-topic", "/info", f"--camera-mount={x} {y} {z} 0 0 0"]
TOPICS = ["--image-topic", "/camera", "--pose-topic", "/odom", *RIG, *QUICK]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What stderr says: one line."""
    assert main([*map(str, arguments)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("etr: ")
    return lines[0]


def test_two_cameras_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [(topic, T0, image(T0, LAPS[0])) for topic in ("/left", "/right")]
    two = write_bag(tmp_path / "two", "mcap", messages)
    said = refused(capsys, "replay", two, "--output", tmp_path / "r")
    assert "--image-topic TOPIC" in said and "/left (sensor_msgs/msg/CompressedImage), /right (" in said
    assert "has no topic /front" in refused(
        capsys, "replay", two, "--output", tmp_path / "r", "--image-topic", "/front"
    )


def test_a_bag_that_is_none_or_has_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no bag" in refused(capsys, "replay", tmp_path / "none", "--output", tmp_path / "r")
    dark = write_bag(tmp_path / "dark", "mcap", [("/info", T0, camera_info(T0))])
    assert "no image topic" in refused(capsys, "replay", dark, "--output", tmp_path / "r")


def test_ground_truth_of_other_pictures(laps_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("query,database\nmona_lisa.jpg,louvre.jpg\n")
    command = ["replay", laps_bag, "--output", tmp_path / "r", *TOPICS, "--ground-truth", truth]
    assert main([*map(str, command)]) == 1
    said = capsys.readouterr().out
    assert "nothing was measured: the ground truth names no pair" in said and "mona_lisa.jpg" in said
    assert len(result_files.read(tmp_path / "r").queries) == len(LAPS)  # the answers are not lost
    name = f"{(T0 + 20 * S) // S}.000000000"
    truth.write_text(f"query,database\n{name},{T0 // S}.000000000\n{name},louvre.jpg\n")
    assert main([*map(str, [*command[:4], *TOPICS, "--ground-truth", truth])]) == 0
    assert "names 1 pictures that are not there, such as louvre.jpg" in capsys.readouterr().out


def test_a_map_of_another_camera_is_told(laps_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = LoopDetector(WORLD.networks, Config().replace(**{"loop.enabled": True}))
    wide = dataclasses.replace(CAMERA, fx=CAMERA.fx / 2, fy=CAMERA.fy / 2)
    for number, pose in enumerate(LAPS[:4]):
        frame: Frame = WORLD.frame(pose, number, pose)
        detector.answer(dataclasses.replace(frame, camera=wide))
    detector.save_map(tmp_path / "map")
    command = ["replay", laps_bag, "--output", tmp_path / "r", "--map", tmp_path / "map", *TOPICS]
    assert main([*map(str, command)]) == 0
    assert "the map was made with another camera: its focal length is 0.31 picture widths" in capsys.readouterr().out


def test_one_ground_truth_only(laps_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--truth-topic", "/truth", "--frame-tolerance", "3"]
    for verb in ("replay", "calibrate"):
        assert "one ground truth only" in refused(capsys, verb, laps_bag, "--output", tmp_path / "r", *TOPICS, *both)
    assert "0 or more" in refused(capsys, "replay", laps_bag, "--output", tmp_path / "r", "--frame-tolerance", "-1")


# Calibrating


def written(path: Path, result: Result) -> Path:
    manifest = dict(result.manifest) | {"reranker": rerank.identity("etr-s", "xfeat")}
    result_files.write(path, dataclasses.replace(result, manifest=manifest))
    return path


def of_one_kind(is_right: bool) -> Result:
    """60 pictures, each found at the place where it was taken, or far away."""
    made = made_result()
    pattern = made.queries[3]
    assert pattern.match is not None and pattern.truth is not None
    queries = []
    for number in range(60):
        first = number < 2
        match = dataclasses.replace(pattern.match, candidates=pattern.match.candidates[: 0 if first else 1])
        away = 0.0 if is_right or first else 100.0 * (number + 1)
        truth = dataclasses.replace(pattern.truth, position_m=(away, 0.0, 0.0))
        stamp = pattern.stamp_ns + number * 100 * S
        queries.append(
            dataclasses.replace(pattern, name=str(number), stamp_ns=stamp, picture_id=number, truth=truth, match=match)
        )
    manifest = dict(made.manifest) | {"config": {"loop": {"exclusion_m": 0.0}}}
    return Result(manifest, tuple(queries))


def test_all_right_or_all_wrong_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for is_right, needed in ((True, "places that are not in the map"), (False, "places seen before")):
        result = written(tmp_path / str(is_right), of_one_kind(is_right))
        said = refused(capsys, "calibrate", result, "--output", tmp_path / "c.json")
        assert needed in said and ("58 right and 0 wrong" if is_right else "0 right and 58 wrong") in said
    assert not (tmp_path / "c.json").exists()


def test_too_few_and_none_at_all_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = written(tmp_path / "few", made_result())
    assert "right and" in refused(capsys, "calibrate", few, "--output", tmp_path / "c.json")
    empty = written(tmp_path / "empty", dataclasses.replace(made_result(), queries=(), loops=()))
    assert "no picture whose true pose is known" in refused(capsys, "calibrate", empty, "--output", tmp_path / "c.json")
    assert main(["diff", str(empty), str(empty)]) == 0


def test_a_result_without_truth_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_result()
    blind = tuple(dataclasses.replace(query, truth=None) for query in made.queries)
    result = written(tmp_path / "r", dataclasses.replace(made, queries=blind))
    assert "--truth-topic" in refused(capsys, "calibrate", result, "--output", tmp_path / "c.json")


def test_a_folder_is_no_calibration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder" in refused(capsys, "calibrate", tmp_path / "r", "--output", tmp_path)


def test_a_bag_is_calibrated_in_one_command(laps_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too short to be fitted; the result stays, so that the next try takes no time."""
    command = ["calibrate", laps_bag, "--output", tmp_path / "c.json", *TOPICS, "--truth-topic", "/truth"]
    assert "needs 50 of each" in refused(capsys, *command)
    kept = result_files.read(tmp_path / "c.json.results" / "laps")
    assert sum(query.match is not None for query in kept.queries) == len(LAPS)
    assert np.isfinite([query.truth.position_m for query in kept.queries if query.truth]).all()
