"""Calibration files: fitted to made-up evidence, written, read, refused; what they say of probability and threshold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import calibration, metrics, rerank
from etr_ros.calibration import LOOPS, PLACES, Calibration, Curve
from etr_ros.calibration_fit import MIN_EACH, fit
from etr_ros.config import Config
from etr_ros.errors import ConfigError, DataError
from etr_ros.evidence import Evidence
from etr_ros.samples import Sample, Samples
from etr_ros.types import Candidate, Place


def made(seed: int = 0, count: int = 600, right_share: float = 0.5, source: str = "drive") -> Samples:
    """Right candidates score higher, lead by more, have more inliers and support; some facts are not known."""
    rng = np.random.default_rng(seed)
    rows = []
    for picture in range(count):
        is_right = bool(rng.random() < right_share)
        score, cosine, margin = rng.normal([2.0, 0.6, 1.0] if is_right else [0.0, 0.4, -1.0], [1.5, 0.1, 1.5])
        inliers = None if rng.random() < 0.2 else float(rng.poisson(60 if is_right else 20))
        support = None if picture == 0 else float(rng.binomial(5, 0.7 if is_right else 0.2)) / 5
        evidence = Evidence(score, cosine, None if rng.random() < 0.05 else margin, inliers, support)
        rows.append(Sample(picture, evidence, is_right, 1 / (1 + np.exp(-4 * score))))
    loops = tuple((row.evidence, not row.is_right) for row in rows[::10])
    return Samples(source, "etr-s", "xfeat", tuple(rows), 2.0, loops)


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit([made(0), made(1), made(2)])


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_fit_is_calibrated_on_drives_it_did_not_see(method: str) -> None:
    found, unseen = fit([made(0), made(1), made(2)], method), made(9, 2000)
    probabilities = found.probabilities([row.evidence for row in unseen.rows])
    error = metrics.reliability(probabilities, unseen.right).calibration_error
    before = metrics.reliability([row.before for row in unseen.rows], unseen.right).calibration_error
    assert error is not None and before is not None and error < 0.05 < before
    assert found.facts["after"]["calibration_error"] < 0.05 and found.method == method


def test_more_evidence_tells_more(fitted: Calibration) -> None:
    assert [model.features[3:] for model in fitted.models] == [
        (), ("inliers",), ("support",), ("inliers", "support"),
    ]  # fmt: skip
    poor = Evidence(1.0, 0.5, 0.0, None, None)
    for rich in (dataclasses.replace(poor, inliers=90.0), dataclasses.replace(poor, support=1.0)):
        assert fitted.probabilities([rich])[0] > fitted.probabilities([poor])[0]
    without_rival = dataclasses.replace(poor, margin=None)
    assert fitted.probabilities([without_rival])[0] > fitted.probabilities([poor])[0]


def test_what_was_never_seen_is_no_surer_than_what_was(fitted: Calibration) -> None:
    rows = made(0).rows
    most = max(fitted.probabilities([row.evidence for row in rows]))
    beyond = Evidence(1e9, 1.0, 1e9, 1e9, 1.0)
    assert fitted.probabilities([beyond])[0] <= most + 0.05


def test_the_facts_count_what_stands_behind(fitted: Calibration) -> None:
    facts = fitted.facts
    assert facts["positives"] + facts["negatives"] == facts["pictures"] == 1800 and facts["folds"] == 3
    assert facts["sources"] == ["drive"] * 3
    assert fitted.method == min(facts["log_loss"], key=facts["log_loss"].get)
    assert sum(count for *_, count in facts["after"]["bins"]) == 1800


def test_candidates_are_put_in_order_of_probability(fitted: Calibration) -> None:
    candidates = [Candidate(Place(i, "", "", 0), 0.5) for i in range(3)]
    weighed = [Evidence(score, 0.5, 0.0, None, None) for score in (0.0, 3.0, 1.0)]
    judged = fitted.judge(candidates, weighed)
    assert [each.place.place_id for each in judged] == [1, 2, 0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_kind_of_samples_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="places seen before" if share == 0.0 else "not in the map"):
        fit([made(0, 600, share)])


def test_too_few_samples_are_refused_with_their_number() -> None:
    few = made(0, 2 * MIN_EACH - 2)
    right = int(few.right.sum())
    with pytest.raises(DataError, match=f"{right} right and {len(few.rows) - right} wrong .* needs {MIN_EACH} of each"):
        fit([few])


def test_results_of_two_re_rankers_are_refused() -> None:
    with pytest.raises(DataError, match=r"differ in their re-ranker \(etr-s, magsac\)"):
        fit([made(0), dataclasses.replace(made(1), reranker="magsac")])


CURVE = Curve(2.0, np.array([0.1, 0.5, 0.9, 0.95]), np.array([9, 5, 3, 2]), np.array([4, 1, 1, 0]))


def test_thresholds_follow_from_the_curve() -> None:
    assert [CURVE.threshold(rate) for rate in (0.0, 0.49, 0.5, 1.9, 2.0, 99)] == [0.95, 0.95, 0.5, 0.5, 0.1, 0.1]
    never = dataclasses.replace(CURVE, false=np.array([4, 1, 1, 1]))
    assert never.threshold(0.4) is None


def test_what_the_curve_cannot_give_is_refused(fitted: Calibration) -> None:
    never = Curve(2.0, np.array([0.5]), np.array([3]), np.array([1]))
    with pytest.raises(ConfigError, match=r"no fewer than 0\.5 false places per km"):
        dataclasses.replace(fitted, curves={PLACES: never}).threshold(PLACES, 0.1)
    with pytest.raises(ConfigError, match=r"no false loops per km; fit it .* of loop mode"):
        dataclasses.replace(fitted, curves={PLACES: never}).threshold(LOOPS, 1.0)


def test_curves_count_pictures_and_loops(fitted: Calibration) -> None:
    places, loops = fitted.curves[PLACES], fitted.curves[LOOPS]
    assert places.km == loops.km == 6.0
    assert places.answers[0] == 1800 and loops.answers[0] == 180
    strict = fitted.threshold(LOOPS, 1.0)
    accepted = [
        false
        for part in (made(0), made(1), made(2))
        for evidence, false in part.loops or ()
        if fitted.probabilities([evidence])[0] >= strict
    ]
    assert sum(accepted) <= 6 and len(accepted) > 30


# Files


def test_a_file_reads_as_it_was_written(fitted: Calibration, tmp_path: Path) -> None:
    calibration.write(tmp_path / "new" / "c.json", fitted)
    read = calibration.read(tmp_path / "new" / "c.json")
    evidence = [row.evidence for row in made(5).rows]
    assert read.probabilities(evidence) == fitted.probabilities(evidence)
    assert read.threshold(PLACES, 1.0) == fitted.threshold(PLACES, 1.0)
    assert read.to_dict() == fitted.to_dict() and len(read.digest) == 64


def broken(values: dict[str, Any]) -> list[dict[str, Any]]:
    def changed(*path: Any, to: Any) -> dict[str, Any]:
        copy = json.loads(json.dumps(values))
        at = copy
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return copy  # type: ignore[no-any-return]

    return [
        changed("kind", to="recipe"),
        changed("format_version", to=2),
        changed("method", to="magic"),
        changed("models", to=[]),
        changed("models", 0, "features", to=["score"]),
        changed("models", 0, "features", to=["score", "cosine", "margin", "luck"]),
        changed("models", 0, "weights", to=[1.0]),
        changed("models", 0, "weights", 0, to=float("nan")),
        changed("models", 0, "scale", 0, to=0.0),
        changed("models", 0, "bias", to="much"),
        changed("models", 0, "steps", to=[[0, 1], [0.9, 0.1]]),
        changed("models", 0, "steps", to=[[0, 1], [0.5, 1.5]]),
        changed("curves", PLACES, "km", to=0),
        changed("curves", PLACES, "false", to=[]),
        changed("curves", to=None),
    ]


def test_a_file_that_makes_no_sense_is_refused_in_one_line(fitted: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for values in broken(fitted.to_dict()):
        path.write_text(json.dumps(values))
        with pytest.raises(ConfigError, match="etr calibrate") as error:
            calibration.read(path)
        assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(ConfigError):
        calibration.read(path)
    with pytest.raises(ConfigError, match="cannot read"):
        calibration.read(tmp_path / "none.json")


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["kind", "models", "curves", "method"]), x)))  # fmt: skip  # noqa: E501
def test_any_json_is_refused_by_name(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "c.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError):
        calibration.read(path)


def test_loading_by_configuration(fitted: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    config = Config().replace(**{"decision.calibration": str(path)})
    calibration.write(path, dataclasses.replace(fitted, reranker=rerank.identity("etr-s", "xfeat")))
    loaded = calibration.load(config)
    assert loaded is not None and loaded.method == fitted.method
    with pytest.raises(ConfigError, match=r"fitted to etr-s-xfeat .* on xfeat, not to none on xfeat"):
        calibration.load(config.replace(**{"rerank.name": "none"}))
    assert calibration.load(Config()) is None
