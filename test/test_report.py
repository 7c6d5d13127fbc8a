"""The report of a result: what it says is what the result says, whatever the result holds."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etr_ros import result_files
from etr_ros.cli.main import main
from etr_ros.ground_truth import GroundTruth
from etr_ros.loop_metrics import true_revisits
from etr_ros.measure import Protocol
from etr_ros.report import figures
from etr_ros.report.entries import entries_of, general
from etr_ros.report.page import read_metrics, write_report
from etr_ros.report.pictures import encode, lines
from etr_ros.report.verdicts import Truth, Verdict, judge_answer, judge_loops, read_truth
from etr_ros.result import Result
from etr_ros.types import LoopClosure, Pose
from landmarks import Landmarks
from report_maker import CONFIG, laps, loop_result, place_result
from result_maker import SURE, made_result, place, stamp

EVIL = "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>"


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loops") / "result"
    loop_result(folder, laps(45))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    place_result(folder / "result", folder / "map", laps(45))
    return folder / "result"


def written(result: Path, output: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """The page, and the data in it."""
    write_report(result, output, **options)
    page = output.read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(text)


def count(data: dict[str, Any], verdict: str) -> int:
    return sum(entry["verdict"] == verdict for entry in data["entries"])


def test_loops_are_judged_as_the_replay_judged_them(loops: Path, tmp_path: Path) -> None:
    _, data = written(loops, tmp_path / "r.html")
    measured = json.loads((loops / "metrics.json").read_text())["loops"]
    assert count(data, "right") + count(data, "wrong") == measured["accepted"] > 5
    assert count(data, "wrong") == len(measured["false_loops"])
    assert count(data, "missed") == measured["revisits"] - round(measured["recall"] * measured["revisits"]) > 0
    result = result_files.read(loops)
    assert sum(entry["accepted"] for entry in data["entries"]) == sum(loop.accepted for loop in result.loops)


def test_answers_are_judged_as_the_replay_judged_them(places: Path, tmp_path: Path) -> None:
    page, data = written(places, tmp_path / "r.html")
    measured = json.loads((places / "metrics.json").read_text())["places"]
    assert len(data["entries"]) == len(result_files.read(places).queries)
    assert count(data, "wrong") + count(data, "right") <= measured["accepted_pairs"]
    assert count(data, "rejected") > 0  # places that are not in the map
    recall = f"{100 * measured['reranked']['recall_at_1']:.1f}"
    assert recall in page
    assert data["pr"][0]["area"] == pytest.approx(measured["reranked"]["average_precision"], abs=1e-9)
    assert data["pr"][1]["area"] == pytest.approx(measured["retrieval"]["average_precision"], abs=1e-9)


def test_every_pair_with_pictures_has_its_matches(loops: Path, tmp_path: Path) -> None:
    _, data = written(loops, tmp_path / "r.html")
    pairs = [entry for entry in data["entries"] if "m" in entry]
    assert all(data["pictures"][entry["q"]] and data["pictures"][entry["m"]] and "agree" in entry for entry in pairs)
    accepted = [entry for entry in pairs if entry["accepted"]]
    assert all(entry["agree"] >= 0.5 * entry["geometry"]["inliers"] for entry in accepted)


def test_the_same_result_gives_the_same_bytes(loops: Path, tmp_path: Path) -> None:
    pages = {written(loops, tmp_path / f"{n}.html")[0] for n in range(2)}
    assert len(pages) == 1


def test_the_page_needs_nothing_else(loops: Path, tmp_path: Path) -> None:
    page, _ = written(loops, tmp_path / "r.html")
    assert not re.findall(r"""(?:src|href)=["']?[^"'#]""", page.split('<script type="application/json"')[0])
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert "default-src 'none'" in page


def test_the_protocol_is_printed_with_the_numbers(loops: Path, tmp_path: Path) -> None:
    page, _ = written(loops, tmp_path / "r.html")
    assert "off by more than 0.5 m or 10°" in page and "within 1 m and 30°" in page


def test_a_recording_without_truth_says_so(tmp_path: Path) -> None:
    loop_result(tmp_path / "r", laps(30), has_truth=False)
    page, data = written(tmp_path / "r", tmp_path / "r.html")
    assert not data["judged"] and {entry["verdict"] for entry in data["entries"]} == {"unknown"}
    assert "no ground truth" in page and "Revisits found" not in page and "Neighbouring loops differ" in page
    assert data["pr"] == [] and data["reliability"] == []


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    made = made_result()
    queries = (
        dataclasses.replace(made.queries[0], name=EVIL),
        *(dataclasses.replace(query, reason=EVIL) for query in made.queries[1:]),
    )
    loops = tuple(dataclasses.replace(loop, reason=EVIL if not loop.accepted else "") for loop in made.loops)
    manifest = {**made.manifest, "bag": {"name": EVIL, EVIL: EVIL}, "config": {EVIL: EVIL, "loop": {}}, "session": EVIL}
    result_files.write(tmp_path / "r", Result(manifest, queries, loops, (EVIL,)))
    page, data = written(tmp_path / "r", tmp_path / "r.html")
    assert page.count("<script") == 2 and "<img" not in page
    assert data["spots"][0]["name"] == EVIL
    assert EVIL in unescape(page)


def test_an_empty_result_is_a_page_too(tmp_path: Path) -> None:
    result_files.write(tmp_path / "r", Result({"mode": "loops", "bag": None, "config": None}, ()))
    page, data = written(tmp_path / "r", tmp_path / "r.html")
    assert "holds no picture" in page and data["entries"] == []


def test_pictures_and_map_may_be_gone(places: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r"
    shutil.copytree(places, copy)
    shutil.rmtree(copy / "pictures")
    manifest = json.loads((copy / "result.json").read_text())
    manifest["map"]["path"] = str(tmp_path / "nowhere")
    (copy / "result.json").write_text(json.dumps(manifest))
    page, data = written(copy, tmp_path / "r.html")
    assert "is not the one of this replay" in page and "not there any more" in page
    assert not any(data["pictures"]) and data["similarity"] is None
    assert count(data, "right") > 0


def test_odd_stamps_and_odd_metrics_do_not_stop_it(tmp_path: Path) -> None:
    made = made_result()
    late = dataclasses.replace(made.queries[0], name="late", stamp_ns=10**20, match=None)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metrics.json").write_text('{"protocol": [], "places": {"reliability": [{}], "reranked": 3}}')
    result_files.write(tmp_path / "r", dataclasses.replace(made, queries=(late, *made.queries)))
    written(tmp_path / "r", tmp_path / "r.html")


def test_verdicts_of_loops_by_hand() -> None:
    """A robot that stands still for 60 s after 100 m, then comes back: see the poses."""
    poses = {stamp(0): Pose((0.0, 0.0, 0.0)), stamp(1): Pose((100.0, 0.0, 0.0)), stamp(200): Pose((0.2, 0.0, 0.0))}
    ask = dataclasses.replace(place(200), session="drive")
    ahead = dataclasses.replace(SURE, match_t_query=Pose((0.2, 0.0, 0.0)))
    off = dataclasses.replace(SURE, match_t_query=Pose((0.9, 0.0, 0.0)))
    truth = Truth(Protocol(), None, poses, frozenset({stamp(200)}))
    assert true_revisits(poses, list(poses), CONFIG.loop) == {stamp(200)}

    def judged(*loops: LoopClosure) -> list[str]:
        return [verdict.value for verdict in judge_loops(loops, truth)]

    right = LoopClosure(ask, place(0), ahead, accepted=True)
    wrong = LoopClosure(ask, place(0), off, accepted=True)
    far = LoopClosure(ask, place(1), ahead, reason="no")
    near = LoopClosure(ask, place(0), ahead, reason="no")
    elsewhere = LoopClosure(ask, place(7), ahead, accepted=True)
    assert judged(right, wrong, far) == ["right", "wrong", "rejected"]
    assert judged(far, near) == ["rejected", "missed"]
    assert judged(elsewhere) == ["unknown"]


def test_verdicts_of_answers_by_hand() -> None:
    query = made_result().queries[3]
    accepted, rejected = query.match.candidates if query.match else ()
    for positives, of_accepted, of_rejected in (
        ({0}, Verdict.RIGHT, Verdict.MISSED),
        ({4}, Verdict.WRONG, Verdict.MISSED),
        (set(), Verdict.WRONG, Verdict.REJECTED),
    ):
        truth = Truth(Protocol(), GroundTruth({query.name: frozenset(positives)}, "by hand"))
        assert judge_answer(query, accepted, truth) is of_accepted
        assert judge_answer(query, rejected, truth) is of_rejected
    assert judge_answer(query, accepted, Truth(Protocol())) is Verdict.UNKNOWN


def test_pairs_given_again_judge_the_answers(places: Path, tmp_path: Path) -> None:
    result = result_files.read(places)
    best = {query.name: query.match.best for query in result.queries if query.match}
    pairs = tuple((name, candidate.place.name) for name, candidate in best.items() if candidate)
    _, data = written(places, tmp_path / "r.html", protocol=Protocol(pairs=pairs))
    assert count(data, "right") == len(pairs) and count(data, "wrong") == count(data, "missed") == 0


def test_neighbouring_loops_agree_by_odometry_that_does_not_drift(loops: Path) -> None:
    result = result_files.read(loops)
    found = figures.neighbour_agreement(result)
    assert found is not None and found["pairs"] >= 5
    assert found["metres"] < 0.05 and found["degrees"] < 0.5
    moved = [
        dataclasses.replace(loop, geometry=dataclasses.replace(loop.geometry, match_t_query=Pose((float(n), 0.0, 0.0))))
        for n, loop in enumerate(result.loops)
    ]
    worse = figures.neighbour_agreement(dataclasses.replace(result, loops=tuple(moved)))
    assert worse is not None and worse["metres"] > 0.5


def test_entries_know_their_errors(loops: Path) -> None:
    result = result_files.read(loops)
    entries = entries_of(result, read_truth(result, read_metrics(loops), ()))
    right = [entry for entry in entries if entry.verdict is Verdict.RIGHT]
    assert all(entry.off is not None and entry.off[0] < 0.5 and entry.apart is not None for entry in right)


def test_pictures_are_made_smaller_until_they_fit() -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (180, 240, 3)).astype(np.uint8) for _ in range(40)]
    large, small, cut = (encode(noisy, budget) for budget in (10**7, 400_000, 30_000))
    assert sum(map(len, large)) > 400_000 >= sum(map(len, small)) and all(small)
    assert 0 < sum(map(len, cut)) <= 30_000 and "" in cut
    assert encode([]) == []


