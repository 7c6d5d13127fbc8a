"""RTAB-Map: a link between two of its nodes."""

from __future__ import annotations

from dataclasses import dataclass

from etr_ros.backends.relative import Row, row_major
from etr_ros.backends.waiting import NodeLoop
from etr_ros.types import Pose

USER_CLOSURE = 4  # a loop that was found outside of RTAB-Map


@dataclass(frozen=True, slots=True)
class Link:
    """The fields of rtabmap_msgs/msg/Link; `transform` is the pose of node `to_id` in node `from_id`."""

    from_id: int
    to_id: int
    type: int
    transform: Pose
    information: Row


def to_link(loop: NodeLoop) -> Link:
    """From the query's node to the older one, as RTAB-Map's own loops: in localization mode it takes no other."""
    relative = loop.relative.inverse()
    information = row_major(relative.information())
    return Link(loop.query_id, loop.match_id, USER_CLOSURE, relative.a_t_b, information)
