"""Deformable convolution in plain torch, so that ALIKED runs where torchvision has no operators of its own."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deform_conv2d(
    input: Tensor,  # noqa: A002  # the name that its caller uses
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution (B, C, H, W) -> (B, O, H, W) with `weight` (O, C, k, k), stride 1 and `padding` (k // 2, k // 2).

    Each tap reads beside its place by `offset` (B, 2 * k * k, H, W), pairs of y and x in pixels, bilinearly and zero
    outside; `mask` (B, k * k, H, W) weighs the taps (Zhu et al., "Deformable ConvNets v2", CVPR 2019, equation 1)."""
    height, width = input.shape[2:]
    rows, columns = torch.arange(height, dtype=input.dtype), torch.arange(width, dtype=input.dtype)
    side, result = weight.shape[2], None
    for tap in range(side * side):
        y = rows[:, None] + (tap // side - padding[0]) + offset[:, 2 * tap]
        x = columns + (tap % side - padding[1]) + offset[:, 2 * tap + 1]
        grid = torch.stack([2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1], dim=-1)
        seen = F.grid_sample(input, grid, align_corners=True)
        if mask is not None:
            seen = seen * mask[:, tap : tap + 1]
        added = F.conv2d(seen, weight[:, :, tap // side, tap % side][..., None, None])
        result = added if result is None else result + added
    return result if bias is None else result + bias[:, None, None]


def stand_in_for_torchvision() -> None:
    """Give the two modules of torchvision that ALIKED reads, unless torchvision itself works."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        whole, ops, models, resnet = (
            ModuleType(f"torchvision{name}") for name in ("", ".ops", ".models", ".models.resnet")
        )
        ops.deform_conv2d = deform_conv2d  # type: ignore[attr-defined]
        resnet.conv1x1 = partial(nn.Conv2d, kernel_size=1, bias=False)  # type: ignore[attr-defined]
        resnet.conv3x3 = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)  # type: ignore[attr-defined]
        whole.ops, whole.models, models.resnet = ops, models, resnet  # type: ignore[attr-defined]
        sys.modules |= {module.__name__: module for module in (whole, ops, models, resnet)}