def test_lines_lie_where_the_matches_are() -> None:
    world = Landmarks(seed=2)
    a, b = (world(world.frame(Pose((x, 0.0, 0.0)), 0).image) for x in (3.0, 3.3))
    matches, agree, text = lines(a, b)
    steps = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 4)
    assert matches >= agree >= len(steps) >= 20
    pixels = steps[:, :2] / 255 * a.image_size
    off = np.linalg.norm(pixels[:, None] - (a.keypoints[None] + 0.5), axis=2).min(axis=1)
    assert off.max() < 2.0
    assert lines(a, dataclasses.replace(b, descriptors=b.descriptors[:0], keypoints=b.keypoints[:0]))[:2] == (0, 0)


def test_reasons_are_counted_without_their_numbers() -> None:
    assert general("match probability 0.31 is below 0.50") == "match probability … is below …"


def test_time_of_stages_and_their_sum() -> None:
    times = figures.stage_times(made_result().queries)
    assert times["total"]["p50"] == pytest.approx(15.75) and next(iter(times)) == "extract"


def test_the_command_writes_into_the_result(loops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(loops)]) == 0
    headline, line = capsys.readouterr().out.splitlines()
    assert "accepted loops" in headline and f"{loops / 'report.html'}, " in line
    assert result_files.read(loops)


@pytest.mark.parametrize("output", ["nowhere/r.html", "."])
def test_errors_are_one_line(loops: Path, tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "is no result of `etr replay`" in capsys.readouterr().err
    assert main(["report", str(loops), "--output", str(tmp_path / output)]) == 1
    assert "cannot write the report" in capsys.readouterr().err
