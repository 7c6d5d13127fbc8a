"""From score maps to keypoints and their descriptors; shared by the detectors that predict one score per pixel."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def cells_to_heatmap(logits: Tensor, cell: int = 8) -> Tensor:
    """Keypoint probabilities per pixel from per-cell logits (SuperPoint, section 3.2).

    (B, cell*cell + 1, h, w) -> (B, h*cell, w*cell); the last channel means "no keypoint in this cell".
    """
    probabilities = logits.softmax(dim=1)[:, :-1]  # (B, cell*cell, h, w)
    return F.pixel_shuffle(probabilities, cell).squeeze(1)


def suppress_neighbours(heatmap: Tensor, radius: int) -> Tensor:
    """Keep local maxima of (B, H, W): zero every pixel that is not the largest within `radius` pixels (square window).

    Maxima that only lost to a suppressed pixel are recovered in two further passes.
    """

    def is_maximum(x: Tensor) -> Tensor:
        return x == window_max(x, radius)

    kept = is_maximum(heatmap)
    for _ in range(2):
        covered = window_max(kept.view(torch.uint8), radius).view(torch.bool)
        rest = heatmap.masked_fill(covered, 0.0)
        kept = kept | (is_maximum(rest) & ~covered)
    return heatmap.masked_fill(~kept, 0.0)


def window_max(x: Tensor, radius: int) -> Tensor:
    """Largest value of the square window around each pixel of (B, H, W), float32 or uint8.

    On a CPU OpenCV's dilation takes a tenth of the time of `max_pool2d`, which is not vectorised for a single channel.
    """
    size = 2 * radius + 1
    if x.is_cuda or x.dtype not in (torch.float32, torch.uint8):
        return F.max_pool2d(x.float()[:, None], size, stride=1, padding=radius)[:, 0].to(x.dtype)
    window = np.ones((size, size), np.uint8)
    return torch.from_numpy(np.stack([cv2.dilate(each, window) for each in x.numpy()]))


def strongest(
    heatmap: Tensor, count: int, threshold: float, border: int, weight: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """The `count` best pixels above `threshold` of each (H, W) map in (B, H, W), at least `border` pixels inside.

    A `weight` (B, 1, h, w) that spans the picture is interpolated at the pixels above the threshold and multiplies
    their scores. Returns per picture keypoints (N, 2) as x, y float32 and scores (N,), best first; ties go to the upper
    left pixel.
    """
    _, height, width = heatmap.shape
    found = []
    for i, scores_map in enumerate(heatmap):
        inner = scores_map[border : height - border, border : width - border]
        ys, xs = torch.nonzero(inner > threshold, as_tuple=True)
        scores = inner[ys, xs]
        keypoints = torch.stack([xs + border, ys + border], dim=1).float()
        if weight is not None:
            scores = scores * _sample(weight[i], keypoints, height, width, "bilinear")[0]
        order = scores.argsort(descending=True, stable=True)[:count]
        found.append((keypoints[order], scores[order]))
    return found


def sample_descriptors(dense: Tensor, keypoints: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Interpolate a descriptor map (C, h, w) that spans a picture of `height` x `width` pixels at keypoints (N, 2).

    Returns (N, C), L2-normalised.
    """
    return F.normalize(_sample(dense, keypoints, height, width, mode, "zeros").t(), dim=1)


def _sample(x: Tensor, keypoints: Tensor, height: int, width: int, mode: str, outside: str = "border") -> Tensor:
    """A map (C, h, w) at keypoints (N, 2) -> (C, N)."""
    grid = (keypoints + 0.5) / keypoints.new_tensor([width, height]) * 2 - 1  # (N, 2) in (-1, 1)
    sampled = F.grid_sample(x[None], grid[None, None].to(x.dtype), mode, outside, align_corners=False)
    return sampled[0, :, 0]
