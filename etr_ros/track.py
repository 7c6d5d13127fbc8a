"""The poses of one frame in another over time, as odometry and TF send them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from etr_ros.errors import EtrError
from etr_ros.keyframes import angle_deg
from etr_ros.poses import MAX_GAP_NS, PoseTrack
from etr_ros.types import Pose

SPAN_NS = 10_000_000_000  # how far back poses are kept
MAX_SAMPLES = 2000
BACK_NS = 1_000_000_000  # a stamp older than the newest by more than this: time went back
JUMP_PERIOD_S = 0.2
JUMP_DEG = 60.0


class TransformError(EtrError):
    """Where one frame is in another is not known."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A pose at `stamp_ns`; between two samples of different segments lies a jump."""

    stamp_ns: int
    pose: Pose
    segment: int


class Track:
    """The poses of the last 10 s, read at any stamp; nothing is interpolated across a jump."""

    def __init__(self, jump_m: float) -> None:
        """A step is a jump when it is longer than `jump_m` metres or wider than 60 degrees for each 0.2 s it took."""
        self._jump_m = jump_m
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._segment = 0

    @property
    def newest_ns(self) -> int | None:
        """The stamp of the newest pose, None when there is none."""
        return self._samples[-1].stamp_ns if self._samples else None

    def add(self, stamp_ns: int, pose: Pose) -> None:
        """Append a pose; one that is not newer than the last is left out, unless time went back: then all others go."""
        if self._samples:
            last = self._samples[-1]
            if stamp_ns < last.stamp_ns - BACK_NS:
                self.clear()
            elif stamp_ns <= last.stamp_ns:
                return
            elif self._is_jump(last, stamp_ns, pose):
                self._segment += 1
        self._samples.append(Sample(stamp_ns, pose, self._segment))
        while self._samples[0].stamp_ns < stamp_ns - SPAN_NS:
            self._samples.popleft()

    def clear(self) -> None:
        """Forget all poses; the next one begins a new segment."""
        self._samples.clear()
        self._segment += 1

    def at(self, stamp_ns: int, tolerance_ns: int) -> Sample | None:
        """The pose at `stamp_ns`: interpolated where the track has no hole, else the nearest within the tolerance."""
        after = bisect_left(self._samples, stamp_ns, key=lambda sample: sample.stamp_ns)
        around = [self._samples[index] for index in (after - 1, after) if 0 <= index < len(self._samples)]
        if len(around) == 2:
            before, behind = around
            if behind.stamp_ns > stamp_ns and _is_continuous(before, behind):
                pose = _between(before, behind, stamp_ns)
                return Sample(stamp_ns, pose, before.segment) if pose else None
        nearest = min(around, key=lambda sample: abs(sample.stamp_ns - stamp_ns), default=None)
        return nearest if nearest and abs(nearest.stamp_ns - stamp_ns) <= tolerance_ns else None

    def why_not(self, stamp_ns: int) -> str:
        """Why there is no pose at `stamp_ns`, that of an image, and what to do; to be read after the track's name."""
        if not self._samples:
            return "has no poses: start what publishes them"
        oldest, newest = self._samples[0].stamp_ns, self._samples[-1].stamp_ns
        if stamp_ns < oldest:
            return f"begins {_seconds(oldest - stamp_ns)} after the image: synchronise the clocks of the machines"
        if stamp_ns > newest + BACK_NS:
            return f"stopped {_seconds(stamp_ns - newest)} before the image: check its publisher and the clocks"
        if stamp_ns > newest:
            return f"is {_seconds(stamp_ns - newest)} behind the image: raise sensor.sync_ms to wait longer for it"
        return "has a hole or a jump at the image's time: check its publisher"

    def _is_jump(self, last: Sample, stamp_ns: int, pose: Pose) -> bool:
        periods = max((stamp_ns - last.stamp_ns) / 1e9 / JUMP_PERIOD_S, 1.0)
        distance_m = math.dist(last.pose.position_m, pose.position_m)
        return distance_m > self._jump_m * periods or angle_deg(last.pose, pose) > JUMP_DEG * periods


def jumps(poses: Iterable[tuple[int, Pose]], jump_m: float) -> list[tuple[int, int]]:
    """Where poses with rising stamps jump, as `Track` sees it: the stamps before and behind each jump."""
    track, found = Track(jump_m), []
    before: Sample | None = None
    for stamp_ns, pose in poses:
        track.add(stamp_ns, pose)
        sample = track.at(stamp_ns, 0)
        if sample is not None and before is not None and sample.segment != before.segment:
            found.append((before.stamp_ns, stamp_ns))
        before = sample or before
    return found


def _is_continuous(before: Sample, after: Sample) -> bool:
    return before.segment == after.segment and after.stamp_ns - before.stamp_ns <= MAX_GAP_NS


def _between(before: Sample, after: Sample, stamp_ns: int) -> Pose | None:
    rows = [(*sample.pose.position_m, *sample.pose.quat_xyzw) for sample in (before, after)]
    return PoseTrack((before.stamp_ns, after.stamp_ns), rows, before.pose.frame_id).at(stamp_ns)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.2f} s"
