"""From score maps to keypoints and their descriptors; shared by the detectors that predict one score per pixel."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def cells_to_heatmap(logits: Tensor, cell: int = 8) -> Tensor:
    """Keypoint probabilities per pixel from per-cell logits (SuperPoint, section 3.2).

    (B, cell*cell + 1, h, w) -> (B, h*cell, w*cell); the last channel means "no keypoint in this cell".
    """
    count, _, rows, columns = logits.shape
    probabilities = logits.permute(0, 2, 3, 1).contiguous().softmax(dim=3)[..., :-1]  # (B, h, w, cell*cell)
    pixels = probabilities.reshape(count, rows, columns, cell, cell).transpose(2, 3)
    return pixels.reshape(count, rows * cell, columns * cell)


def peaks(heatmap: Tensor, radius: int, threshold: float) -> Tensor:
    """Local maxima above `threshold` of (B, H, W) float32: bool (B, H, W), the largest within `radius` pixels (square).

    Maxima that only lost to a suppressed pixel are recovered in two further passes. What is below the threshold is
    never larger than what is above, so that it has no say.
    """
    if heatmap.is_cuda:
        return _peaks_on_gpu(heatmap, radius, threshold)
    return torch.from_numpy(np.stack([_peaks_of_picture(each, radius, threshold) for each in heatmap.numpy()]))


def _peaks_of_picture(scores: NDArray[np.float32], radius: int, threshold: float) -> NDArray[np.bool_]:
    """With OpenCV's dilation, which takes a tenth of the time of `max_pool2d` for a single channel."""
    window = np.ones((2 * radius + 1,) * 2, np.uint8)
    left = (scores > threshold).view(np.uint8)
    found = np.zeros_like(left)
    for _ in range(3):
        rest = cv2.copyTo(scores, left)
        found |= (rest == cv2.dilate(rest, window)).view(np.uint8) & left
        left &= ~np.asarray(cv2.dilate(found, window), np.uint8)
    return found.view(np.bool_)


def _peaks_on_gpu(heatmap: Tensor, radius: int, threshold: float) -> Tensor:
    left = heatmap > threshold
    found = torch.zeros_like(left)
    for _ in range(3):
        rest = heatmap.masked_fill(~left, 0.0)
        found |= (rest == _window_max(rest, radius)) & left
        left &= _window_max(found.float(), radius) == 0
    return found


def _window_max(x: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(x[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


def strongest(
    heatmap: Tensor, radius: int, count: int, threshold: float, border: int, weight: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """The `count` best `peaks` of each (H, W) map in (B, H, W), at least `border` pixels inside.

    A `weight` (B, 1, h, w) that spans the picture is interpolated at the peaks and multiplies their scores. Returns per
    picture keypoints (N, 2) as x, y float32 and scores (N,), best first; ties go to the upper left pixel.
    """
    _, height, width = heatmap.shape
    found = []
    for i, is_peak in enumerate(peaks(heatmap, radius, threshold)):
        rows = flat_rows(is_peak)
        xs, ys = rows % width, rows // width
        if border:
            inside = (xs >= border) & (xs < width - border) & (ys >= border) & (ys < height - border)
            rows, xs, ys = rows[inside], xs[inside], ys[inside]
        scores = heatmap[i].flatten()[rows]
        keypoints = torch.stack([xs, ys], dim=1).float()
        if weight is not None:
            scores = scores * _sample(weight[i], keypoints, height, width, "bilinear")[0]
        order = scores.argsort(descending=True, stable=True)[:count]
        found.append((keypoints[order], scores[order]))
    return found


def flat_rows(mask: Tensor) -> Tensor:
    """Where a bool tensor holds, as positions in its flattened form; on a CPU NumPy finds them faster than torch."""
    if mask.is_cuda:
        return torch.nonzero(mask.flatten())[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


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
