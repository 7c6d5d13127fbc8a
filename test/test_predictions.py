"""Measures and files of a set of answers, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import make_place
from etr_ros.errors import DataError
from etr_ros.ground_truth import GroundTruth
from etr_ros.predictions import Answer, measure, stage_times, write_results
from etr_ros.types import Candidate


def candidate(place_id: int, cosine: float, probability: float | None = None, accepted: bool = False) -> Candidate:
    score = None if probability is None else 10 * probability - 5
    return Candidate(make_place(place_id), cosine, score, probability, accepted=accepted)


ANSWERS = [
    Answer("a", (candidate(1, 0.5, 0.9, True), candidate(0, 0.8, 0.6, True)), {"extract": 10.0, "rerank": 4.0}),
    Answer("b", (candidate(2, 0.9, 0.7, True), candidate(1, 0.7, 0.2)), {"extract": 30.0}),
    Answer("c", (candidate(0, 0.6, 0.1),)),
    Answer("d"),  # a picture of no use
    Answer("e", (candidate(0, 0.99, 0.95, True),)),  # nobody knows where it is
]
TRUTH = GroundTruth({"a": frozenset({1}), "b": frozenset({1}), "c": frozenset(), "d": frozenset({2})}, "listed pairs")


def test_measures() -> None:
    result = measure(ANSWERS, TRUTH)
    assert (result["queries"], result["queries_of_unknown_truth"]) == (5, 1)
    assert (result["queries_with_positive"], result["queries_without_positive"]) == (3, 1)
    assert (result["accepted_pairs"], result["accepted_pairs_wrong"]) == (4, 2)
    assert result["retrieval"]["recall_at_1"] == 0
    assert result["retrieval"]["recall_at_5"] == pytest.approx(2 / 3)
    # after re-ranking, by falling probability of the first: a right, b wrong, c wrong; d never answered
    assert result["reranked"]["recall_at_1"] == pytest.approx(1 / 3)
    assert result["reranked"]["recall_at_full_precision"] == pytest.approx(1 / 3)
    assert result["reranked"]["average_precision"] == pytest.approx(1 / 3)


def test_without_ground_truth_only_counts() -> None:
    assert measure(ANSWERS, None) == {"queries": 5, "accepted_pairs": 4}


def test_files(tmp_path: Path) -> None:
    write_results(tmp_path / "new" / "out", ANSWERS, {"queries": 5}, with_loops=True)
    output = tmp_path / "new" / "out"
    assert (output / "predictions.csv").read_text().splitlines()[:4] == [
        "query,rank,database,retrieval_score,etr_score,probability,accepted",
        "a,1,0001.jpg,0.500000,4.000000,0.900000,true",
        "a,2,0000.jpg,0.800000,1.000000,0.600000,true",
        "b,1,0002.jpg,0.900000,2.000000,0.700000,true",
    ]
    assert (output / "loops.csv").read_text().splitlines() == [
        "frame_a,frame_b,probability",
        "a,0001.jpg,0.900000",
        "a,0000.jpg,0.600000",
        "b,0002.jpg,0.700000",
        "e,0000.jpg,0.950000",
    ]
    assert json.loads((output / "metrics.json").read_text()) == {"queries": 5}
    assert sorted(file.name for file in output.iterdir()) == ["loops.csv", "metrics.json", "predictions.csv"]


def test_columns_that_are_not_computed_are_left_out(tmp_path: Path) -> None:
    write_results(tmp_path, [Answer("a", (candidate(1, 0.5),))], {}, with_loops=False)
    assert (tmp_path / "predictions.csv").read_text() == "query,rank,database,retrieval_score\na,1,0001.jpg,0.500000\n"
    verified = Candidate(make_place(1), 0.5, inliers=17)
    write_results(tmp_path, [Answer("a", (verified, candidate(2, 0.4)))], {}, with_loops=False)
    assert (tmp_path / "predictions.csv").read_text().splitlines() == [
        "query,rank,database,retrieval_score,inliers",
        "a,1,0001.jpg,0.500000,17",
        "a,2,0002.jpg,0.400000,",
    ]
    assert not (tmp_path / "loops.csv").exists()


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the results"):
        write_results(tmp_path / "file", ANSWERS, {}, with_loops=False)


def test_stage_times() -> None:
    times = stage_times(ANSWERS)
    assert list(times) == ["extract", "rerank"]
    assert times["extract"]["p50"] == 20.0
    assert times["rerank"]["p99"] == 4.0
