"""What the gates learn from."""

from __future__ import annotations

import numpy as np
import torch

from etr_ros.tokens import Locals, correlate
from etr_ros.train.teacher import gate_targets

COUNT = 60


def seen_twice(wrong: int, seed: int = 0) -> tuple[Locals, Locals]:
    """Points of a scene in two pictures whose camera moved; the first `wrong` matches lead anywhere."""
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-2, 2, (COUNT, 2)), rng.uniform(3, 9, COUNT)])
    xy = points[:, :2] / points[:, 2:]
    moved = points + np.array([0.6, 0.1, -0.4])
    xy_moved = moved[:, :2] / moved[:, 2:]
    xy_moved[:wrong] = rng.uniform(-0.8, 0.8, (wrong, 2))
    descriptors = np.linalg.qr(rng.normal(size=(64, COUNT)))[0].T  # each like itself only
    return tuple(  # type: ignore[return-value]
        Locals(
            torch.from_numpy(descriptors).float()[None],
            torch.from_numpy(each).float()[None],
            torch.zeros(1, COUNT, dtype=torch.long),
            torch.ones(1, COUNT, dtype=torch.bool),
        )
        for each in (xy, xy_moved)
    )


def targets_of(a: Locals, b: Locals, label: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of_a, of_b = correlate(a, b, COUNT)
    targets, weights = gate_targets(a, b, of_a, of_b, torch.tensor([label]))
    return targets.numpy(), weights.numpy(), torch.cat([of_a.rows, of_b.rows]).numpy()


def test_matches_that_agree_with_the_motion_are_right() -> None:
    targets, weights, rows = targets_of(*seen_twice(wrong=15), 1.0)
    assert (weights == 1).all()
    for side in range(2):
        right = targets[side] > 0
        assert right[rows[side] >= 15].mean() > 0.95
        assert right[rows[side] < 15].mean() < 0.3


def test_no_match_is_right_in_another_place() -> None:
    targets, weights, _ = targets_of(*seen_twice(wrong=0), 0.0)
    assert not targets.any() and (weights == 1).all()


def test_a_pair_with_few_matches_weighs_nothing() -> None:
    a, b = (Locals(x.descriptors[:, :10], x.xy[:, :10], x.scales[:, :10], x.mask[:, :10]) for x in seen_twice(wrong=0))
    _, weights, _ = targets_of(a, b, 1.0)
    assert not weights.any()
