"""Pairs of pictures seen otherwise, changed where ETR reads them: cheaper than new pictures, and new at every step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros.tokens import Locals
from etr_ros.train.settings import TrainConfig

MIN_KEPT = 0.5  # of the locals
ZOOM, SHIFT = 1.25, 0.1
NOISE = 0.3  # length of what is added to a descriptor of length 1, at most


def vary(a: Locals, b: Locals, config: TrainConfig, rng: np.random.Generator) -> tuple[Locals, Locals]:
    """B pairs of which `config.varied_share` are changed: both pictures mirrored or not, each of them zoomed and
    shifted, a part of its locals not found, and its descriptors noisy."""
    count = len(a)
    is_varied = torch.from_numpy(rng.random(count) < config.varied_share)
    mirrored = torch.from_numpy(rng.random(count) < 0.5) & is_varied
    return _one(a, is_varied, mirrored, rng), _one(b, is_varied, mirrored, rng)


def _one(x: Locals, is_varied: Tensor, mirrored: Tensor, rng: np.random.Generator) -> Locals:
    count, length = x.mask.shape
    zoom, shift = rng.uniform(-1, 1, (count, 1, 1)), rng.uniform(-SHIFT, SHIFT, (count, 1, 2))
    xy = x.xy * _single(ZOOM**zoom) + _single(shift)
    xy = torch.where(mirrored[:, None, None], xy * xy.new_tensor([-1.0, 1.0]), xy)
    kept = _single(rng.random((count, length))) < _single(rng.uniform(MIN_KEPT, 1.0, (count, 1)))
    sigma = rng.uniform(0, NOISE, (count, 1, 1)) / np.sqrt(x.descriptors.shape[2])
    noise = _single(rng.standard_normal(x.descriptors.shape, np.float32)) * _single(sigma)
    return replace(
        x,
        descriptors=torch.where(is_varied[:, None, None], F.normalize(x.descriptors + noise, dim=2), x.descriptors),
        xy=torch.where(is_varied[:, None, None], xy, x.xy),
        mask=x.mask & (kept | ~is_varied[:, None]),
    )


def _single(values: NDArray[np.float64] | NDArray[np.float32] | NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
