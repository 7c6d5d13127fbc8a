"""The tree of coordinate frames, without ROS: tf2_ros has no wheel, and only this much of it is needed here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from etr_ros.keyframes import angle_deg
from etr_ros.track import Track, TransformError
from etr_ros.transforms import Matrix, from_matrix, inverse_matrix, to_matrix
from etr_ros.types import Pose

MAX_FRAMES = 10_000


@dataclass(frozen=True, slots=True)
class Transform:
    """`pose` is target_t_source. `path` names the moving edges it came over, each with its segment (see `Track`)."""

    pose: Pose
    path: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Edge:
    parent: str
    parent_t_child: Pose | Track


class Segments:
    """Numbers the stretches of odometry that are in themselves continuous."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._last: Transform | None = None

    def follow(self, moved: Transform) -> str:
        """Take the next pose. After a jump, or over other frames, it begins a segment; returns how far it is then."""
        last, self._last = self._last, moved
        if last is None or last.path == moved.path:
            return ""
        self.number += 1
        distance_m = math.dist(last.pose.position_m, moved.pose.position_m)
        return f"{distance_m:.2f} m, {angle_deg(last.pose, moved.pose):.0f} deg"

    def restart(self) -> None:
        """Begin a new segment with the next pose."""
        self.number += 1
        self._last = None


class TransformBuffer:
    """Every frame's pose in its parent, fixed or over the last 10 s. Not thread-safe. Frame names have no leading /."""

    def __init__(self, jump_m: float) -> None:
        """`jump_m` is what `Track` takes it for."""
        self._jump_m = jump_m
        self._edges: dict[str, _Edge] = {}

    def set_static(self, child: str, parent_t_child: Pose) -> None:
        """Place `child` for good in the frame `parent_t_child.frame_id`. Raises TransformError."""
        self._check(child, parent_t_child.frame_id)
        self._edges[child] = _Edge(parent_t_child.frame_id, parent_t_child)

    def set(self, child: str, stamp_ns: int, parent_t_child: Pose) -> None:
        """Place `child` in the frame `parent_t_child.frame_id` at `stamp_ns`. Raises TransformError."""
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent_t_child.frame_id or not isinstance(edge.parent_t_child, Track):
            self._check(child, parent_t_child.frame_id)
            edge = self._edges[child] = _Edge(parent_t_child.frame_id, Track(self._jump_m))
        assert isinstance(edge.parent_t_child, Track)  # noqa: S101 - for the type checker
        edge.parent_t_child.add(stamp_ns, parent_t_child)

    def clear(self) -> None:
        """Forget all but the fixed transforms."""
        for edge in self._edges.values():
            if isinstance(edge.parent_t_child, Track):
                edge.parent_t_child.clear()

    def lookup(self, target: str, source: str, stamp_ns: int, tolerance_ns: int = 0) -> Transform:
        """target_t_source at `stamp_ns`, as `Track.at` reads each moving edge.

        Raises TransformError: unknown or unconnected frames, a loop, no pose at this time.
        """
        from_target, from_source = self._branches(target, source)
        path: list[tuple[str, str, int]] = []
        common_t_source = self._climb(from_source, stamp_ns, tolerance_ns, path)
        common_t_target = self._climb(from_target, stamp_ns, tolerance_ns, path)
        return Transform(from_matrix(inverse_matrix(common_t_target) @ common_t_source, target), tuple(path))

    def newest_ns(self, target: str, source: str) -> int | None:
        """Up to when `lookup` has poses; None when it has none, or needs none that move."""
        try:
            from_target, from_source = self._branches(target, source)
        except TransformError:
            return None
        placed = [self._edges[frame].parent_t_child for frame in from_target + from_source]
        newest = [track.newest_ns for track in placed if isinstance(track, Track)]
        return min((each for each in newest if each is not None), default=None)

    def _check(self, child: str, parent: str) -> None:
        if not child or not parent or child == parent:
            raise TransformError(f"TF places '{child}' in '{parent}': give its publisher two different frame names")
        if child not in self._edges and len(self._edges) >= MAX_FRAMES:
            raise TransformError(f"TF has more than {MAX_FRAMES} frames: stop what publishes ever new ones")

    def _branches(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """The frames from target, and from source, up to but without their nearest common ancestor."""
        from_target, from_source = self._ancestry(target), self._ancestry(source)
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is not None:
            return from_target[: from_target.index(common)], from_source[: from_source.index(common)]
        known = self._edges.keys() | {edge.parent for edge in self._edges.values()}
        for frame in (target, source):
            if frame not in known:
                raise TransformError(f"TF does not know the frame '{frame}': publish it")
        raise TransformError(
            f"TF does not connect '{target}' and '{source}': the one hangs on '{from_target[-1]}', "
            f"the other on '{from_source[-1]}': publish what joins them"
        )

    def _ancestry(self, frame: str) -> list[str]:
        """The frame, its parent, and so on up to the root."""
        frames = [frame]
        while frame in self._edges:
            frame = self._edges[frame].parent
            if frame in frames:
                loop = " -> ".join([*frames[frames.index(frame) :], frame])
                raise TransformError(f"TF has a loop ({loop}): stop the publisher that closes it")
            frames.append(frame)
        return frames

    def _climb(self, frames: list[str], stamp_ns: int, tolerance_ns: int, path: list[tuple[str, str, int]]) -> Matrix:
        """(4, 4) pose of the first frame in the parent of the last; the moving edges are added to `path`."""
        result = np.eye(4)
        for frame in frames:
            edge = self._edges[frame]
            pose = edge.parent_t_child
            if isinstance(pose, Track):
                sample = pose.at(stamp_ns, tolerance_ns)
                if sample is None:
                    raise TransformError(f"TF of '{frame}' in '{edge.parent}' {pose.why_not(stamp_ns)}")
                path.append((edge.parent, frame, sample.segment))
                pose = sample.pose
            result = to_matrix(pose) @ result
        return result
