"""The stages together, on real maps with foreseeable features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from builders import make_features
from etr_ros import verify
from etr_ros.anytime import TOO_LATE, Allowance, Effort, Pace
from etr_ros.build import build_map
from etr_ros.config import Config
from etr_ros.database import read_info
from etr_ros.errors import ConfigError, ImageError, MapError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.pipeline import Networks, PlaceRecognizer, Stopwatch
from etr_ros.rerank import Calibration, EtrScorer, Scores
from etr_ros.session import SessionMap
from etr_ros.types import Features, Frame, Pose, State, View
from etr_ros.views import look
from fakes import BOARD_DIM, FakeExtractor, board, fake_networks, fake_scorer  # noqa: F401

pytestmark = pytest.mark.usefixtures("fake_networks")


def frame(upper: int, lower: int, number: int = 0, x_m: float | None = None, noise: int = 0) -> Frame:
    pose = None if x_m is None else Pose((x_m, 0.0, 0.0))
    return Frame(board(upper, lower, noise), number, f"{number}.png", "survey", pose)


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Places 0 and 1 have the same upper half, place 2 is another."""
    frames = [frame(1, 1, 0, 0.0), frame(1, 2, 1, 50.0), frame(3, 3, 2, 100.0)]
    build_map(frames, tmp_path / "map", Config())
    return tmp_path / "map"


def test_re_ranking_decides_between_places_that_retrieval_confuses(town: Path) -> None:
    match = PlaceRecognizer.open(town).query(frame(1, 2, noise=5))
    assert match.best is not None and match.best.place.place_id == 1
    assert match.state is State.LOCALIZED
    assert next(c.place.place_id for c in match.candidates) == 1
    assert {"extract", "retrieve", "rerank", "decide"} <= set(match.stage_ms)
    scores = [c.etr_score for c in match.candidates]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def test_an_unknown_place_is_unknown_and_every_candidate_says_why_not(town: Path) -> None:
    match = PlaceRecognizer.open(town).query(frame(8, 8))
    assert match.state is State.UNKNOWN and match.best is None
    assert all(c.reason and not c.accepted for c in match.candidates)


def test_without_a_re_ranker_the_retrieval_order_stays(town: Path) -> None:
    match = PlaceRecognizer.open(town, Config().replace(**{"rerank.name": "none"})).query(frame(3, 3))
    cosines = [c.retrieval_score for c in match.candidates]
    assert cosines == sorted(cosines, reverse=True)
    assert match.candidates[0].place.place_id == 2 and match.candidates[0].etr_score is None


def test_a_query_changes_nothing(town: Path) -> None:
    recognizer = PlaceRecognizer.open(town)
    before = recognizer.info, recognizer.query(frame(1, 1)).candidates
    recognizer.query(frame(3, 3))
    assert (recognizer.info, recognizer.query(frame(1, 1)).candidates) == before


def test_only_places_before_are_candidates(town: Path) -> None:
    match = PlaceRecognizer.open(town).query(frame(3, 3), places_before=2)
    assert {c.place.place_id for c in match.candidates} == {0, 1}
    assert PlaceRecognizer.open(town).query(frame(3, 3), places_before=0).candidates == ()


def test_top_k_is_live_and_the_extractor_is_not(town: Path) -> None:
    recognizer = PlaceRecognizer.open(town)
    recognizer.configure(Config().replace(**{"retrieval.top_k": 2}))
    assert len(recognizer.query(frame(1, 1)).candidates) == 2
    with pytest.raises(ConfigError, match="extractor cannot change"):
        recognizer.configure(Config().replace(**{"extractor.max_keypoints": 64}))


def test_a_map_of_another_configuration_is_refused_with_the_difference(town: Path) -> None:
    with pytest.raises(MapError, match="max_keypoints 512 instead of 64"):
        PlaceRecognizer.open(town, Config().replace(**{"extractor.max_keypoints": 64}))


