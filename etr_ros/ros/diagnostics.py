"""How the node is doing: counters that it keeps, and the words for `/diagnostics`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible

from etr_ros.types import LoopClosure, PlaceMatch

if TYPE_CHECKING:
    from etr_ros.database import MapInfo

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass
class Counters:
    """What happened since the node was activated. Times are those of `time.monotonic`, in seconds."""

    received: int = 0
    skipped: int = 0  # too soon or too close to the last query
    spared: int = 0  # not answered because the node is overloaded
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    last_image_s: float | None = None
    last_wait_ms: float = 0.0  # from arrival to the start of the work
    last_age_ms: float = 0.0  # from the image's stamp to the answer
    last_match: PlaceMatch | None = None
    loops_accepted: int = 0
    loops_rejected: int = 0
    last_loop: str = ""

    def image_came(self) -> None:
        """Count an image and remember when it came."""
        self.received += 1
        self.last_image_s = time.monotonic()

    def loop_decided(self, loop: LoopClosure) -> None:
        """Count a loop, accepted or rejected."""
        self.loops_accepted += loop.accepted
        self.loops_rejected += not loop.accepted
        what = "accepted" if loop.accepted else f"rejected: {loop.reason}"
        self.last_loop = f"{loop.query.place_id} to {loop.match.place_id}, {what}"


class Health:
    """Turns the counters into one diagnostic status per call of `status`, rates being those since the last call."""

    def __init__(self) -> None:
        self.activated_s = time.monotonic()
        self.counters = Counters()
        self.setup_error = ""
        self.last_error = ""
        self._before = Counters()
        self._before_s = time.monotonic()

    def activated(self) -> None:
        """Start to count anew."""
        self.activated_s = self._before_s = time.monotonic()
        self.counters, self._before = Counters(), Counters()

    def silent_s(self) -> float:
        """Seconds since the last image, or since activation when none came."""
        last = self.counters.last_image_s
        return time.monotonic() - (self.activated_s if last is None else last)

    def status(
        self,
        name: str,
        state: str,
        info: MapInfo | None,
        problems: Sequence[str] = (),
        *,
        is_silent: bool = False,
        values: Mapping[str, Any] | None = None,
    ) -> DiagnosticStatus:
        """The status of the node called `name` in lifecycle state `state`.

        `problems` says what is wrong with what comes in or goes out; `is_silent` when the first is that no images come.
        `values` are told beside the counters.
        """
        now, before = self.counters, self._before
        period_s = max(time.monotonic() - self._before_s, 1e-3)
        failed = now.failed - before.failed
        rates = [(b - a) / period_s for a, b in ((before.received, now.received), (before.answered, now.answered))]
        self._before, self._before_s = Counters(**vars(now)), time.monotonic()

        if self.setup_error:
            level, message = ERROR, self.setup_error
        elif state != "active":
            level, message = OK, state
        elif is_silent:
            level, message = ERROR, problems[0]
        elif failed:
            level, message = WARN, f"images that could not be used: {failed} ({self.last_error})"
        elif problems:
            level, message = WARN, problems[0]
        else:
            level, message = OK, now.last_match.state.value if now.last_match else "waiting for the first answer"

        told: dict[str, Any] = {
            "state": state,
            "map": info.path if info else "",
            "map id": info.map_id if info else "",
            "places": info.places if info else 0,
            "image rate (Hz)": f"{rates[0]:.1f}",
            "query rate (Hz)": f"{rates[1]:.1f}",
            "images received": now.received,
            "images answered": now.answered,
            "images dropped (node busy)": now.dropped,
            "images skipped (limits between queries, or no keyframe)": now.skipped,
            "images spared (node overloaded)": now.spared,
            "images that could not be used": now.failed,
            "time in queue (ms)": f"{now.last_wait_ms:.1f}",
            "age of the last answer (ms)": f"{now.last_age_ms:.1f}",
            "loops accepted": now.loops_accepted,
            "loops rejected": now.loops_rejected,
            "last loop": now.last_loop,
            "problems": "; ".join(problems),
            "last error": self.last_error,
        }
        told |= values or {}
        for stage, duration_ms in (now.last_match.stage_ms if now.last_match else {}).items():
            told[f"{stage} (ms)"] = f"{duration_ms:.1f}"
        pairs = [KeyValue(key=key, value=str(value)) for key, value in told.items()]
        return DiagnosticStatus(level=level, name=name, message=message, hardware_id="", values=pairs)


def why_no_images(topic: str, type_name: str, qos: QoSProfile, publishers: Sequence[Any], silent_s: float) -> str:
    """One line on why nothing arrives on `topic`, and what to do.

    `publishers` are `rclpy.topic_endpoint_info.TopicEndpointInfo`s of the topic; `type_name` and `qos` are what the
    node subscribed with.
    """
    asked = f"{type_name}, {_reliability(qos)}, depth {qos.depth}"
    problem = f"no image for {silent_s:.1f} s on {topic} ({asked})"
    if not publishers:
        return f"{problem}: nobody publishes there; set node.image_topic to the camera's topic"
    if all(each.topic_type != type_name for each in publishers):
        hint = f"set node.compressed to {'false' if 'Compressed' in type_name else 'true'}"
        return f"{problem}: it carries {publishers[0].topic_type}; {hint}, or choose a camera's topic"
    offers = [each.qos_profile for each in publishers if each.topic_type == type_name]
    who = f"{len(offers)} publisher{'s' if len(offers) > 1 else ''} ({', '.join(map(_reliability, offers))})"
    if all(qos_check_compatible(offer, qos)[0] == QoSCompatibility.ERROR for offer in offers):
        return f"{problem}: {who} with incompatible quality of service; set node.reliable to false"
    if qos.reliability == ReliabilityPolicy.BEST_EFFORT:
        return f"{problem} from {who}: large images get lost without reliable delivery; use compressed images"
    return f"{problem} from {who}: the camera is silent, or too fast for the network"


def _reliability(qos: QoSProfile) -> str:
    return "best effort" if qos.reliability == ReliabilityPolicy.BEST_EFFORT else "reliable"
