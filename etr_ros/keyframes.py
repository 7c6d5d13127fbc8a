"""Which pictures of a drive become places of a map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from etr_ros.config import KeyframeConfig
from etr_ros.types import Frame, Pose


def select(frames: Iterable[Frame], config: KeyframeConfig) -> Iterator[Frame]:
    """The first frame, then each that is far enough from the last one kept, in distance, angle or time.

    A frame without a pose, or after a keyframe without one, is judged by time alone; when the time rule is off
    (`period_s` 0) it is kept.
    """
    last: Frame | None = None
    for frame in frames:
        if last is None or far_enough(last, frame, config):
            last = frame
            yield frame


def far_enough(last: Frame, frame: Frame, config: KeyframeConfig) -> bool:
    """Whether `frame` is to be the next keyframe after `last`."""
    late = abs(frame.stamp_ns - last.stamp_ns) >= config.period_s * 1e9
    if last.pose is None or frame.pose is None:
        return late
    return (
        (config.period_s > 0 and late)
        or math.dist(last.pose.position_m, frame.pose.position_m) >= config.distance_m
        or angle_deg(last.pose, frame.pose) >= config.angle_deg
    )


def angle_deg(a: Pose, b: Pose) -> float:
    """The angle in degrees, 0 to 180, of the rotation between two poses."""
    cosine = abs(math.fsum(x * y for x, y in zip(a.quat_xyzw, b.quat_xyzw, strict=True)))
    return math.degrees(2 * math.acos(min(1.0, cosine)))
