"""Hydra: an edge between two moments, which Hydra assigns to its own nodes."""

from __future__ import annotations

from dataclasses import dataclass

from etr_ros.backends.relative import Row, UnsuitableLoopError, metric_pose, row_major
from etr_ros.types import LoopClosure, Pose

LOOPCLOSE = 1
REJECTED_LOOPCLOSE = 3


@dataclass(frozen=True, slots=True)
class PoseGraphEdge:
    """The fields of pose_graph_tools_msgs/msg/PoseGraphEdge, `stamp_ns` being its header's.

    Keys are stamps in nanoseconds. `pose` is that of the from-body in the to-body ("to_T_from"); `covariance` is in
    the order of geometry_msgs (position first), about the axes of the to-body.
    """

    stamp_ns: int
    key_from: int
    key_to: int
    robot_from: int
    robot_to: int
    type: int
    pose: Pose
    covariance: Row


def to_edge(loop: LoopClosure, robot_id: int) -> PoseGraphEdge:
    """From the query to the match.

    Raises UnsuitableLoopError for a loop without a metric relative pose, or into another session: its stamps would
    be taken for those of this drive.
    """
    relative = metric_pose(loop)
    query, match = loop.query, loop.match
    if query.session != match.session:
        raise UnsuitableLoopError(f"the place is of another session ('{match.session}')")
    if min(query.stamp_ns, match.stamp_ns) < 0:
        raise UnsuitableLoopError("a stamp is before 1970")
    kind = LOOPCLOSE if loop.accepted else REJECTED_LOOPCLOSE
    covariance = row_major(relative.covariance)
    return PoseGraphEdge(
        query.stamp_ns, query.stamp_ns, match.stamp_ns, robot_id, robot_id, kind, relative.a_t_b, covariance
    )
