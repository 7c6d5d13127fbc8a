"""Changed copies of pictures, as a place looks on another day: light, colour, blur, noise, viewpoint, occluders."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def augment(image: Image, rng: np.random.Generator) -> Image:
    """A changed copy of a (H, W, 3) BGR picture; the same generator state gives the same copy."""
    return _degrade(_occlude(_relight(_move(image, rng), rng), rng), rng)


def _move(image: Image, rng: np.random.Generator) -> Image:
    """A nearby viewpoint: tilt up to 12 degrees, zoom 0.75 to 1.3, a perspective that moves corners by up to 12 %."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    centre = np.array([width / 2, height / 2])
    angle = np.deg2rad(rng.uniform(-12, 12))
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.3)))
    rotation = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    jitter = rng.uniform(-0.12, 0.12, (4, 2)) * [width, height]
    moved = (corners - centre) @ rotation.T + centre + jitter
    homography = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return cv2.warpPerspective(image, homography, (width, height), borderMode=cv2.BORDER_REFLECT_101).astype(np.uint8)


def _relight(image: Image, rng: np.random.Generator) -> Image:
    """Another exposure, contrast and colour of the light, and now and then a lamp or a shadow from one side."""
    x = image.astype(np.float32) / 255.0
    x = x ** np.exp(rng.uniform(-0.8, 0.8))
    x = (x - 0.5) * rng.uniform(0.6, 1.4) + 0.5 + rng.uniform(-0.15, 0.15)
    x *= rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.4:
        height, width = x.shape[:2]
        direction = rng.uniform(0, 2 * np.pi)
        ys, xs = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
        ramp = 1 + rng.uniform(-0.8, 0.8) * (xs * np.cos(direction) + ys * np.sin(direction))
        x *= ramp[..., None].astype(np.float32)
    return _bytes(x)


def _occlude(image: Image, rng: np.random.Generator) -> Image:
    """Up to two filled ellipses where people or furniture may stand."""
    image = image.copy()
    height, width = image.shape[:2]
    for _ in range(rng.integers(0, 3)):
        centre = (int(rng.integers(0, width)), int(rng.integers(height // 3, height)))
        axes = (int(width * rng.uniform(0.03, 0.12)), int(height * rng.uniform(0.1, 0.35)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.ellipse(image, centre, axes, float(rng.uniform(-20, 20)), 0, 360, colour, -1)
    return image


def _degrade(image: Image, rng: np.random.Generator) -> Image:
    """Defocus or motion blur, sensor noise, JPEG."""
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.8)).astype(np.uint8)
    elif rng.random() < 0.3:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        image = cv2.filter2D(image, -1, kernel).astype(np.uint8)
    noise = rng.normal(0, rng.uniform(0, 0.03), image.shape).astype(np.float32)
    noisy = _bytes(image.astype(np.float32) / 255.0 + noise)
    _, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8)


def _bytes(x: NDArray[np.float32]) -> Image:
    return (x.clip(0, 1) * 255).round().astype(np.uint8)
