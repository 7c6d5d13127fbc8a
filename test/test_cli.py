"""The command line: help without heavy imports, options, errors in one line, and the verbs on small input."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bag_maker import drive
from etr_ros import __version__
from etr_ros.cli import info as info_verb
from etr_ros.cli.evaluate import summary
from etr_ros.cli.main import main
from etr_ros.cli.options import SHORT_FORMS, add_config_options, config_from
from etr_ros.cli.progress import size_text
from etr_ros.config import Config
from etr_ros.errors import ConfigError, MapError
from etr_ros.options import options
from fakes import fake_networks, save_boards

VERBS = ("build-map", "info", "evaluate", "replay", "report", "diff", "weights", "train", "export")
HEAVY = ("torch", "cv2", "faiss", "numpy", "rosbags", "rclpy", "tqdm")
with_fake_networks = pytest.mark.usefixtures(fake_networks.__name__)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_is_instant_because_nothing_heavy_is_imported(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom etr_ros.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_lists_every_configuration_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {option.name}: " in text for option in options(Config()))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"etr_ros {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info"], ["info", "--jso", "map"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def parsed(*arguments: str) -> Config:
    parser = argparse.ArgumentParser()
    add_config_options(parser, tuple(SHORT_FORMS))
    return config_from(parser.parse_args(arguments))


def test_options_make_a_configuration(tmp_path: Path) -> None:
    assert parsed() == Config()
    file = tmp_path / "etr.yaml"
    file.write_text("retrieval: {top_k: 3}\nkeyframe: {distance_m: 2}\n")
    config = parsed(
        "--config", str(file), "--set", "keyframe.distance_m=1.5", "--extractor", "superpoint", "--reranker", "none"
    )
    assert (config.retrieval.top_k, config.keyframe.distance_m) == (3, 1.5)
    assert (config.extractor.name, config.rerank.name) == ("superpoint", "none")


def test_the_last_of_two_values_wins() -> None:
    assert parsed("--top-k", "5", "--set", "retrieval.top_k=6").retrieval.top_k == 6
    assert parsed("--set", "retrieval.top_k=6", "--top-k", "5").retrieval.top_k == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "retrieval.top_k"], "NAME=VALUE"),
        (["--set", "top_k=5"], "unknown configuration value 'top_k'; known are: compute.device"),
        (["--set", "retrieval.top_k=many"], "whole number"),
        (["--top-k", "0"], "between 1 and 1000"),
        (["--top-k", "["], "retrieval.top_k must be a whole number"),
        (["--extractor", "sift"], "one of xfeat"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_values_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(*arguments)


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(info_verb, "run", run)
    return main(["info", "map"])


def test_expected_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing_with(MapError("do this"), monkeypatch) == 1
    assert capsys.readouterr() == ("", "etr: do this\n")


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "etr: interrupted\n")


@with_fake_networks
def test_closed_output_is_quiet(tmp_path: Path) -> None:
    pictures = save_boards(tmp_path / "pictures", {"a.png": (1, 1)})
    assert main(["build-map", "--images", str(pictures), "--output", str(tmp_path / "map")]) == 0
    command = [sys.executable, "-m", "etr_ros.cli.main", "info", str(tmp_path / "map")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@with_fake_networks
def test_map_of_a_folder_and_its_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = save_boards(tmp_path / "walk", {f"{n}.png": (n, n) for n in range(4)})
    (pictures / "3.png").write_bytes(b"bad")
    poses = tmp_path / "poses.csv"
    poses.write_text("file,x_m,y_m\n0.png,0,0\n1.png,0.1,0\n2.png,5,0\n")
    target = tmp_path / "map"
    arguments = [
        "build-map",
        "--images",
        str(pictures),
        "--poses",
        str(poses),
        "--output",
        str(target),
        "--session",
        "monday",
    ]
    assert main(arguments) == 0
    skipped, result = capsys.readouterr().out.splitlines()
    assert skipped.startswith("1 of 4 pictures were skipped: 3.png: ")
    assert f"{target}: 2 places of 3 pictures, with poses in frame map" in result

    assert main(["info", str(target)]) == 0
    table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (table["places"], table["sessions"], table["poses"]) == ("2", "monday", "in frame map")
    assert table["keyframe.distance_m"] == "0.5"
    assert main(["info", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["places"] == 2


@with_fake_networks
def test_map_of_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = drive(tmp_path / "survey", "mcap", pictures=11)  # 1 m in steps of 0.1 m
    arguments = [
        "--bag",
        str(bag),
        "--image-topic",
        "/camera",
        "--pose-topic",
        "/odom",
        "--output",
        str(tmp_path / "map"),
    ]
    assert main(["build-map", *arguments, "--set", "keyframe.distance_m=0.25"]) == 0
    assert "4 places of 11 pictures, with poses in frame odom" in capsys.readouterr().out
    assert main(["build-map", *arguments, "--map-frame", "map"]) == 0
    assert "with poses in frame map" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--images", ".", "--pose-topic", "/odom"], "--pose-topic: for --bag, not for --images"),
        (["--images", ".", "--rectified", "--depth-topic", "/d"], "--rectified, --depth-topic: for --bag"),
        (["--bag", ".", "--poses", "p.csv"], "a bag has a --pose-topic"),
        (["--images", ".", "--map-frame", "map"], "--map-frame names the frame of poses"),
        (["--bag", "nowhere", "--image-topic", "/camera"], "there is no bag at nowhere"),
        (["--bag", "nowhere", "--poses", "x.csv"], "--poses goes with --images"),
    ],
)
def test_build_map_errors(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build-map", *arguments, "--output", str(tmp_path / "map")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "map").exists()


def test_bag_without_topic_names_the_topics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = drive(tmp_path / "survey", "sqlite3", pictures=2)
    assert main(["build-map", "--bag", str(bag), "--output", str(tmp_path / "map")]) == 1
    assert "say with --image-topic TOPIC" in (error := capsys.readouterr().err)
    assert "/camera (sensor_msgs/msg/Image)" in error


@with_fake_networks
def test_evaluate_prints_recall_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_boards(tmp_path / "database", {"a.png": (1, 1), "b.png": (1, 2), "c.png": (3, 3)})
    save_boards(tmp_path / "query", {"a.png": (1, 1, 5), "b.png": (1, 2, 6)})
    folders = ["--database", str(tmp_path / "database"), "--query", str(tmp_path / "query")]
    arguments = [*folders, "--output", str(tmp_path / "out"), "--frame-tolerance", "0", "--top-k", "2"]
    assert main(["evaluate", *arguments]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Recall@1", "Recall@5", "Recall@10", "Recall@20"] in lines
    assert ["reranked", *4 * ["100.0", "%"]] in lines
    assert any(line[:1] == ["retrieval"] for line in lines)


@with_fake_networks
def test_evaluate_a_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive_folder = save_boards(tmp_path / "drive", {f"{n}.png": (n % 3, n % 3, 10 + n) for n in range(6)})
    arguments = ["--sequence", str(drive_folder), "--exclude-frames", "1", "--output", str(tmp_path / "out")]
    assert main(["evaluate", *arguments]) == 0
    assert "accepted pairs: 3" in capsys.readouterr().out
    assert (tmp_path / "out" / "loops.csv").read_text().splitlines()[1].startswith("3.png,0.png,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequence", "a", "--query", "b", "--exclude-frames", "1"], "give either"),
        (["--sequence", "a"], "--sequence needs --exclude-frames"),
        (["--database", "a"], "give --database and --query"),
    ],
)
def test_evaluate_needs_one_kind_of_input(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments, "--output", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_summary_without_ground_truth_has_no_table() -> None:
    lines = list(summary({"queries": 2, "places": 3, "timing": {"query_ms": {}}}))
    assert lines == ["2 queries, 3 places"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_340_000_000_000_000, "2340.0 TB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
