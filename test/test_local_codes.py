"""Stored local descriptors: what comes back, and what cannot be stored."""

from __future__ import annotations

import numpy as np
import pytest

from builders import unit
from etr_ros.errors import MapError
from etr_ros.local_codes import KINDS, LEAST_TRAINING_LOCALS, LocalCodes


def descriptors(count: int, dim: int = 64, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


@pytest.fixture(scope="module")
def quantized() -> LocalCodes:
    return LocalCodes("pq", 64).train(descriptors(LEAST_TRAINING_LOCALS))


@pytest.mark.parametrize(
    ("kind", "cosine", "bytes_each"), [("half", 0.9998, 128), ("int8", 0.9999, 64), ("pq", 0.9, 32)]
)
def test_descriptors_come_back_as_units(kind: str, cosine: float, bytes_each: int, quantized: LocalCodes) -> None:
    codes, original = quantized if kind == "pq" else LocalCodes(kind, 64), descriptors(500, seed=1)
    stored = codes.encode(original)
    assert stored.shape == (500, codes.values) and stored.dtype == codes.dtype
    assert stored[0].nbytes == bytes_each
    restored = codes.decode(stored)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(restored, axis=1), 1, atol=1e-3)
    assert (restored * original).sum(axis=1).min() > cosine


@pytest.mark.parametrize("kind", KINDS)
def test_no_locals_are_stored_too(kind: str, quantized: LocalCodes) -> None:
    codes = quantized if kind == "pq" else LocalCodes(kind, 64)
    assert codes.decode(codes.encode(descriptors(0))).shape == (0, 64)


def test_zeros_do_not_become_nan() -> None:
    codes = LocalCodes("int8", 8)
    assert not codes.decode(codes.encode(np.zeros((1, 8), np.float32))).any()


def test_the_same_locals_give_the_same_codebook(quantized: LocalCodes) -> None:
    again = LocalCodes("pq", 64).train(descriptors(LEAST_TRAINING_LOCALS)).codebook
    assert quantized.codebook is not None and again is not None and np.array_equal(quantized.codebook, again)


def test_too_few_locals_to_train_on() -> None:
    with pytest.raises(MapError, match=r"needs 9984 local features .* there are 100: .*memory\.descriptors=int8"):
        LocalCodes("pq", 64).train(descriptors(100))
