"""Out of memory on a GPU, played by a device that has room for a few items."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from builders import make_features
from etr_ros.device_memory import in_batches_that_fit
from etr_ros.etr import ETR, EtrConfig
from etr_ros.rerank import Calibration, EtrScorer
from etr_ros.tokens import Locals


class Device:
    """Doubles numbers, `room` at a time until it is left for the CPU."""

    def __init__(self, room: int) -> None:
        self.room, self.batches = room, list[int]()

    def work(self, items: Sequence[int]) -> list[int]:
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(items))
        return [2 * item for item in items]

    def to_cpu(self) -> None:
        self.room = 1_000_000


@pytest.mark.parametrize(("room", "batches"), [(10, [7]), (5, [3, 4]), (2, [1, 2, 2, 2]), (1, [1] * 7)])
def test_batches_are_halved_until_they_fit(room: int, batches: list[int]) -> None:
    device = Device(room)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_batches_that_fit(device.work, range(7), device.to_cpu, "this") == [0, 2, 4, 6, 8, 10, 12]
    assert device.batches == batches


def test_what_does_not_fit_at_all_goes_on_on_the_cpu_and_says_so_once() -> None:
    device = Device(0)
    with pytest.warns(RuntimeWarning, match="this goes on on the CPU") as told:
        doubled = in_batches_that_fit(device.work, range(4), device.to_cpu, "this")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_batches_that_fit(device.work, range(4), device.to_cpu, "this") == doubled == [0, 2, 4, 6]


def test_other_errors_are_not_hidden() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        in_batches_that_fit(work, [1, 2], lambda: None, "this")


def test_scores_are_those_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = EtrConfig(local_dim=8, max_locals=32, max_tokens=16)
    scorer = EtrScorer(ETR(config), Calibration(), torch.device("cpu"))
    query, candidates = make_features(0), [make_features(i) for i in range(1, 8)]
    whole = scorer(query, candidates).values
    forward = ETR.forward

    def limited(self: ETR, a: Locals, b: Locals) -> torch.Tensor:
        if len(b) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, a, b)

    monkeypatch.setattr(ETR, "forward", limited)
    np.testing.assert_allclose(scorer(query, candidates).values, whole, atol=1e-5)
