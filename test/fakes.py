"""Stand-ins for the networks: real maps and the real pipeline, with features that a test can foresee.

A picture is a board of 4 x 4 coloured fields. The global descriptor sees only its upper half, the re-ranker all of it:
two boards with equal upper halves are confused by retrieval and told apart by re-ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from etr_ros import rerank
from etr_ros.config import Config
from etr_ros.database import FeatureSpec
from etr_ros.errors import ImageError
from etr_ros.features import Extractor
from etr_ros.rerank import Calibration, Scores
from etr_ros.types import Features, FloatArray

FIELD_PX = 16
BOARD_DIM = 4 * 4 * 3


def board(upper: int, lower: int, noise: int = 0) -> NDArray[np.uint8]:
    """A (64, 64, 3) picture; equal numbers give equal halves. `noise` numbers slightly different views of it."""
    halves = [
        np.random.default_rng(100 * kind + seed).integers(20, 235, (2, 4, 3)) for kind, seed in ((1, upper), (2, lower))
    ]
    fields = np.concatenate(halves)
    if noise:
        fields = fields + np.random.default_rng(noise).integers(-8, 9, fields.shape)
    return np.kron(fields, np.ones((FIELD_PX, FIELD_PX, 1))).astype(np.uint8)


def save_boards(folder: Path, boards: Mapping[str, tuple[int, ...]]) -> Path:
    """Write `boards` (file name -> arguments of `board`) as pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in boards.items():
        cv2.imwrite(str(folder / name), board(*numbers))
    return folder


class FakeExtractor:
    """Reads the fields of a board. A picture of one colour has no features."""

    def __init__(self, config: Config) -> None:
        self.device = torch.device("cpu")
        self.spec = FeatureSpec(
            config.extractor.name,
            "fake",
            config.extractor.max_keypoints,
            config.extractor.max_side_px,
            BOARD_DIM,
            BOARD_DIM // 2,
            "fake",
        )

    def __call__(self, image: NDArray[np.uint8]) -> Features:
        if image.std() == 0:
            raise ImageError("the picture shows too little")
        fields = cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32) - 128
        return Features(
            keypoints=np.zeros((1, 2), np.float32),
            scores=np.ones(1, np.float32),
            descriptors=unit(fields.reshape(1, -1)),
            scales=np.zeros(1, np.uint8),
            image_size=(image.shape[1], image.shape[0]),
            global_descriptor=unit(fields[:2].reshape(-1)),
        )


def unit(x: NDArray[np.float32]) -> FloatArray:
    return np.asarray(x / np.linalg.norm(x), np.float32)


def fake_scorer(query: Features, candidates: Sequence[Features]) -> Scores:
    """High for two views of one board, low for boards that differ."""
    cosines = np.array([(query.descriptors[0] @ candidate.descriptors[0]) for candidate in candidates], np.float32)
    values = np.asarray(100 * (cosines - 0.95), np.float32)
    return Scores(values, Calibration().probabilities(values))


@pytest.fixture
def fake_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps and queries use `FakeExtractor`, and `fake_scorer` unless the re-ranker is "none" or "magsac"."""
    real_load = rerank.load
    monkeypatch.setattr(Extractor, "load", FakeExtractor)

    def load(name: str, *arguments: object) -> rerank.Scorer | None:
        return fake_scorer if name not in ("none", "magsac") else real_load(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rerank, "load", load)
