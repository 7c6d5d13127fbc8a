"""Training: pairs from maps, the loop, resuming, calibration, and data that cannot be trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import SPEC, make_features, make_frame, unit
from etr_ros import metrics, rerank
from etr_ros.database import PlaceMap
from etr_ros.errors import ConfigError, DataError, WeightsError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.map_writer import MapWriter
from etr_ros.rerank import Calibration
from etr_ros.train import loop
from etr_ros.train.augment import augment
from etr_ros.train.batches import sample
from etr_ros.train.calibrating import Judgement, calibrated, fit_calibration, in_and_outside_of_the_map
from etr_ros.train.codebook import whitening
from etr_ros.train.lookalikes import HARD_POOL
from etr_ros.train.pairs import NEIGHBOURS, PairSet, Source, collect, read_overlaps
from etr_ros.train.prepare import hold_out
from etr_ros.train.run import Result, started_from
from etr_ros.train.settings import TrainConfig
from etr_ros.train.validation import Validation, judgements, validation_cases
from etr_ros.train.vary import vary
from etr_ros.types import Features

MODEL = EtrConfig(local_dim=8, max_locals=40, max_tokens=24, width=16, heads=2, ffn_width=32, blocks=1)
CONFIG = TrainConfig(steps=12, anchors=6, negatives=2, warmup_steps=2, validate_every=6, validation_queries=20)


def quiet(*_: object) -> None:
    pass


def seen_again(features: Features, seed: int) -> Features:
    """The same place a moment later: keypoints moved alike, descriptors a little changed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.02, size=features.descriptors.shape)
    return Features(
        features.keypoints * 0.98 + rng.uniform(0, 8, 2).astype(np.float32),
        features.scores,
        unit(features.descriptors + noise),
        features.scales,
        features.image_size,
        unit(features.global_descriptor + rng.normal(scale=0.1, size=features.global_descriptor.shape)),
    )


def write_source(path: Path, seed: int, places: int = 6) -> Source:
    """An environment that shows each of its places in two frames, one after the other."""
    with MapWriter(path, SPEC, "exact", {}, thumbnail_px=0) as writer:
        for place in range(places):
            features = make_features(1000 * seed + place)
            frame = make_frame(20 * place)
            writer.add(frame, features)
            writer.add(dataclasses.replace(frame, name=frame.name + "#1"), seen_again(features, place + 7))
            writer.add(make_frame(20 * place + 1), seen_again(features, place))
        writer.commit()
    return Source(PlaceMap(path), None)


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    return collect([write_source(tmp_path / "a", 1), write_source(tmp_path / "b", 2)], 40, quiet)


def test_pairs_are_found_by_verification(pairs: PairSet) -> None:
    assert len(pairs.copies) == 24 and len(pairs.locals) == 36
    for p in range(24):
        assert pairs.positives[p].tolist() == [p ^ 1]  # frames 0 and 1, 2 and 3, ... show one place
        others, own = (range(12, 24), range(12)) if p < 12 else (range(12), range(12, 24))
        alike = set(pairs.lookalikes[p].tolist())
        assert set(others) <= alike
        assert alike - set(others) <= {q for q in own if abs(q - p) > NEIGHBOURS}  # verified to be other places
    assert [len(rows) for rows in pairs.copies[:4]] == [2, 1, 2, 1]


