"""Swarm-SLAM: a loop between two keyframes of one robot."""

from __future__ import annotations

from dataclasses import dataclass

from etr_ros.backends.waiting import NodeLoop
from etr_ros.types import Pose


@dataclass(frozen=True, slots=True)
class IntraRobotLoopClosure:
    """The fields of cslam_common_interfaces/msg/IntraRobotLoopClosure.

    `transform` is the pose of keyframe 1 in keyframe 0. There is no covariance: Swarm-SLAM takes a fixed one.
    """

    keyframe0_id: int
    keyframe1_id: int
    success: bool
    transform: Pose


def to_closure(loop: NodeLoop) -> IntraRobotLoopClosure:
    """From the matched keyframe to the query's."""
    return IntraRobotLoopClosure(loop.match_id, loop.query_id, True, loop.relative.a_t_b)
