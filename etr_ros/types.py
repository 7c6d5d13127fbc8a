"""The values that flow through the pipeline, in the order in which they flow.

Frame -> Features -> Candidate (retrieved, re-ranked, judged) -> PlaceMatch.
All are immutable; arrays in them are to be treated as read-only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose of the robot body in a fixed frame (REP-105), `frame_T_body`.

    `position_m` is x, y, z in metres; `quat_xyzw` a unit quaternion (ROS order).
    """

    position_m: tuple[float, float, float]
    quat_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    frame_id: str = "map"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera picture. `image` is (H, W, 3) uint8 in BGR order; `stamp_ns` is nanoseconds since epoch."""

    image: NDArray[np.uint8]
    stamp_ns: int
    name: str = ""
    session: str = ""
    pose: Pose | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What an extractor reads in one picture; N local features, strongest first.

    Keypoints are in pixels of the original picture, the centre of the top left pixel being (0, 0).
    Descriptors, local and global, are L2-normalised.
    """

    keypoints: FloatArray  # (N, 2) x, y in pixels
    scores: FloatArray  # (N,) detector score, higher is better
    descriptors: FloatArray  # (N, D)
    scales: NDArray[np.uint8]  # (N,) index into the extractor's list of image scales
    image_size: tuple[int, int]  # width, height in pixels
    global_descriptor: FloatArray  # (G,)

    def __len__(self) -> int:
        return len(self.keypoints)

    def strongest(self, count: int) -> Features:
        """The same features cut to the `count` best locals."""
        return Features(
            self.keypoints[:count],
            self.scores[:count],
            self.descriptors[:count],
            self.scales[:count],
            self.image_size,
            self.global_descriptor,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """One keyframe of a map. `place_id` is its row in the map, starting at 0."""

    place_id: int
    name: str
    session: str
    stamp_ns: int
    pose: Pose | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place proposed for a query.

    `retrieval_score` is the cosine of the global descriptors in [-1, 1]. `etr_score` is the re-ranker's
    logit (any real number, 0 = undecided) or None when it was not computed. `probability` is in [0, 1].
    `reason` is empty when `accepted`, else says why not.
    """

    place: Place
    retrieval_score: float
    etr_score: float | None = None
    probability: float | None = None
    inliers: int | None = None
    accepted: bool = False
    reason: str = ""


class State(enum.Enum):
    """What a query told about where the robot is."""

    LOCALIZED = "localized"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PlaceMatch:
    """The answer to one query: its candidates, best first, and how long each stage took in milliseconds."""

    stamp_ns: int
    state: State
    candidates: tuple[Candidate, ...]
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Candidate | None:
        """The accepted candidate with the best score, or None."""
        return next((candidate for candidate in self.candidates if candidate.accepted), None)
