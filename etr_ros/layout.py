"""Do two views agree on where things stand: does the depth of one, moved by the relative pose, fit the other's?

Matches that agree with one motion can all lie on one thing that stands there twice; the rest of what both views see
then stands elsewhere. Here all locals with a 3-D point are compared, matched or not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from etr_ros.transforms import Matrix, inverse_matrix
from etr_ros.types import View

NEAR_SHARE = 0.025  # of the picture's longer side: locals this near to each other show the same surface
SLACK_M, SLACK_SHARE = 0.1, 0.1  # of the depth: surfaces are slanted, and depth is noisy
MIN_DEPTH_M = 0.2
LEAST = 100  # comparisons; with fewer nothing is said


def agreement(query: View, match: View, match_t_query: Matrix) -> float:
    """The share of comparable locals at whose pixel both views know the same depth, in [0, 1].

    `match_t_query` (4, 4) is metric, between the optical frames; both views have a camera. A local is comparable when
    it has a 3-D point and projects beside a local of the other view that has one. NaN with fewer than `LEAST` of them.
    """
    there, back = _compare(query, match, match_t_query), _compare(match, query, inverse_matrix(match_t_query))
    comparable = len(there) + len(back)
    return math.nan if comparable < LEAST else float((there.sum() + back.sum()) / comparable)


def _compare(a: View, b: View, b_t_a: Matrix) -> NDArray[np.bool_]:
    """Of each local of `a` that is comparable in `b`, whether it is where `b` sees something."""
    known_a, known_b = _known(a), _known(b)
    if a.features.points_m is None or b.features.points_m is None or b.camera is None or not known_b.any():
        return np.empty(0, bool)
    points = a.features.points_m[known_a].astype(np.float64) @ b_t_a[:3, :3].T + b_t_a[:3, 3]
    points = points[points[:, 2] > MIN_DEPTH_M]
    pixels = b.camera.project(points)
    inside = np.isfinite(pixels).all(axis=1) & (pixels >= 0).all(axis=1) & (pixels < b.features.image_size).all(axis=1)
    points, pixels = points[inside], pixels[inside]
    if not len(points):
        return np.empty(0, bool)
    keypoints = b.features.keypoints[known_b]
    distance2 = ((pixels[:, None, :] - keypoints[None, :, :]) ** 2).sum(axis=2)
    nearest = distance2.argmin(axis=1)
    radius_px = NEAR_SHARE * max(b.features.image_size)
    near = distance2[np.arange(len(points)), nearest] <= radius_px**2
    depth, seen = points[near, 2], b.features.points_m[known_b][nearest[near], 2]
    return np.asarray(np.abs(depth - seen) <= SLACK_M + SLACK_SHARE * np.minimum(depth, seen), bool)


def _known(view: View) -> NDArray[np.bool_]:
    points = view.features.points_m
    return np.zeros(len(view.features), bool) if points is None else np.isfinite(points).all(axis=1)