def test_a_judge_tells_which_pictures_verify(tmp_path: Path) -> None:
    a, judge = write_source(tmp_path / "a", 1), write_source(tmp_path / "judge", 3, places=1)
    with MapWriter(tmp_path / "coarse", SPEC, "exact", {}, thumbnail_px=0) as writer:
        for number, place in enumerate(a.place_map.places):  # locals of which no two pictures match
            writer.add(make_frame(int(place.name[:4])), make_features(5000 + number))
        writer.commit()
    coarse = Source(PlaceMap(tmp_path / "coarse"), None)
    other = write_source(tmp_path / "b", 2)
    assert not any(len(rows) for rows in collect([coarse, other], 40, quiet).positives[:12])
    judged = collect([dataclasses.replace(coarse, judge=a.place_map), other], 40, quiet)
    assert all(q // 2 == p // 2 for p in range(12) for q in judged.positives[p]) and len(judged.positives[0])
    assert judged.names[:2] == collect([a, other], 40, quiet).names[:2]
    few = collect([dataclasses.replace(coarse, judge=judge.place_map), other], 40, quiet)
    assert len(few.positives[0]) and not len(few.positives[2])  # a picture that the judge lacks is judged by its own


def test_places_that_geometry_cannot_tell_apart_are_no_negatives(tmp_path: Path) -> None:
    a, twin = write_source(tmp_path / "a", 1), write_source(tmp_path / "b", 1)  # two floors that look the same
    for drop in (False, True):
        found = collect([a, twin, write_source(tmp_path / f"c{drop}", 2)], 40, quiet, drop_aliased=drop)
        assert [p + 12 in found.lookalikes[p] for p in range(12)] == [not drop] * 12
        assert all(set(range(24, 36)) & set(found.lookalikes[p].tolist()) for p in range(12))


def test_known_overlap_decides_where_it_is_given(tmp_path: Path) -> None:
    listed = "file_a,file_b,overlap\n0000.jpg,0020.jpg,0.4\n0000.jpg,0040.jpg,0.1\n"
    (tmp_path / "pairs.csv").write_text(listed)
    a = write_source(tmp_path / "a", 1)
    known = Source(a.place_map, read_overlaps(tmp_path / "pairs.csv"))
    found = collect([known, write_source(tmp_path / "b", 2)], 40, quiet)
    names = list(dict.fromkeys(place.name.split("#")[0] for place in a.place_map.places))
    at, sure, doubtful = (names.index(f"{number}.jpg") for number in ("0000", "0020", "0040"))
    assert found.positives[at].tolist() == [sure] and found.positive_labels[at] == pytest.approx([0.8])
    assert found.doubtful[at].tolist() == [doubtful] and found.doubtful_labels[at] == pytest.approx([0.2])
    assert found.positives[doubtful].tolist() == [] and found.doubtful[doubtful].tolist() == [at]
    unlisted = set(range(24)) - {at, sure, doubtful}
    assert set(found.lookalikes[at]) == unlisted  # all others, also of the same environment


def test_one_environment_without_poses_has_no_negatives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than one environment"):
        collect([write_source(tmp_path / "a", 1, places=4)], 40, quiet)  # all are neighbours of each other


@pytest.mark.parametrize("rows", ["a,b\n1,2\n", "a,b,c\n", "", "file_a,file_b,overlap\n0.jpg,1.jpg\n"])
def test_a_wrong_overlap_file_is_named(tmp_path: Path, rows: str) -> None:
    (tmp_path / "pairs.csv").write_text(rows)
    with pytest.raises(DataError, match="file_a,file_b,overlap"):
        read_overlaps(tmp_path / "pairs.csv")


def test_samples_hold_one_positive_a_group(pairs: PairSet) -> None:
    batch = sample(pairs, CONFIG, 3, np.ones((24, HARD_POOL), np.float32))
    positive = batch.labels.view(6, 3) >= 0.5
    assert positive.tolist() == [[True, False, False]] * 6
    original = {int(row): p for p, rows in enumerate(pairs.copies) for row in rows}
    for a, b, label in zip(batch.rows_a.tolist(), batch.rows_b.tolist(), batch.labels.tolist(), strict=True):
        assert (original[b] in pairs.positives[original[a]]) == (label >= 0.5)


def test_what_was_taken_for_the_same_place_is_drawn_more_often(pairs: PairSet) -> None:
    difficulty = np.zeros((24, HARD_POOL), np.float32)
    difficulty[:, 4] = 1.0
    config = dataclasses.replace(CONFIG, elsewhere_share=0.0)
    slots = np.concatenate([sample(pairs, config, step, difficulty).slots for step in range(20)])
    drawn = slots[slots >= 0]
    assert (drawn == 4).mean() > 0.5  # of 12 look-alikes each
    batch = sample(pairs, config, 0, difficulty)
    batch.note_difficulty(difficulty, torch.full((18,), 8.0))
    assert (difficulty[batch.anchors[batch.slots >= 0], batch.slots[batch.slots >= 0]] > 0.99).all()


def test_varied_pairs_are_the_same_places_seen_otherwise(pairs: PairSet) -> None:
    rows = torch.arange(24)
    a, b = pairs.locals.select(rows), pairs.locals.select(rows.flip(0))
    a, b = (dataclasses.replace(x, descriptors=x.descriptors.float()) for x in (a, b))
    same = vary(a, b, dataclasses.replace(CONFIG, varied_share=0.0), np.random.default_rng(0))
    for one, other in zip((a, b), same, strict=True):
        assert torch.equal(one.xy, other.xy) and torch.equal(one.mask, other.mask)
        assert torch.equal(one.descriptors, other.descriptors)
    config = dataclasses.replace(CONFIG, varied_share=1.0)
    varied, again = (vary(a, b, config, np.random.default_rng(1)) for _ in range(2))
    assert all(torch.equal(x.xy, y.xy) and torch.equal(x.mask, y.mask) for x, y in zip(varied, again, strict=True))
    for one, other in zip((a, b), varied, strict=True):
        kept = other.mask.sum(dim=1) / one.mask.sum(dim=1)
        assert (other.mask <= one.mask).all() and (kept > 0.2).all() and (kept < 1).any()
        cosines = (other.descriptors * torch.nn.functional.normalize(one.descriptors, dim=2)).sum(dim=2)[other.mask]
        assert (cosines > 0.8).all() and (cosines < 0.9999).any()
    signs = [
        torch.sign(((y.xy - y.xy.mean(1, True)) * (x.xy - x.xy.mean(1, True)))[..., 0].sum(1))
        for x, y in zip((a, b), varied, strict=True)
    ]
    assert torch.equal(*signs) and len(signs[0].unique()) == 2  # both pictures of a pair are mirrored, or neither


def test_training_learns(pairs: PairSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=150, validate_every=50, average_decay=0.9)
    _, report = loop.train(MODEL, pairs, pairs, config, tmp_path / "checkpoint.pt", quiet)
    assert report.best.loss < 0.3
    assert report.best.recall_at_1_etr >= 0.95


def test_an_interrupted_run_ends_as_an_uninterrupted_one(pairs: PairSet, tmp_path: Path) -> None:
    whole, _ = loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "whole.pt", quiet)

    class StoppedError(Exception):
        pass

    def stop(step: int, *_: object) -> None:
        if step == 9:  # after the checkpoint of step 6
            raise StoppedError

    with pytest.raises(StoppedError):
        loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "part.pt", stop)
    resumed, report = loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "part.pt", quiet)
    assert [entry["step"] for entry in report.history] == [6, 12]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused(pairs: PairSet, tmp_path: Path) -> None:
    loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "checkpoint.pt", quiet)
    with pytest.raises(WeightsError, match="other settings"):
        loop.train(MODEL, pairs, pairs, dataclasses.replace(CONFIG, seed=5), tmp_path / "checkpoint.pt", quiet)
    (tmp_path / "checkpoint.pt").write_bytes(b"noise")
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "checkpoint.pt", quiet)


