"""Re-rankers: ETR from a file, the geometric one, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from builders import make_features, make_place
from etr_ros import ranking, rerank, verify
from etr_ros.errors import ConfigError, WeightsError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.rerank import Calibration, EtrScorer
from etr_ros.types import Candidate, Features, View

CPU = torch.device("cpu")
CONFIG = EtrConfig(local_dim=8, max_locals=32, max_tokens=16, width=16, heads=2, ffn_width=16, blocks=1)


def saved_model(path: Path, config: EtrConfig = CONFIG) -> ETR:
    torch.manual_seed(0)
    model = ETR(config)
    rerank.save(path, model, Calibration(2.0, -1.0), {"seed": "0"})
    return model


def moved(features: Features, shift_px: float) -> Features:
    """The same scene seen from a little further left."""
    return Features(
        features.keypoints + np.array([shift_px, 0], np.float32),
        features.scores,
        features.descriptors,
        features.scales,
        features.image_size,
        features.global_descriptor,
    )


def test_a_saved_etr_scores_as_before(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "etr.safetensors").eval()
    scorer = rerank.load(str(tmp_path / "etr.safetensors"), "xfeat", CPU)
    assert isinstance(scorer, EtrScorer) and scorer.calibration == Calibration(2.0, -1.0)
    query, others = make_features(0), [make_features(1, count=30), make_features(2, count=12)]
    scores = scorer(query, others)
    one = rerank.collate([query], 32)
    with torch.inference_mode():
        expected = [float(model(one, rerank.collate([other], 32))) for other in others]
    np.testing.assert_allclose(scores.values, expected, rtol=1e-4, atol=1e-5)
    assert scores.probabilities is not None and scores.inliers is None
    np.testing.assert_allclose(scores.probabilities, 1 / (1 + np.exp(-(2 * scores.values - 1))), rtol=1e-5)


def test_weights_that_do_not_know_of_consistency_load(tmp_path: Path) -> None:
    path = tmp_path / "etr.safetensors"
    model = saved_model(path, dataclasses.replace(CONFIG, consistent=False))
    with safe_open(path, "pt") as file:
        header = file.metadata()
    told = json.loads(header["config"])
    del told["consistent"]
    save_file(model.state_dict(), path, header | {"config": json.dumps(told)})
    assert EtrScorer.from_file(path, CPU).model.config == model.config


def test_geometry_confirms_the_best(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorer = EtrScorer(ETR(CONFIG), Calibration(1.0, -3.0, per_inlier=0.5), CPU)
    query, other = make_features(0), make_features(1)
    true = moved(query, 5.0)
    views = {0: View(other), 1: View(true), 2: View(other)}
    ordered = [Candidate(make_place(i), 0.9, etr_score=1.0 - 0.1 * i, probability=0.1) for i in range(3)]
    matches_of = lambda i: verify.mutual_matches(query, views[i].features)  # noqa: E731
    found = ranking.confirmed(scorer, query, ordered, views.__getitem__, matches_of, 2)
    assert [each.place.place_id for each in found] == [1, 0, 2]
    inliers = len(verify.inliers(query, true))
    assert inliers >= 30 and found[0].inliers == inliers and found[1].inliers is not None
    assert found[0].etr_score == pytest.approx(0.9 + 0.5 * inliers)
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(3.0 - 0.9 - 0.5 * inliers)), rel=1e-4)
    assert found[2] == ordered[2]  # not among the best


def test_nothing_is_confirmed_where_geometry_has_no_say(tmp_path: Path) -> None:
    query = make_features(0)
    ordered = [Candidate(make_place(0), 0.9, etr_score=1.0, probability=0.1)]
    late = [dataclasses.replace(ordered[0], reason="not re-ranked")]
    torch.manual_seed(0)
    model = ETR(CONFIG)
    knows, does_not = (EtrScorer(model, Calibration(per_inlier=worth), CPU) for worth in (0.5, 0.0))
    view_of = lambda _: View(moved(query, 5.0))  # noqa: E731
    matches_of = lambda _: verify.mutual_matches(query, query)  # noqa: E731
    assert ranking.confirmed(does_not, query, ordered, view_of, matches_of, 5) == ordered
    assert ranking.confirmed(rerank.geometric_scorer, query, ordered, view_of, matches_of, 5) == ordered
    assert ranking.confirmed(knows, query, ordered, view_of, matches_of, 0) == ordered
    assert ranking.confirmed(knows, query, late, view_of, matches_of, 5) == late
    assert ranking.confirmed(knows, query, [], view_of, matches_of, 5) == []


def test_no_candidates_no_scores(tmp_path: Path) -> None:
    saved_model(tmp_path / "etr.safetensors")
    assert EtrScorer.from_file(tmp_path / "etr.safetensors", CPU)(make_features(0), []).values.shape == (0,)


def test_none_is_no_reranker() -> None:
    assert rerank.load("none", "xfeat", CPU) is None


def test_weights_for_other_features_are_refused(tmp_path: Path) -> None:
    saved_model(tmp_path / "etr.safetensors")
    with pytest.raises(ConfigError, match="trained on xfeat features, not superpoint"):
        rerank.load(str(tmp_path / "etr.safetensors"), "superpoint", CPU)


def test_an_unknown_reranker_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no 'magic' weights for xfeat features: set rerank\.name to magsac"):
        rerank.load("magic", "xfeat", CPU)


def test_files_that_are_no_etr_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "etr.safetensors"
    file.write_bytes(b"not a weight file")
    with pytest.raises(WeightsError, match="not a readable ETR"):
        EtrScorer.from_file(file, CPU)
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="holds no ETR"):
        EtrScorer.from_file(file, CPU)
    with pytest.raises(WeightsError, match="not a readable ETR"):
        EtrScorer.from_file(tmp_path / "missing.safetensors", CPU)


def test_a_header_that_does_not_fit_the_tensors_is_refused(tmp_path: Path) -> None:
    model = ETR(CONFIG)
    header = {"kind": "etr", "config": json.dumps({"width": 32, "heads": 2}), "calibration": "{}"}
    save_file(dict(model.state_dict()), tmp_path / "etr.safetensors", header)
    with pytest.raises(WeightsError, match="made for another network"):
        EtrScorer.from_file(tmp_path / "etr.safetensors", CPU)


def test_the_geometric_reranker_counts_verified_matches() -> None:
    query = make_features(0, count=60)
    scores = rerank.geometric_scorer(query, [moved(query, 12.0), make_features(1, count=60)])
    assert scores.inliers is not None
    assert scores.inliers[0] == 60
    assert scores.inliers[1] < 20
    assert scores.probabilities is not None and scores.probabilities[0] > scores.probabilities[1]


def test_collate_pads_and_cuts() -> None:
    batch = rerank.collate([make_features(0, count=40), make_features(1, count=5)], max_locals=16)
    assert batch.descriptors.shape == (2, 16, 8)
    assert batch.mask.sum(dim=1).tolist() == [16, 5]
    np.testing.assert_array_equal(batch.descriptors[0].numpy(), make_features(0, count=40).descriptors[:16])


def test_centred_coordinates() -> None:
    corners = np.array([[-0.5, -0.5], [639.5, 479.5], [319.5, 239.5]], np.float32)
    np.testing.assert_allclose(rerank.centred(corners, (640, 480)), [[-1, -0.75], [1, 0.75], [0, 0]], atol=1e-6)


def test_probabilities_are_monotone_and_bounded() -> None:
    scores = np.linspace(-1e4, 1e4, 101).astype(np.float32)
    probabilities = Calibration(0.7, 0.3).probabilities(scores)
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() >= 0 and probabilities.max() <= 1
