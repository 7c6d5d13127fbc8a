"""The nodes of a back end's own pose graph, found by time: our keyframes are not its nodes."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from etr_ros import transforms
from etr_ros.types import Pose

SAME_PICTURE_NS = 1_000_000  # stamps kept as floating point seconds are exact to a microsecond
MAX_NODES = 100_000


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node as the back end reports it. `odom_t_body` is where its odometry was then, free of loop corrections.

    Odometry is continuous among nodes of the same `segment` only.
    """

    node_id: int
    stamp_ns: int
    odom_t_body: Pose
    segment: int = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """The node nearest to a moment, and the pose of the body at that moment in the node's body frame."""

    node_id: int
    node_t_body: Pose


class GraphNodes:
    """Nodes by stamp; beyond MAX_NODES the oldest are forgotten."""

    def __init__(self, tolerance_ns: int) -> None:
        """No moment further than `tolerance_ns` from every node has an anchor."""
        self._tolerance_ns = tolerance_ns
        self._nodes: dict[int, GraphNode] = {}
        self._times: list[tuple[int, int]] = []  # stamp, id; sorted
        self._last_id = -1

    def __len__(self) -> int:
        return len(self._times)

    @property
    def newest_ns(self) -> int | None:
        """The latest stamp of all nodes."""
        return self._times[-1][0] if self._times else None

    def learn(self, node: GraphNode) -> None:
        """Remember a node. What contradicts the nodes known means that the back end, or time, began anew: forget them.

        That is a known node with another stamp, or a newer node with an older stamp.
        """
        known = self._nodes.get(node.node_id)
        if known is not None and known.stamp_ns == node.stamp_ns:
            return
        if known is not None or (self._times and node.node_id > self._last_id and node.stamp_ns < self._times[-1][0]):
            self._nodes.clear()
            self._times.clear()
            self._last_id = -1
        self._last_id = max(self._last_id, node.node_id)
        self._nodes[node.node_id] = node
        bisect.insort(self._times, (node.stamp_ns, node.node_id))
        if len(self._times) > MAX_NODES:
            del self._nodes[self._times.pop(0)[1]]

    def is_settled(self, stamp_ns: int) -> bool:
        """Whether nodes yet to come cannot change the anchor of this moment."""
        return self.newest_ns is not None and stamp_ns <= self.newest_ns + SAME_PICTURE_NS

    def anchor(self, stamp_ns: int) -> Anchor | None:
        """The nearest node to `stamp_ns`, or None when there is none within the tolerance.

        What the robot moved between the node and that moment is read from the odometry of the two nodes around it,
        as if it had moved evenly; None when they do not lie around it, or belong to different segments.
        """
        after = bisect.bisect_left(self._times, (stamp_ns, -(2**63)))
        around = [self._nodes[node_id] for _, node_id in self._times[max(after - 1, 0) : after + 1]]
        nearest = min(around, key=lambda node: abs(node.stamp_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest.stamp_ns - stamp_ns) > self._tolerance_ns:
            return None
        if abs(nearest.stamp_ns - stamp_ns) <= SAME_PICTURE_NS:
            return Anchor(nearest.node_id, Pose((0.0, 0.0, 0.0), frame_id=""))
        if len(around) < 2 or around[0].segment != around[1].segment:
            return None
        first, second = around
        if second.stamp_ns - first.stamp_ns > 2 * self._tolerance_ns:
            return None
        share = (stamp_ns - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
        moved = _part(transforms.between(first.odom_t_body, second.odom_t_body), share)
        body = transforms.compose(first.odom_t_body, moved)
        return Anchor(nearest.node_id, transforms.between(nearest.odom_t_body, body))


def _part(a_t_b: Pose, share: float) -> Pose:
    """The pose after `share` of an even motion from a to b."""
    x, y, z = a_t_b.position_m
    turn = share * transforms.rotation_vector(transforms.rotation(a_t_b.quat_xyzw))
    return Pose((share * x, share * y, share * z), transforms.quaternion(transforms.exp(turn)), a_t_b.frame_id)
