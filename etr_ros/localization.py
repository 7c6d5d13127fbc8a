"""Where an accepted candidate puts the robot in the map's frame, and how sure that is."""

from __future__ import annotations

import math

import numpy as np

from etr_ros.transforms import Matrix, change_frames, compose, error
from etr_ros.types import Candidate, LoopClosure, PlaceMatch, Pose, State

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


def pose_of_match(match: PlaceMatch, sigma_m: float, sigma_deg: float) -> tuple[Pose, Matrix] | None:
    """The robot's pose by a whole answer: that of the best accepted candidate, a metric one before others.

    Without a metric one, the accepted places are as far apart as the same view is recognised; that adds to the sigmas.
    None when the answer does not localize, or the places have no poses.
    """
    accepted = [each for each in match.candidates if each.accepted] if match.state is State.LOCALIZED else []
    known = [found for each in accepted if (found := pose_of(each, sigma_m, sigma_deg)) is not None]
    metric = next((each for each in accepted if each.geometry and each.geometry.is_metric and each.place.pose), None)
    if metric is not None or not known:
        return pose_of(metric, sigma_m, sigma_deg) if metric is not None else None
    pose, covariance = known[0]
    off = np.array([error(other, pose) for other, _ in known])
    return pose, covariance + off.T @ off / len(off)


def pose_of_loop(loop: LoopClosure) -> tuple[Pose, Matrix] | None:
    """Likewise for an accepted metric loop with a place of another session; None for any other loop."""
    if not (loop.accepted and loop.geometry.is_metric) or loop.match.session == loop.query.session:
        return None
    return pose_of(Candidate(loop.match, 0.0, geometry=loop.geometry), 0.0, 0.0)