def test_a_map_of_other_weights_is_refused(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = FakeExtractor.__init__

    def retrained(self: FakeExtractor, config: Config) -> None:
        make(self, config)
        self.spec = dataclasses.replace(self.spec, weights="retrained")

    monkeypatch.setattr(FakeExtractor, "__init__", retrained)
    with pytest.raises(MapError, match="weights fake instead of retrained"):
        PlaceRecognizer.open(town)


def test_a_picture_of_nothing_is_an_image_error(town: Path) -> None:
    with pytest.raises(ImageError):
        PlaceRecognizer.open(town).query(Frame(np.zeros((64, 64, 3), np.uint8), 0))


def test_pictures_of_nothing_are_left_out_of_a_map_and_named(tmp_path: Path) -> None:
    lost: list[str] = []
    blank = Frame(np.zeros((64, 64, 3), np.uint8), 0, "blank.png")
    info = build_map([blank, frame(1, 1)], tmp_path / "map", Config(), skipped=lambda f, why: lost.append(f.name))
    assert info.places == 1 and lost == ["blank.png"]


def test_a_map_of_one_place_answers(tmp_path: Path) -> None:
    build_map([frame(1, 1)], tmp_path / "map", Config())
    assert PlaceRecognizer.open(tmp_path / "map").query(frame(1, 1, noise=3)).best is not None


def test_an_expected_place_is_a_candidate_whatever_it_looks_like(town: Path) -> None:
    config = Config().replace(**{"retrieval.top_k": 1, "geometry.candidates": 1})
    recognizer = PlaceRecognizer.open(town, config)
    view = look(recognizer.networks.extractor, frame(3, 3), config.geometry)
    match = recognizer.networks.find(view, 0, recognizer.map, config, Stopwatch(), expected=[0, 2])
    assert [(c.place.place_id, c.geometry is not None) for c in match.candidates] == [(2, True), (0, False)]
    match = recognizer.networks.find(view, 0, recognizer.map, config, Stopwatch(), expected=[0])
    assert [(c.place.place_id, c.geometry is not None) for c in match.candidates] == [(2, False), (0, True)]


def test_a_query_does_no_more_than_it_is_allowed(town: Path) -> None:
    recognizer = PlaceRecognizer.open(town)
    match = recognizer.query(frame(1, 2, noise=5), allowance=Allowance(due_s=-1.0))
    assert (match.state, match.scored) == (State.UNKNOWN, 0)
    assert {c.reason for c in match.candidates} == {TOO_LATE}
    cosines = [c.retrieval_score for c in match.candidates]
    assert cosines == sorted(cosines, reverse=True)
    recognizer.configure(Config().replace(**{"retrieval.top_k": 2}))
    match = recognizer.query(frame(1, 2, noise=5), allowance=Allowance(effort=Effort(candidates=1 / 2)))
    assert (len(match.candidates), match.scored) == (1, 1)
    assert recognizer.query(frame(1, 2, noise=5)).scored == 2


def test_half_of_the_locals_reach_the_re_ranker_and_all_of_them_the_map(town: Path) -> None:
    seen: list[int] = []

    def scorer(query: Features, candidates: Sequence[Features]) -> Scores:
        seen.extend(len(each) for each in (query, *candidates))
        return fake_scorer(query, candidates)

    config = Config().replace(**{"extractor.max_keypoints": 16})
    networks = Networks(FakeExtractor(config), scorer)  # type: ignore[arg-type]
    view = View(make_features(0, 16, BOARD_DIM, BOARD_DIM // 2))
    places = SessionMap(networks.extractor.spec)
    places.add(frame(1, 1), view, 0)
    for share, count in ((1.0, 16), (0.5, 8), (0.25, 4)):
        networks.find(view, 0, places, config, Stopwatch(), allowance=Allowance(effort=Effort(locals=share)))
        assert seen == [count, count]
        seen.clear()


def test_places_are_added_to_a_map(tmp_path: Path) -> None:
    def drive(session: str, numbers: range) -> list[Frame]:
        return [dataclasses.replace(frame(n, n), session=session) for n in numbers]

    build_map(drive("monday", range(3)), tmp_path / "map", Config())
    info = build_map(drive("tuesday", range(3, 5)), tmp_path / "map", Config(), add=True)
    assert (info.places, info.sessions) == (5, ("monday", "tuesday"))
    found = PlaceRecognizer.open(tmp_path / "map").query(frame(4, 4)).candidates[0].place
    assert (found.place_id, found.session) == (4, "tuesday")
    with pytest.raises(MapError, match="has the session 'tuesday' already: give another --session"):
        build_map(drive("tuesday", range(9)), tmp_path / "map", Config(), add=True)
    assert read_info(tmp_path / "map") == info


def test_local_matches_are_looked_for_once_however_often_geometry_asks(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = EtrConfig(local_dim=BOARD_DIM, max_locals=8, max_tokens=4, width=8, heads=1, ffn_width=8, blocks=1)
    scorer = EtrScorer(ETR(shape), Calibration(per_inlier=0.5), torch.device("cpu"))
    recognizer = PlaceRecognizer.open(town)
    networks = Networks(recognizer.networks.extractor, scorer)
    asked, mutual_matches = [], verify.mutual_matches

    def counted(a: Features, b: Features) -> NDArray[np.int64]:
        asked.append(b.descriptors.tobytes())
        return mutual_matches(a, b)

    monkeypatch.setattr(verify, "mutual_matches", counted)
    view = look(networks.extractor, frame(1, 2, noise=5), Config().geometry)
    match = networks.find(view, 0, recognizer.map, Config(), Stopwatch())
    assert all(each.geometry is not None and each.inliers is not None for each in match.candidates)
    assert len(asked) == len(set(asked)) == 3


def test_geometry_looks_at_the_best_also_where_some_candidates_came_too_late(town: Path) -> None:
    shape = EtrConfig(local_dim=BOARD_DIM, max_locals=8, max_tokens=4, width=8, heads=1, ffn_width=8, blocks=1)
    recognizer, pace = PlaceRecognizer.open(town), Pace()
    networks = Networks(
        recognizer.networks.extractor, EtrScorer(ETR(shape), Calibration(per_inlier=0.5), torch.device("cpu"))
    )
    pace.candidate_s = 1.0
    allowance = Allowance(2.5, pace=pace, clock=lambda: 0.0 if pace.ranked_s is None else 9.0)
    view = look(networks.extractor, frame(1, 2, noise=5), Config().geometry)
    match = networks.find(view, 0, recognizer.map, Config(), Stopwatch(), with_geometry=False, allowance=allowance)
    assert [each.reason == TOO_LATE for each in match.candidates] == [False, False, True]
    assert [each.inliers is not None for each in match.candidates] == [True, True, False]
