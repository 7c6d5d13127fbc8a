"""A recording through the recognizer, picture by picture and dropping nothing, as the node would answer it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from etr_ros.errors import CameraError, ImageError
from etr_ros.pipeline import Recognizer
from etr_ros.result import Outcome, Query
from etr_ros.types import Frame, LoopAnswer, LoopClosure, Pose

BACK_NS = 1_000_000_000  # a stamp older than the one before by more than this: the clock jumped
AHEAD_NS = 60_000_000_000
NO_KEYFRAME = "too near to the last keyframe"


@dataclass
class Replayed:
    """What came out so far."""

    queries: list[Query] = field(default_factory=list)
    loops: list[LoopClosure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def replay(
    frames: Iterable[Frame],
    recognizer: Recognizer,
    *,
    segment_at: Callable[[int], int] = lambda stamp_ns: 0,
    truth_at: Callable[[int], Pose | None] = lambda stamp_ns: None,
    answered: Callable[[Frame], None] = lambda frame: None,
    compute_ms: float | None = None,
) -> Replayed:
    """Ask for every frame, in their order.

    `segment_at` numbers the unbroken pieces of odometry by stamp, `truth_at` knows the true poses, `answered` hears of
    each frame that was answered. With `compute_ms`, frames are dropped as by a live node whose answers take so long:
    it works on one, the newest of the others waits. Where the stamps go back, the replay ends, and a note says so.
    """
    out, busy_until_ns, names = Replayed(), 0.0, set()
    for frame, following in _with_next(_until_time_goes_back(frames, out.notes)):
        truth = truth_at(frame.stamp_ns)
        query = Query(frame.name, frame.stamp_ns, Outcome.DROPPED, "", None, frame.pose, truth)
        starts_ns = max(busy_until_ns, frame.stamp_ns)
        if frame.name in names:
            out.notes.append(f"{frame.name}: a second picture of the same stamp was left out")
            continue
        names.add(frame.name)
        if compute_ms is not None and following is not None and following.stamp_ns < starts_ns:
            out.queries.append(dataclasses.replace(query, reason="a newer picture came before its turn"))
            continue
        query, answer = _ask(recognizer, frame, segment_at(frame.stamp_ns), query)
        if answer is not None:
            busy_until_ns = starts_ns + (compute_ms or 0.0) * 1e6
            query = dataclasses.replace(query, picture_id=sum(each.picture_id is not None for each in out.queries))
            out.loops += answer.loops
            answered(frame)
        out.queries.append(query)
    out.loops += recognizer.finish()
    return out


def _ask(recognizer: Recognizer, frame: Frame, segment: int, query: Query) -> tuple[Query, LoopAnswer | None]:
    try:
        answer = recognizer.answer(frame, segment)
    except (ImageError, CameraError) as error:
        return dataclasses.replace(query, outcome=Outcome.UNUSABLE, reason=str(error)), None
    if answer is None:
        return dataclasses.replace(query, outcome=Outcome.SKIPPED, reason=NO_KEYFRAME), None
    return dataclasses.replace(query, outcome=Outcome.ANSWERED, match=answer.match), answer


def _until_time_goes_back(frames: Iterable[Frame], notes: list[str]) -> Iterator[Frame]:
    last_ns: int | None = None
    for frame in frames:
        step_ns = 0 if last_ns is None else frame.stamp_ns - last_ns
        if step_ns < -BACK_NS:
            notes.append(
                f"time went back by {-step_ns / 1e9:.1f} s at {frame.name}: the replay ends there; "
                "cut the recording and replay the rest for itself"
            )
            return
        if step_ns > AHEAD_NS:
            notes.append(f"time jumped {step_ns / 1e9:.1f} s ahead at {frame.name}")
        last_ns = frame.stamp_ns
        yield frame


def _with_next(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
    """Each frame with the one after it."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            yield before, frame
        before = frame
    if before is not None:
        yield before, None
