"""A made-up world of landmarks with descriptors, seen by an exact camera: real geometry without networks or pictures.

The picture of a frame only carries the true pose of the robot, in its first pixels; the extractor computes what is seen
from there. So pictures also mean the same in another process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from etr_ros import verify
from etr_ros.camera import Camera
from etr_ros.database import FeatureSpec
from etr_ros.pipeline import Networks
from etr_ros.rerank import Scores
from etr_ros.transforms import OPTICAL, compose, inverse_matrix, to_matrix
from etr_ros.types import Features, Frame, Pose

CAMERA = Camera.create(640, 480, (400, 0, 320, 0, 400, 240, 0, 0, 1), "plumb_bob", ())
BODY_T_CAMERA = compose(Pose((0.2, 0.0, 0.3)), OPTICAL)
DIM = 32
RANGE_M = 6.0
NOISE_PX = 0.3
PLATE_PX = 4
SHORT_LAPS = {
    "loop.exclusion_s": 5.0,
    "loop.exclusion_m": 3.0,
    "loop.first_support": 2,
    "retrieval.top_k": 10,
    "geometry.candidates": 3,
}  # configuration for laps of some metres, a picture each 0.6 m


class Landmarks:
    """Walls of landmarks left and right of the x axis from 0 to `length_m`; see `copy_m` for look-alike stretches."""

    def __init__(
        self,
        length_m: float = 40.0,
        seed: int = 0,
        per_m: int = 60,
        copy_m: float | None = None,
        *,
        measured: bool = True,
    ) -> None:
        """With `copy_m`, what stands beyond that x is a copy of what stands at 0: two stretches that look alike.

        Features are in 3-D unless `measured` is false; then that is left to the frame's depth, see `depth_m`.
        """
        self._measured = measured
        rng = np.random.default_rng(seed)
        count = int(length_m * per_m)
        sides = rng.choice([-2.0, 2.0], count) + rng.normal(0, 0.3, count)
        self.points = np.column_stack([rng.uniform(0, length_m, count), sides, rng.uniform(-1.0, 2.0, count)])
        self.descriptors = unit(rng.normal(size=(count, DIM)))
        if copy_m is not None:
            here = self.points[:, 0] < length_m - copy_m
            kept = self.points[:, 0] < copy_m
            self.points = np.vstack([self.points[kept], self.points[here] + [copy_m, 0, 0]])
            self.descriptors = np.vstack([self.descriptors[kept], self.descriptors[here]])
        self.device = torch.device("cpu")
        self.spec = FeatureSpec("landmarks", "mean", 512, 640, DIM, DIM, "made-up")

    @property
    def networks(self) -> Networks:
        """The world's own extractor and a re-ranker that counts mutual matches."""
        return Networks(self, count_matches)  # type: ignore[arg-type]

    def frame(self, true: Pose, number: int, pose: Pose | None = None, rate_hz: float = 1.0) -> Frame:
        """What the robot sees at its true pose; `pose` is where its odometry believes to be."""
        stamp_ns = 1_700_000_000 * 10**9 + round(number * 1e9 / rate_hz)
        return Frame(picture(true), stamp_ns, f"{number:04d}", "", pose, CAMERA, BODY_T_CAMERA)

    def __call__(self, image: NDArray[np.uint8]) -> Features:
        x, y, z, yaw = np.frombuffer(image[0, :6].tobytes()[:16], np.float32).tolist()
        rng = np.random.default_rng(np.frombuffer(image[0, :6].tobytes()[:16], np.uint32))
        true = Pose((x, y, z), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))
        rows, points, pixels = self._seen(true)
        rows, pixels = rows[:512], pixels[:512] + rng.normal(0, NOISE_PX, (len(rows[:512]), 2))
        descriptors = unit(self.descriptors[rows] + rng.normal(0, 0.02, (len(rows), DIM)))
        mean = unit(descriptors.mean(axis=0)) if len(rows) else unit(np.ones(DIM))
        depth = points[:512, 2:] + rng.normal(0, 0.002, (len(rows), 1)) * points[:512, 2:] ** 2
        measured = np.hstack([CAMERA.rays(pixels.astype(np.float32)) * depth, depth]).astype(np.float32)
        ones, scales = np.ones(len(rows), np.float32), np.zeros(len(rows), np.uint8)
        in_3d = measured if self._measured else None
        return Features(pixels.astype(np.float32), ones, descriptors, scales, (640, 480), mean, in_3d)

    def depth_m(self, true: Pose) -> NDArray[np.float32]:
        """A (480, 640) depth image: a small plate around every landmark, nearer ones before others, NaN elsewhere."""
        image = np.full((CAMERA.height, CAMERA.width), np.nan, np.float32)
        _, points, pixels = self._seen(true)
        for row in np.argsort(-points[:, 2]):
            x, y = np.rint(pixels[row]).astype(int)
            image[max(0, y - PLATE_PX) : y + PLATE_PX + 1, max(0, x - PLATE_PX) : x + PLATE_PX + 1] = points[row, 2]
        return image

    def _seen(self, true: Pose) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Numbers (N,) of the landmarks in the picture, their places before the camera (N, 3), their pixels (N, 2)."""
        world_t_camera = to_matrix(true) @ to_matrix(BODY_T_CAMERA)
        points = np.column_stack([self.points, np.ones(len(self.points))]) @ inverse_matrix(world_t_camera).T[:, :3]
        pixels = CAMERA.project(np.where(points[:, 2:] > 0.3, points, [0, 0, 1.0]))
        seen = (points[:, 2] > 0.3) & (points[:, 2] < RANGE_M) & (pixels > 0).all(1) & (pixels < [640, 480]).all(1)
        return np.flatnonzero(seen), points[seen], pixels[seen]


def picture(true: Pose) -> NDArray[np.uint8]:
    """A (480, 640, 3) picture that carries x, y, z and the yaw of a pose."""
    image = np.full((480, 640, 3), 128, np.uint8)
    yaw = 2 * math.atan2(true.quat_xyzw[2], true.quat_xyzw[3])
    values = np.array([*true.position_m, yaw], np.float32).tobytes() + b"\0\0"
    image[0, :6] = np.frombuffer(values, np.uint8).reshape(6, 3)
    return image


def count_matches(query: Features, candidates: Sequence[Features]) -> Scores:
    """High for pictures with many mutual matches."""
    counts = np.array([len(verify.mutual_matches(query, each)) for each in candidates], np.float32)
    return Scores(counts, np.clip(counts / 60, 0, 1).astype(np.float32))


def unit(x: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)