def test_a_loss_that_is_not_finite_stops_the_run(pairs: PairSet, tmp_path: Path) -> None:
    start = {name: torch.full_like(tensor, float("nan")) for name, tensor in ETR(MODEL).state_dict().items()}
    with pytest.raises(DataError, match="not finite at step 0"):
        loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "checkpoint.pt", quiet, start)


def test_a_run_that_no_longer_gets_better_ends_early(pairs: PairSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=60, validate_every=2, patience=2, learning_rate=0.0)
    _, report = loop.train(MODEL, pairs, pairs, config, tmp_path / "checkpoint.pt", quiet)
    assert report.best_step == 2 and report.history[-1]["step"] == 6


def test_held_out_sequences_are_read_by_one_side_only(tmp_path: Path) -> None:
    with MapWriter(tmp_path / "map", SPEC, "exact", {}, thumbnail_px=0) as writer:
        for clip in "abcdef":
            for number in range(4):
                frame = dataclasses.replace(make_frame(number), name=f"{clip}_{number:02d}.jpg")
                writer.add(frame, make_features(number))
                writer.add(dataclasses.replace(frame, name=frame.name + "#1"), make_features(number + 50))
        writer.commit()
    train, held = hold_out([Source(PlaceMap(tmp_path / "map"), None)], seed=0)
    kept, out = ({place.name[0] for place in source.places} for (source,) in (train, held))
    assert kept | out == set("abcdef") and not kept & out and len(out) == 1
    assert len(train[0].places) == 40 and len(held[0].places) == 8  # copies go with their pictures


