"""The last keyframes of a drive, for the 3-D points of a camera that measures no depth."""

from __future__ import annotations

import dataclasses
from collections import deque

from etr_ros.config import GeometryConfig
from etr_ros.triangulate import triangulate
from etr_ros.types import Pose, View

COUNT = 5  # a keyframe further back shares too few locals


class Neighbours:
    """Remembers the last views with their poses; a new segment of the odometry begins from nothing."""

    def __init__(self) -> None:
        self._last: deque[tuple[View, Pose]] = deque(maxlen=COUNT)
        self._segment = 0

    def complete(self, view: View, pose: Pose | None, config: GeometryConfig, segment: int = 0) -> View:
        """The view with its locals in 3-D, if it has none yet and intrinsics, mount and poses are known.

        Then it becomes a neighbour of those to come.
        """
        if segment != self._segment:
            self._last.clear()
            self._segment = segment
        if pose is None or view.camera is None or view.body_t_camera is None:
            return view
        features = view.features
        if features.points_m is None and self._last:
            found = triangulate(view, pose, list(self._last), config.pixel_sigma, config.max_depth_m)
            in_3d = dataclasses.replace(features, points_m=found.points_m, depth_sigma_m=found.depth_sigma_m)
            view = dataclasses.replace(view, features=in_3d)
        self._last.append((view, pose))
        return view
