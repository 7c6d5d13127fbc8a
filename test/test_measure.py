"""What a replay is worth: hand-made replays whose measures are worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from etr_ros.errors import DataError
from etr_ros.loop_metrics import LoopProtocol
from etr_ros.measure import Protocol, measure_result
from etr_ros.result import Outcome, Query, Result
from etr_ros.types import Candidate, Geometry, LoopClosure, Place, PlaceMatch, Pose, State

S = 10**9
PLACES = [Place(i, f"map_{i}", "map", 0, Pose((10.0 * i, 0.0, 0.0))) for i in range(4)]
BACKWARDS = (0.0, 0.0, 1.0, 0.0)


def query(number: int, x_m: float | None, *ids: int, probability: float = 0.95, accepted: bool = True) -> Query:
    """Answered with these places, best first; the first is accepted."""
    candidates = tuple(
        Candidate(PLACES[i], 0.9 - 0.1 * rank, 2.0 - rank, probability, accepted=accepted and rank == 0)
        for rank, i in enumerate(ids)
    )
    state = State.LOCALIZED if accepted and ids else State.UNKNOWN
    truth = None if x_m is None else Pose((x_m, 0.0, 0.0))
    match = PlaceMatch(number * S, state, candidates, {"extract": 5.0})
    return Query(str(number), number * S, Outcome.ANSWERED, "", number, truth, truth, match)


def localized(*queries: Query) -> Result:
    return Result({"mode": "localization", "config": {}}, queries)


REPLAY = localized(
    query(0, 0.3, 0, 1),
    query(1, 10.4, 0, 1, probability=0.6),
    query(2, 500.0, 3, probability=0.1, accepted=False),
    query(3, 30.0, 2, 1, probability=0.8, accepted=False),
    Query("4", 4 * S, Outcome.UNUSABLE, "it is black"),
)


def test_places_by_hand() -> None:
    places = measure_result(REPLAY, PLACES)["places"]
    assert (places["queries_with_positive"], places["queries_without_positive"]) == (3, 1)
    assert places["reranked"]["recall_at_1"] == pytest.approx(1 / 3)
    assert places["reranked"]["recall_at_5"] == pytest.approx(2 / 3)
    assert places["reranked"]["recall_at_full_precision"] == pytest.approx(1 / 3)
    assert places["states"] == {
        "localized": 2, "ambiguous": 0, "unknown": 2, "localized_precision": 0.5, "ambiguous_precision": None,
        "unknown_precision": 0.5, "unknown_recall": 1.0,
    }  # fmt: skip
    shares = [each["share"] for each in places["success"]]
    assert shares == [0.0, 0.25, 0.25]  # query 0 is 0.3 m off, query 1 is 10.4 m off
    assert places["calibration_error"] == pytest.approx((0.05 + 0.6 + 0.1 + 0.8) / 4)
    assert sum(each["count"] for each in places["reliability"]) == 4


def test_a_place_seen_from_the_other_side_is_another_place() -> None:
    turned = [dataclasses.replace(PLACES[0], pose=Pose((0.0, 0.0, 0.0), BACKWARDS)), *PLACES[1:]]
    assert measure_result(REPLAY, turned)["places"]["queries_with_positive"] == 2
    gps = Protocol(loops=LoopProtocol(knows_rotation=False))
    assert measure_result(REPLAY, turned, gps)["places"]["queries_with_positive"] == 3


def test_listed_pairs_and_frame_numbers_judge_as_poses_do() -> None:
    pairs = Protocol(pairs=(("0", "map_0"), ("1", "map_1"), ("3", "map_3")))
    by_poses = measure_result(REPLAY, PLACES)["places"]
    assert measure_result(REPLAY, PLACES, pairs)["places"]["reranked"] == by_poses["reranked"]
    frames = measure_result(REPLAY, PLACES, Protocol(frame_tolerance=0))["places"]
    assert frames["queries_with_positive"] == 4 and frames["reranked"]["recall_at_5"] == pytest.approx(0.5)
    with pytest.raises(DataError, match="names no pair"):
        measure_result(REPLAY, PLACES, Protocol(pairs=(("nobody", "nowhere"),)))


def test_without_truth_there_is_nothing_to_judge_by() -> None:
    with pytest.raises(DataError, match="poses"):
        measure_result(localized(query(0, None, 0)), PLACES)
    with pytest.raises(DataError, match="poses"):
        measure_result(localized())


def test_the_measures_are_json_without_nan() -> None:
    measured = measure_result(REPLAY, PLACES)
    assert json.loads(json.dumps(measured, allow_nan=False)) == json.loads(json.dumps(measured))
    assert measured["protocol"]["correct_m"] == 3.0


LAP_S, LAPS = 60, 2
STAMPS = [i * S for i in range(LAPS * LAP_S)]


def on_lap(i: int) -> Pose:
    angle = 2 * math.pi * i / LAP_S
    return Pose((10 * math.cos(angle), 10 * math.sin(angle), 0.0), (0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)))


def session_place(i: int) -> Place:
    return Place(i, str(i), "drive", STAMPS[i], on_lap(i))


def lap_query(i: int) -> Query:
    """Recognised as the same place of the lap before; `odometry` is off by 1 % of x."""
    earlier = i - LAP_S
    candidates = (Candidate(session_place(earlier), 0.9, 1.0, 0.9, accepted=True),) if earlier >= 0 else ()
    match = PlaceMatch(STAMPS[i], State.LOCALIZED if candidates else State.UNKNOWN, candidates)
    truth = on_lap(i)
    odometry = Pose((1.01 * truth.position_m[0], truth.position_m[1], 0.0), truth.quat_xyzw, "odom")
    return Query(str(i), STAMPS[i], Outcome.ANSWERED, "", i, odometry, truth, match)


def lap_loop(i: int, off_m: float = 0.0) -> LoopClosure:
    geometry = Geometry(90, 100, Pose((off_m, 0.0, 0.0)), np.eye(6) * 0.01, is_metric=True, coverage=0.5)
    return LoopClosure(session_place(i), session_place(i - LAP_S), geometry, 0.9, 3, accepted=True)


def drive(*loops: LoopClosure) -> Result:
    return Result({"mode": "loops", "config": {}}, tuple(lap_query(i) for i in range(len(STAMPS))), loops)


def test_loops_of_a_drive_by_hand() -> None:
    measured = measure_result(drive(lap_loop(70), lap_loop(80), lap_loop(90, off_m=2.0)))
    loops = measured["loops"]
    km = (2 * LAP_S - 1) * 2 * 10 * math.sin(math.pi / LAP_S) / 1000
    assert (loops["accepted"], loops["revisits"]) == (3, 60)  # all of lap 2
    assert loops["recall"] == pytest.approx(2 / 60)
    assert loops["km"] == pytest.approx(km)
    assert loops["false_per_km"] == pytest.approx(1 / km)
    assert loops["false_per_hour"] == pytest.approx(1 / (119 / 3600))
    assert loops["odometry_off_m"] == pytest.approx(0.0, abs=1e-6)  # both laps have the same 1 % error
    assert loops["drift_removed_per_loop_m"] == pytest.approx(-2.0 / 3, abs=1e-6)
    assert loops["false_loops"] == [{"query": "90", "match": "30", "match_session": "drive"}]
    assert "success" not in measured["places"]  # the session's poses are odometry
    assert measured["places"]["queries_with_positive"] > LAP_S and measured["places"]["reranked"]["recall_at_1"] < 1
    assert 0 < measured["trajectory"]["odometry_ate_m"] < 0.1
    json.dumps(measured, allow_nan=False)


def test_drift_removed_is_what_odometry_is_off_and_the_loop_is_not() -> None:
    drifted = dataclasses.replace(lap_loop(70), query=dataclasses.replace(session_place(70), pose=on_lap(71)))
    off_m = 20 * math.sin(math.pi / LAP_S)
    loops = measure_result(drive(drifted))["loops"]
    assert loops["odometry_off_m"] == pytest.approx(off_m)
    assert loops["drift_removed_per_loop_m"] == pytest.approx(off_m)


def test_an_ambiguous_answer_is_right_when_one_of_its_places_is() -> None:
    def ambiguous(number: int, *ids: int) -> Query:
        found = query(number, 10.0, *ids, accepted=False)
        assert found.match is not None
        split = tuple(dataclasses.replace(each, weight=0.5) for each in found.match.candidates)
        return dataclasses.replace(
            found, match=dataclasses.replace(found.match, state=State.AMBIGUOUS, candidates=split)
        )

    states = measure_result(localized(ambiguous(0, 3, 1), ambiguous(1, 2, 3)), PLACES)["places"]["states"]
    assert (states["ambiguous"], states["ambiguous_precision"]) == (2, 0.5)


def test_loops_of_unknown_truth_are_counted_apart() -> None:
    replay = drive(lap_loop(70), lap_loop(80))
    queries = tuple(dataclasses.replace(q, truth=None) if q.name == "80" else q for q in replay.queries)
    loops = measure_result(dataclasses.replace(replay, queries=queries))["loops"]
    assert (loops["accepted"], loops["of_unknown_truth"]) == (1, 1)


def test_places_that_were_excluded_are_no_candidates() -> None:
    """Just after a place, it is the same place, but nobody should have found it again."""
    manifest = {"mode": "loops", "config": {"loop": {"exclusion_s": 1000.0}}}
    replay = dataclasses.replace(drive(), manifest=manifest)
    assert measure_result(replay)["places"]["queries_with_positive"] == 0
