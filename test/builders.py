"""Small made-up values for tests."""

from __future__ import annotations

import numpy as np

from etr_ros.database import FeatureSpec
from etr_ros.types import Features, Frame, Place, Pose

SPEC = FeatureSpec("xfeat", "vlad", 512, 640, 8, 16, "0123456789abcdef")


def make_features(seed: int, count: int = 40, dim: int = 8, global_dim: int = 16) -> Features:
    """Random features of a 640 x 480 picture, strongest first."""
    rng = np.random.default_rng(seed)
    global_descriptor = unit(rng.normal(size=global_dim))  # drawn first: does not depend on `count`
    descriptors = unit(rng.normal(size=(count, dim)))
    return Features(
        keypoints=(rng.random((count, 2)) * [640, 480]).astype(np.float32),
        scores=np.sort(rng.random(count).astype(np.float32))[::-1],
        descriptors=descriptors,
        scales=np.zeros(count, np.uint8),
        image_size=(640, 480),
        global_descriptor=global_descriptor,
    )


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def make_frame(number: int, pose: Pose | None = None, session: str = "survey") -> Frame:
    return Frame(np.full((48, 64, 3), number % 256, np.uint8), number * 10**9, f"{number:04d}.jpg", session, pose)


def make_place(number: int, x_m: float | None = None) -> Place:
    pose = None if x_m is None else Pose((x_m, 0.0, 0.0))
    return Place(number, f"{number:04d}.jpg", "survey", number, pose)
