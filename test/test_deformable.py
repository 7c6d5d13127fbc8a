"""The deformable convolution that a peer of the benchmarks needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.deformable import deform_conv2d

X = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
BIAS = torch.arange(4.0)


def test_without_offsets_it_is_a_convolution() -> None:
    found = deform_conv2d(X, torch.zeros(2, 18, 9, 12), WEIGHT, BIAS, (1, 1))
    assert torch.allclose(found, F.conv2d(X, WEIGHT, BIAS, padding=1), atol=1e-4)


def test_offsets_move_what_is_read() -> None:
    offset = torch.zeros(2, 18, 9, 12)
    offset[:, 0::2], offset[:, 1::2] = 2.0, -1.0  # down, left
    moved = F.pad(X, (1, 0, 0, 2))[:, :, 2:, :-1]
    found = deform_conv2d(X, offset, WEIGHT, None, (1, 1))[:, :, 1:, :-1]
    assert torch.allclose(found, F.conv2d(moved, WEIGHT, padding=1)[:, :, 1:, :-1], atol=1e-4)


def test_taps_are_weighed() -> None:
    mask = torch.zeros(2, 9, 9, 12)
    mask[:, 4] = 0.5
    found = deform_conv2d(X, torch.zeros(2, 18, 9, 12), WEIGHT, None, (1, 1), mask)
    assert torch.allclose(found, F.conv2d(X, WEIGHT[:, :, 1:2, 1:2]) / 2, atol=1e-4)
