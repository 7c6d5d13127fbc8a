"""Evaluation from folders to files, with the real map and pipeline and foreseeable features."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from etr_ros import rerank
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.datasets import ImageFolder
from etr_ros.errors import DataError, WeightsError
from etr_ros.evaluate import Request, evaluate
from fakes import fake_networks, save_boards

pytestmark = pytest.mark.usefixtures(fake_networks.__name__)

CONFIG = Config().replace(**{"retrieval.top_k": 3})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Houses 0 to 5. Houses 0 and 1 have the same upper half; the query of 1 looks like 0 to the retrieval."""
    save_boards(tmp_path / "database", {f"house{n}.png": (max(n, 1), n, 0 if n == 0 else 40 + n) for n in range(6)})
    save_boards(tmp_path / "query", {f"seen{n}.png": (max(n, 1), n, 0 if n == 1 else 60 + n) for n in (1, 3, 5)})
    (tmp_path / "truth.csv").write_text("query,database\n" + "".join(f"seen{n}.png,house{n}.png\n" for n in (1, 3, 5)))
    return tmp_path


def request(town: Path, **values: object) -> Request:
    return Request(query=town / "query", output=town / "out", database=town / "database", **values)  # type: ignore[arg-type]


def test_re_ranking_mends_what_retrieval_confuses(town: Path) -> None:
    report = evaluate(request(town, ground_truth=town / "truth.csv"), CONFIG)
    assert report.metrics["retrieval"]["recall_at_1"] == pytest.approx(2 / 3)
    assert report.metrics["retrieval"]["recall_at_5"] == 1
    assert report.metrics["reranked"]["recall_at_1"] == 1
    assert report.notes == ()
    predictions = rows(town / "out" / "predictions.csv")
    assert [(row["query"], row["rank"]) for row in predictions] == [
        (f"seen{n}.png", str(rank)) for n in (1, 3, 5) for rank in (1, 2, 3)
    ]
    assert [row["database"] for row in predictions if row["rank"] == "1"] == ["house1.png", "house3.png", "house5.png"]
    assert list(predictions[0]) == [
        "query",
        "rank",
        "database",
        "retrieval_score",
        "etr_score",
        "probability",
        "accepted",
    ]
    written = json.loads((town / "out" / "metrics.json").read_text())
    assert written["places"] == 6
    assert written["config"]["retrieval"]["top_k"] == 3
    assert written["timing"]["query_ms"]["extract"]["p50"] > 0
    assert {"etr_ros", "torch", "faiss"} <= set(written["versions"])
    assert not (town / "out" / "loops.csv").exists()


def test_same_input_same_bytes(town: Path) -> None:
    evaluate(request(town), CONFIG)
    first = (town / "out" / "predictions.csv").read_bytes()
    evaluate(request(town), CONFIG)
    assert (town / "out" / "predictions.csv").read_bytes() == first


def test_without_re_ranker(town: Path) -> None:
    config = CONFIG.replace(**{"rerank.name": "none"})
    report = evaluate(request(town, ground_truth=town / "truth.csv"), config)
    assert not {"reranked", "accepted_pairs"} & set(report.metrics)
    assert list(rows(town / "out" / "predictions.csv")[0]) == ["query", "rank", "database", "retrieval_score"]


def test_unreadable_queries_are_misses_and_are_named(town: Path) -> None:
    (town / "query" / "seen3.png").write_bytes(b"bad")
    report = evaluate(request(town, ground_truth=town / "truth.csv"), CONFIG)
    assert report.metrics["queries"] == 3
    assert report.metrics["reranked"]["recall_at_1"] == pytest.approx(2 / 3)
    assert len(report.notes) == 1
    assert "seen3.png" in report.notes[0]


def test_pictures_without_features_are_misses_and_are_named(town: Path) -> None:
    for path in (town / "query" / "seen3.png", town / "database" / "house0.png"):
        save_boards(path.parent, {path.name: (0, 0)})
        path.write_bytes(_one_colour())
    report = evaluate(request(town, ground_truth=town / "truth.csv"), CONFIG)
    assert report.metrics["places"] == 5
    assert report.metrics["reranked"]["recall_at_1"] == pytest.approx(2 / 3)
    assert [("house0.png" in note, "seen3.png" in note) for note in report.notes] == [(True, False), (False, True)]


def _one_colour() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".png", np.full((64, 64, 3), 9, np.uint8))[1])


def test_radius(town: Path) -> None:
    for side, name in (("database", "house"), ("query", "seen")):
        lines = [f"{name}{n}.png,{10 * n},0" for n in range(6)]
        (town / f"{side}.csv").write_text("\n".join(["file,x_m,y_m", *lines]))
    report = evaluate(
        request(town, poses_database=town / "database.csv", poses_query=town / "query.csv", radius_m=5.0), CONFIG
    )
    assert report.metrics["ground_truth"] == "poses at most 5 m apart"
    assert report.metrics["retrieval"]["recall_at_1"] == pytest.approx(2 / 3)
    assert report.metrics["reranked"]["recall_at_1"] == 1


