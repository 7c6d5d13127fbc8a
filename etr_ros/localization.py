"""Where an accepted candidate puts the robot in the map's frame, and how sure that is."""

from __future__ import annotations

import math

import numpy as np

from etr_ros.transforms import Matrix, change_frames, compose
from etr_ros.types import Candidate, LoopClosure, Pose

IDENTITY = Pose((0.0, 0.0, 0.0))


def pose_of(candidate: Candidate, sigma_m: float, sigma_deg: float) -> tuple[Pose, Matrix] | None:
    """The robot's pose in the map's frame and its (6, 6) covariance (see `etr_ros.transforms`).

    With a metric relative pose: that pose from the place, and its covariance. Otherwise the place's own pose, the
    sigmas saying how far from a place it is still recognised. None when the place has no pose.
    """
    place, found = candidate.place.pose, candidate.geometry
    if place is None:
        return None
    if found is None or not found.is_metric or found.match_t_query is None or found.covariance is None:
        return place, np.diag([sigma_m**2] * 3 + [math.radians(sigma_deg) ** 2] * 3)
    return compose(place, found.match_t_query), change_frames(found.covariance, place, found.match_t_query, IDENTITY)


def pose_of_loop(loop: LoopClosure) -> tuple[Pose, Matrix] | None:
    """Likewise for an accepted metric loop with a place of another session; None for any other loop."""
    if not (loop.accepted and loop.geometry.is_metric) or loop.match.session == loop.query.session:
        return None
    return pose_of(Candidate(loop.match, 0.0, geometry=loop.geometry), 0.0, 0.0)
