"""Geometric verification of a picture pair by its local features: mutual nearest neighbours, a robust epipolar fit."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.types import Features, FloatArray

THRESHOLD_PX = 3.0
CONFIDENCE = 0.999
MAX_ITERATIONS = 1000
MIN_MATCHES = 8


def mutual_matches(a: Features, b: Features) -> NDArray[np.int64]:
    """Pairs of locals that are each other's nearest neighbour by cosine: (M, 2) rows of `a` and of `b`."""
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    cosines = a.descriptors @ b.descriptors.T
    best_b, largest = cosines.argmax(axis=1), cosines.max(axis=0)  # a maximum of columns is far faster than a search
    rows = np.flatnonzero(cosines[np.arange(len(a)), best_b] == largest[best_b])
    _, first = np.unique(best_b[rows], return_index=True)  # of equal ones the first, as a search would find
    rows = np.sort(rows[first])
    return np.stack([rows, best_b[rows]], axis=1)


def inliers(a: Features, b: Features, matches: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The mutual matches that agree with one fundamental matrix (MAGSAC++): (I, 2) rows of `a` and of `b`; `matches`
    (M, 2) are those of `mutual_matches` where they are known.

    Empty when there are fewer than `MIN_MATCHES` or no model is found. Deterministic: OpenCV's USAC seeds itself alike.
    """
    matches = mutual_matches(a, b) if matches is None else matches
    return matches[epipolar_inliers(a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]])]


def epipolar_inliers(points_a: FloatArray, points_b: FloatArray, iterations: int = MAX_ITERATIONS) -> NDArray[np.bool_]:
    """Which of the matched pixels (M, 2) agree with the best fundamental matrix: (M,), all False when there is none."""
    none = np.zeros(len(points_a), bool)
    if len(points_a) < MIN_MATCHES:
        return none
    try:
        model, mask = cv2.findFundamentalMat(points_a, points_b, cv2.USAC_MAGSAC, THRESHOLD_PX, CONFIDENCE, iterations)
    except cv2.error:  # OpenCV asserts that it found a model when the points are degenerate
        return none
    return none if model is None or mask is None else mask.ravel().astype(bool)