def test_frame_tolerance_of_aligned_folders(town: Path) -> None:
    for number in (0, 2, 4):
        save_boards(town / "query", {f"seen{number}.png": (max(number, 1), number, 80 + number)})
    report = evaluate(request(town, frame_tolerance=0), CONFIG)
    assert report.metrics["reranked"]["recall_at_1"] == 1
    assert report.metrics["queries_with_positive"] == 6


def test_database_may_be_a_map(town: Path) -> None:
    build_map(ImageFolder(town / "database"), town / "map", CONFIG)
    request_on_map = Request(town / "query", town / "out", town / "map", ground_truth=town / "truth.csv")
    report = evaluate(request_on_map, CONFIG)
    assert report.metrics["reranked"]["recall_at_1"] == 1
    assert not (town / "out" / "map").exists()
    with pytest.raises(DataError, match="is a map: give another folder"):
        evaluate(Request(town / "query", town / "map", town / "map"), CONFIG)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """Two rounds past five houses; the third picture is damaged, so that place ids and frame numbers differ."""
    boards = {f"frame{n}.png": (n % 5, n % 5, 10 + n) for n in range(10)}
    folder = save_boards(tmp_path / "drive", boards)
    (folder / "frame2.png").write_bytes(b"bad")
    return folder


def test_sequence_against_its_past(loop: Path, tmp_path: Path) -> None:
    report = evaluate(Request(loop, tmp_path / "out", exclude_frames=3), CONFIG)
    number = {f"frame{n}.png": n for n in range(10)}
    predictions = rows(tmp_path / "out" / "predictions.csv")
    assert predictions
    assert all(number[row["query"]] - number[row["database"]] > 3 for row in predictions)
    assert {row["query"] for row in predictions} == {f"frame{n}.png" for n in range(4, 10)}
    pairs = [(row["frame_a"], row["frame_b"]) for row in rows(tmp_path / "out" / "loops.csv")]
    assert pairs == [(f"frame{n + 5}.png", f"frame{n}.png") for n in (0, 1, 3, 4)]
    assert len(report.notes) == 1
    assert "1 of 10 pictures were skipped: frame2.png" in report.notes[0]


def test_sequence_ground_truth_counts_the_past_only(loop: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("query,database\nframe5.png,frame0.png\nframe1.png,frame6.png\nframe8.png,frame7.png\n")
    report = evaluate(Request(loop, tmp_path / "out", exclude_frames=3, ground_truth=truth), CONFIG)
    assert report.metrics["queries_with_positive"] == 2  # of 5 and, turned round, of 6; 7 is too close to 8
    assert report.metrics["reranked"]["recall_at_1"] == 1
    assert report.metrics["accepted_pairs_wrong"] == 2


def test_sequence_by_radius(loop: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.csv"
    poses.write_text("file,x_m,y_m\n" + "".join(f"frame{n}.png,{n % 5},0\n" for n in range(10)))
    report = evaluate(Request(loop, tmp_path / "out", exclude_frames=3, poses_query=poses, radius_m=0.5), CONFIG)
    assert report.metrics["queries_with_positive"] == 4
    assert report.metrics["reranked"]["recall_at_full_precision"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ground_truth": "truth.csv", "frame_tolerance": 1}, "one ground truth only"),
        ({"radius_m": float("nan")}, "must be 0 or more"),
        ({"frame_tolerance": -1}, "must be 0 or more"),
        ({"radius_m": 1.0}, "needs poses of the database"),
        ({"ground_truth": "none.csv"}, "cannot read the ground truth"),
    ],
)
def test_contradicting_requests_write_nothing(town: Path, values: dict[str, object], message: str) -> None:
    values = {name: town / value if isinstance(value, str) else value for name, value in values.items()}
    with pytest.raises(DataError, match=message):
        evaluate(request(town, **values), CONFIG)
    assert not (town / "out" / "predictions.csv").exists()
    assert not (town / "out" / "metrics.json").exists()


def test_sequence_requests_that_leave_nothing(loop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="excluding 9 frames leaves nothing of 10"):
        evaluate(Request(loop, tmp_path / "out", exclude_frames=9), CONFIG)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="give a larger tolerance"):
        evaluate(Request(loop, tmp_path / "out", exclude_frames=3, frame_tolerance=3), CONFIG)
    with pytest.raises(DataError, match="poses of the database"):
        evaluate(Request(loop, tmp_path / "out", poses_database=tmp_path / "x.csv"), CONFIG)


def test_a_wrong_re_ranker_is_told_before_the_map_is_built(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise WeightsError("holds no ETR")

    monkeypatch.setattr(rerank, "load", refuse)
    with pytest.raises(WeightsError, match="holds no ETR"):
        evaluate(request(town), CONFIG)
    assert not (town / "out").exists()