def test_too_few_sequences_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 sequences, too few .* --validation"):
        hold_out([write_source(tmp_path / "a", 1), write_source(tmp_path / "b", 2)], seed=0)


@pytest.mark.parametrize(
    ("after", "before", "better"),
    [
        ((0.9, 0.9), (0.8, 0.9), True),
        ((0.9, 0.7), (0.9, 0.9), False),
        ((0.5, 0.9), None, False),  # retrieval alone finds 0.6
        ((0.7, 0.9), None, True),
    ],
)
def test_weights_are_only_called_better_when_they_are(
    after: tuple[float, float], before: tuple[float, float] | None, better: bool
) -> None:
    def measured(values: tuple[float, float]) -> Validation:
        return Validation(50, 0.6, values[0], values[1], 0.2, 0.3, Calibration())

    report = loop.Report(1, measured(after), [])
    result = Result(Path("x"), report, measured(after), before and measured(before), "test")
    assert result.is_better is better


def test_weights_start_with_other_locals_where_they_left_off(tmp_path: Path) -> None:
    model = ETR(MODEL)
    rerank.save(tmp_path / "etr.safetensors", model, Calibration(), {})
    config, tensors = started_from(tmp_path / "etr.safetensors", EtrConfig("superpoint", 256))
    assert (config.extractor, config.local_dim, config.width) == ("superpoint", 256, MODEL.width)
    other = ETR(config)
    other.load_state_dict(tensors)
    a, b = rerank.collate([make_features(1)], 40), rerank.collate([seen_again(make_features(1), 2)], 40)
    longer = [dataclasses.replace(x, descriptors=F.pad(x.descriptors, (0, 248))) for x in (a, b)]
    assert torch.allclose(model(a, b), other(*longer), atol=1e-5)


def test_a_global_descriptor_that_is_read_from_now_on_says_nothing_yet(tmp_path: Path) -> None:
    rerank.save(tmp_path / "etr.safetensors", ETR(MODEL), Calibration(), {})
    wanted = EtrConfig("delg-lite", 8, 16, 2)
    config, tensors = started_from(tmp_path / "etr.safetensors", wanted)
    assert (config.global_dim, config.scales, config.max_locals) == (16, 2, wanted.max_locals)
    model = ETR(config)
    model.load_state_dict(tensors)
    a, b = rerank.collate([make_features(1)], 40), rerank.collate([seen_again(make_features(1), 2)], 40)
    elsewhere = dataclasses.replace(b, global_descriptor=b.global_descriptor.flip(1))  # type: ignore[union-attr]
    read, other = model.tokens(a, b), model.tokens(a, elsewhere)
    assert torch.equal(read.values[:, 0], other.values[:, 0])  # the global token of either side


