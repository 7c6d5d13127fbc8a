"""The weights that ship: whole, small, described, and able to do their work."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from etr_ros import rerank, weights
from etr_ros.config import Config
from etr_ros.features import Extractor
from etr_ros.train.augment import augment
from etr_ros.types import Features

FILES = sorted(weights.BUNDLED_DIR.glob("*.safetensors"))
ENTRIES = {entry.file: entry for entry in weights.REGISTRY}


def test_all_together_are_small() -> None:
    assert FILES
    assert sum(file.stat().st_size for file in FILES) < 12_000_000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_is_registered_whole_and_has_a_model_card(file) -> None:  # type: ignore[no-untyped-def]
    entry = ENTRIES[file.name]
    assert entry.sha256 and entry.licence
    assert weights.verify(entry.name) == file
    cards = [card for card in weights.BUNDLED_DIR.glob("*.md") if entry.name in card.read_text(encoding="utf-8")]
    assert cards, f"no model card describes {entry.name}"


def scene(seed: int) -> NDArray[np.uint8]:
    """A made-up wall of posters."""
    rng = np.random.default_rng(seed)
    image = np.full((240, 320, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(90):
        corner, size = rng.integers(-20, 300, 2), rng.integers(6, 70, 2)
        cv2.rectangle(image, corner, corner + size, rng.integers(0, 256, 3).tolist(), -1)
    return image


def queries_and_places(features: str) -> tuple[list[Features], list[Features]]:
    """Four scenes under another light, and them and four others as they were."""
    extractor = Extractor.load(Config().replace(**{"extractor.name": features}))
    later = [augment(scene(seed), np.random.default_rng(seed)) for seed in range(4)]
    return [extractor(image) for image in later], [extractor(scene(seed)) for seed in range(8)]


@pytest.mark.parametrize("name", ["etr-s", "etr-s-small"])
def test_etr_finds_the_same_scene_under_another_light(name: str) -> None:
    scorer = rerank.load(name, "xfeat", torch.device("cpu"))
    assert isinstance(scorer, rerank.EtrScorer)
    queries, places = queries_and_places("xfeat")
    told = []
    for row, query in enumerate(queries):
        scores = scorer(query, places)
        assert int(scores.values.argmax()) == row
        confirmed = scorer.confirm(query, places, scores.values).probabilities
        assert confirmed is not None
        assert np.delete(confirmed, row).max() < 0.1
        told.append(confirmed[row])
    assert min(told) > 0.8 and np.median(told) > Config().decision.min_probability


def test_etr_puts_the_same_scene_first_with_superpoint() -> None:
    queries, places = queries_and_places("superpoint")
    for name in ("etr-s", "etr-s-small"):
        scorer = rerank.load(name, "superpoint", torch.device("cpu"))
        assert isinstance(scorer, rerank.EtrScorer)
        for row, query in enumerate(queries):
            values = scorer(query, places).values
            confirmed = scorer.confirm(query, places, values).values
            assert int(values.argmax()) == int(confirmed.argmax()) == row


def test_etr_d_puts_a_scene_first_that_moved_a_little_in_dimmer_light() -> None:
    scorer = rerank.load("etr-d", "delg-lite", torch.device("cpu"))
    assert isinstance(scorer, rerank.EtrScorer)
    extractor = Extractor.load(Config().replace(**{"extractor.name": "delg-lite"}))
    places = [extractor(scene(seed)) for seed in range(8)]
    for seed in range(4):
        moved = np.roll(scene(seed), (4, 10), axis=(0, 1))
        scores = scorer(extractor((0.8 * moved).astype(np.uint8)), places)
        assert int(scores.values.argmax()) == seed
