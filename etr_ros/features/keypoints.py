"""From score maps to keypoints and their descriptors; shared by the detectors that predict one score per pixel."""

from __future__ import annotations

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
        covered = window_max(kept.to(heatmap.dtype), radius) > 0
        rest = heatmap.masked_fill(covered, 0.0)
        kept = kept | (is_maximum(rest) & ~covered)
    return heatmap.masked_fill(~kept, 0.0)


def window_max(x: Tensor, radius: int) -> Tensor:
    """Largest value of the square window around each pixel of (B, H, W), as maxima of shifted rows, then columns.

    On a CPU this takes a fraction of the time of `max_pool2d`, which is not vectorised for a single channel.
    """
    for dim in (1, 2):
        size = x.shape[dim]
        padding = (radius, radius) if dim == 2 else (0, 0, radius, radius)
        padded = F.pad(x, padding, value=float("-inf"))
        x = padded.narrow(dim, 0, size)
        for shift in range(1, 2 * radius + 1):
            x = torch.maximum(x, padded.narrow(dim, shift, size))
    return x


def strongest(heatmap: Tensor, count: int, threshold: float, border: int) -> list[tuple[Tensor, Tensor]]:
    """The `count` best pixels above `threshold` of each (H, W) map in (B, H, W), at least `border` pixels inside.

    Returns per picture keypoints (N, 2) as x, y float32 and scores (N,), best first; ties go to the upper left pixel.
    """
    _, height, width = heatmap.shape
    found = []
    for scores_map in heatmap:
        inner = scores_map[border : height - border, border : width - border]
        ys, xs = torch.nonzero(inner > threshold, as_tuple=True)
        scores = inner[ys, xs]
        order = scores.argsort(descending=True, stable=True)[:count]
        keypoints = torch.stack([xs[order] + border, ys[order] + border], dim=1).float()
        found.append((keypoints, scores[order]))
    return found


def sample_descriptors(dense: Tensor, keypoints: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Interpolate a descriptor map (C, h, w) that spans a picture of `height` x `width` pixels at keypoints (N, 2).

    Returns (N, C), L2-normalised.
    """
    grid = (keypoints + 0.5) / keypoints.new_tensor([width, height]) * 2 - 1  # (N, 2) in (-1, 1)
    sampled = F.grid_sample(dense[None], grid[None, None].to(dense.dtype), mode=mode, align_corners=False)[0, :, 0]
    return F.normalize(sampled.t(), dim=1)
