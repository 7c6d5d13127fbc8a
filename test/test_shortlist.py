"""The quick look that decides which candidates are re-ranked, and what becomes of the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from builders import make_features, make_place
from etr_ros import ranking, shortlist
from etr_ros.anytime import LEFT_OUT, TOO_LATE, UNLIMITED, Allowance, Pace
from etr_ros.config import DecisionConfig, GeometryConfig
from etr_ros.decision import decide
from etr_ros.etr import ETR, EtrConfig
from etr_ros.rerank import Calibration, EtrScorer, Scorer, geometric_scorer
from etr_ros.types import Candidate, Features, View

CONFIG = EtrConfig(local_dim=8, max_locals=32, max_tokens=16, width=16, heads=2, ffn_width=16, blocks=1)
QUERY = make_features(0)
LOOKS = make_features(98).global_descriptor
TRUE = 7  # the place that shows the query's scene


def etr() -> EtrScorer:
    torch.manual_seed(0)
    return EtrScorer(ETR(CONFIG), Calibration(), torch.device("cpu"))


def seen_again(features: Features, shift_px: float, share: float) -> Features:
    """The scene a little further left; of the locals only a share is found again."""
    kept, other = round(share * len(features)), make_features(99, len(features))
    moved = features.keypoints[:kept] + np.array([shift_px, 0], np.float32)
    return dataclasses.replace(
        features,
        keypoints=np.concatenate([moved, other.keypoints[kept:]]),
        descriptors=np.concatenate([features.descriptors[:kept], other.descriptors[kept:]]),
        global_descriptor=LOOKS,
    )


def view_of(place_id: int) -> View:
    """Places that all look alike to retrieval."""
    other = dataclasses.replace(make_features(100 + place_id), global_descriptor=LOOKS)
    return View(seen_again(QUERY, 9.0, 0.6) if place_id == TRUE else other)


def proposed(count: int) -> list[Candidate]:
    return [Candidate(make_place(i), 0.9 - i / 100) for i in range(count)]


def run(
    count: int,
    keep: int,
    expected: tuple[int, ...] = (),
    allowance: Allowance = UNLIMITED,
    scorer: Scorer | None = None,
) -> list[Candidate]:
    """`count` candidates of which `keep` are on the shortlist."""
    never = lambda *_: False  # noqa: E731
    scorer = scorer or etr()
    return ranking.ranked(scorer, QUERY, proposed(count), expected, view_of, allowance, never, keep)


def ids(candidates: list[Candidate]) -> list[int]:
    return [each.place.place_id for each in candidates]


def test_the_same_scene_is_the_most_promising() -> None:
    promises = shortlist.promise(QUERY, [view_of(i).features for i in range(12)])
    assert promises.shape == (12,) and promises.dtype == np.float32
    assert int(promises.argmax()) == TRUE


def test_what_is_promised_depends_on_nothing_but_the_pair() -> None:
    candidates = [view_of(i).features for i in range(12)] + [make_features(5, count=3)]
    alone = [float(shortlist.promise(QUERY, [each])[0]) for each in candidates]
    np.testing.assert_allclose(shortlist.promise(QUERY, candidates), alone, atol=1e-4)


def test_matches_that_move_apart_promise_less() -> None:
    same, rng = seen_again(QUERY, 9.0, 1.0), np.random.default_rng(0)
    torn = dataclasses.replace(same, keypoints=rng.permutation(same.keypoints))
    promised = shortlist.promise(QUERY, [same, torn])
    assert promised[0] > promised[1] + 1


def test_a_global_descriptor_alone_is_a_promise() -> None:
    blind = dataclasses.replace(make_features(3, count=0), global_descriptor=QUERY.global_descriptor)
    promised = shortlist.promise(QUERY, [blind, make_features(4, count=0)])
    assert promised[0] == pytest.approx(shortlist.COSINE, rel=1e-4) and promised[0] > promised[1]


def test_the_shortlist_scores_as_if_it_were_all_and_the_others_follow_without_a_score() -> None:
    found = run(12, 5)
    scored, left = found[:5], found[5:]
    assert TRUE in ids(scored)
    plain = {each.place.place_id: each for each in run(12, 0)}
    for each in scored:
        assert each.etr_score == pytest.approx(plain[each.place.place_id].etr_score, abs=1e-5)
        assert each.probability == pytest.approx(plain[each.place.place_id].probability, abs=1e-5)
        assert each.reason == ""
    scores = [each.etr_score for each in scored]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert all((each.etr_score, each.probability, each.reason) == (None, None, LEFT_OUT) for each in left)
    promises = shortlist.promise(QUERY, [view_of(i).features for i in ids(left)])
    assert (np.diff(promises) <= 0).all()
    assert sorted(ids(found)) == list(range(12))


def test_what_is_left_out_is_never_accepted() -> None:
    _, judged = decide(run(12, 5), DecisionConfig(min_probability=0.0), GeometryConfig())
    assert [each.accepted for each in judged] == [True] * 5 + [False] * 7
    assert {each.reason for each in judged[5:]} == {LEFT_OUT}


@pytest.mark.parametrize("keep", [0, 12, 50])
def test_all_are_scored_when_there_is_room_for_all(keep: int) -> None:
    assert all(each.etr_score is not None for each in run(12, keep))


def test_expected_places_are_on_the_shortlist_beside_the_others() -> None:
    found = run(12, 5, expected=(11, 10))
    assert {10, 11, TRUE} <= set(ids(found[:7]))
    assert [each.reason for each in found] == [""] * 7 + [LEFT_OUT] * 5
    assert all(each.etr_score is not None for each in run(12, 10, expected=(11, 10)))


def test_geometric_verification_looks_at_all() -> None:
    assert all(each.inliers is not None for each in run(6, 2, scorer=geometric_scorer))


def test_with_a_deadline_the_shortlist_comes_before_what_is_left_out() -> None:
    pace = Pace()
    pace.candidate_s = 1.0
    found = run(12, 5, allowance=Allowance(3.5, pace=pace, clock=lambda: 0.0 if pace.ranked_s is None else 9.0))
    assert [each.reason for each in found] == [""] * 3 + [TOO_LATE] * 2 + [LEFT_OUT] * 7
    late = run(12, 5, allowance=Allowance(-1.0, clock=lambda: 0.0))
    assert {each.reason for each in late} == {TOO_LATE} and ids(late) == list(range(12))