def test_weights_that_read_the_descriptors_themselves_need_the_same_locals(tmp_path: Path) -> None:
    model = ETR(dataclasses.replace(MODEL, tokens="descriptor"))
    rerank.save(tmp_path / "etr.safetensors", model, Calibration(), {})
    with pytest.raises(ConfigError, match=r"trained on xfeat features: set extractor\.name"):
        started_from(tmp_path / "etr.safetensors", EtrConfig("superpoint", 256))


@settings(max_examples=20, deadline=None)
@given(slope=st.floats(0.3, 3), offset=st.floats(-2, 2))
def test_calibration_finds_the_true_curve(slope: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-5, 5, 20000).astype(np.float32)
    labels = (rng.random(20000) < 1 / (1 + np.exp(-(slope * scores + offset)))).astype(np.float32)
    fitted = fit_calibration(scores, labels)
    assert fitted.slope == pytest.approx(slope, rel=0.15, abs=0.05)
    assert fitted.offset == pytest.approx(offset, abs=0.25)


def test_calibration_finds_out_what_geometry_is_worth(pairs: PairSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = ETR(MODEL)  # its order is chance, geometry knows better
    found = calibrated(judgements(untrained, pairs, validation_cases(pairs, CONFIG)))
    assert found.per_inlier > 0
    model, _ = loop.train(MODEL, pairs, pairs, CONFIG, tmp_path / "checkpoint.pt", quiet)
    trained = calibrated(judgements(model, pairs, validation_cases(pairs, CONFIG)))
    assert np.isfinite([trained.slope, trained.offset, trained.per_inlier]).all() and trained.slope > 0


def test_a_query_is_judged_in_a_map_with_its_place_and_in_one_without() -> None:
    query, other = make_features(0), make_features(1)
    candidates = [lambda: other, lambda: seen_again(query, 0), lambda: other, lambda: other]
    scores, right = np.array([1, 5, 2, 3], np.float32), np.array([False, True, False, False])
    inside, outside = in_and_outside_of_the_map(query, candidates, scores, right, count=2)
    assert inside.scores.tolist() == [1, 5] and inside.right.tolist() == [False, True]
    assert outside.scores.tolist() == [1, 2] and not outside.right.any()
    assert inside.inliers[1] > 2 * outside.inliers.max()
    only_right = in_and_outside_of_the_map(query, candidates[1:2], scores[1:2], right[1:2], count=2)
    assert len(list(only_right)) == 1


def test_the_probability_of_the_best_is_right_where_half_of_the_queries_have_no_place() -> None:
    rng = np.random.default_rng(0)

    def asked(has_place: bool) -> Judgement:
        right = np.arange(20) < has_place
        return Judgement(np.float32(rng.normal(size=20) + 3 * right), np.zeros(20, np.int64), right)

    found = calibrated([asked(has_place) for _ in range(500) for has_place in (True, False)])
    unseen = [asked(has_place) for _ in range(500) for has_place in (True, False)]
    told = found.probabilities(np.array([each.scores.max() for each in unseen]))
    true = np.array([each.right[each.scores.argmax()] for each in unseen])
    error = metrics.reliability(told.astype(float), true).calibration_error
    assert error is not None and error < 0.08


def test_calibration_of_separable_scores_is_finite() -> None:
    fitted = fit_calibration(np.array([-3, -2, 2, 3], np.float32), np.array([0, 0, 1, 1], np.float32))
    assert np.isfinite([fitted.slope, fitted.offset]).all() and fitted.slope > 0


def test_learning_rate_warms_up_and_decays() -> None:
    config = TrainConfig(steps=1000, warmup_steps=100)
    factors = [loop.learning_rate_factor(step, config) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)


def test_augmentation_depends_on_the_generator_only() -> None:
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    first, again, other = (augment(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == image.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_full_whitening_gives_unit_covariance() -> None:
    x = (np.random.default_rng(0).normal(size=(500, 6)) * [1, 2, 3, 4, 5, 6]).astype(np.float32)
    mean, projection = whitening(x, dim=4, power=0.5)
    np.testing.assert_allclose(np.cov(projection @ (x - mean).T), np.eye(4), atol=0.02)
