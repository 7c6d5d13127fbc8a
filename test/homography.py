"""Local features under a known homography: are the same points found again, and matched right?"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from etr_ros.features.base import LocalNetwork


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A made-up BGR scene: filled shapes with texture on them."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 127, np.uint8)
    for _ in range(120):
        centre, size = rng.uniform([0, 0], [width, height]), rng.uniform(8, 60)
        corners = centre + size * rng.uniform(-1, 1, (rng.integers(3, 6), 2))
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), rng.integers(0, 256, 3).tolist())
    texture = cv2.resize(rng.normal(0, 12, (height // 2, width // 2)), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(cv2.GaussianBlur(image, (3, 3), 0.8) + texture[..., None], 0, 255).astype(np.uint8)


def homography(width: int, height: int, seed: int = 0, strength: float = 0.12) -> NDArray[np.float64]:
    """Moves each corner by at most `strength` of the picture's size."""
    rng = np.random.default_rng(seed)
    size = np.array([width, height], np.float32)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * size
    moved = corners + rng.uniform(-strength, strength, (4, 2)).astype(np.float32) * size
    return cv2.getPerspectiveTransform(corners, moved)


def to_rgb(image: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) BGR -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1)[None].float() / 255


@torch.inference_mode()
def score(
    network: LocalNetwork, image: NDArray[np.uint8], view: NDArray[np.float64], count: int = 512
) -> tuple[float, float]:
    """Repeatability, and the precision of mutual nearest neighbours, both at 3 px in the second view."""
    height, width = image.shape[:2]
    a = network.extract(to_rgb(image), count)
    b = network.extract(to_rgb(cv2.warpPerspective(image, view, (width, height), borderMode=cv2.BORDER_REFLECT)), count)
    points = cv2.perspectiveTransform(a.keypoints[0].numpy()[None], view)[0]
    inside = ((points >= 8) & (points < [width - 8, height - 8])).all(axis=1)
    distance = torch.cdist(torch.from_numpy(points).float(), b.keypoints[0])
    repeatability = float((distance.min(dim=1).values <= 3)[inside].float().mean())
    similarity = a.descriptors[0] @ b.descriptors[0].t()
    forward, backward = similarity.argmax(dim=1), similarity.argmax(dim=0)
    rows = torch.arange(len(points))
    matched = (backward[forward] == rows) & torch.from_numpy(inside)
    precision = float((distance[rows, forward] <= 3)[matched].float().mean())
    return repeatability, precision
