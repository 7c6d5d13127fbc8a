"""The values that flow through the pipeline, in the order in which they flow.

Frame -> View (features, camera) -> Candidate (retrieved, re-ranked, verified, judged) -> PlaceMatch -> LoopClosure.
All are immutable; arrays in them are to be treated as read-only.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from etr_ros.camera import Camera

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
    """One camera picture. `image` is (H, W, 3) uint8 in BGR order; `stamp_ns` is nanoseconds since epoch.

    `camera` holds the intrinsics, `body_t_camera` where the camera's optical frame (REP-104) sits on the robot.
    `depth_m` (H, W) is the distance along the optical axis in metres, registered to the picture, NaN where unknown.
    `right` (H, W, 3) is the picture of the right camera of a rectified stereo pair, `baseline_m` away.
    `full_size` is the width and height that the camera took where `image` was decoded smaller; intrinsics, depth and
    keypoints are of that size.
    """

    image: NDArray[np.uint8]
    stamp_ns: int
    name: str = ""
    session: str = ""
    pose: Pose | None = None
    camera: Camera | None = None
    body_t_camera: Pose | None = None
    depth_m: FloatArray | None = None
    right: NDArray[np.uint8] | None = None
    baseline_m: float = 0.0
    full_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as the camera took it."""
        return self.full_size or (self.image.shape[1], self.image.shape[0])


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
    points_m: FloatArray | None = None  # (N, 3) where each local is in the optical frame, NaN where unknown
    depth_sigma_m: FloatArray | None = None  # (N,) of z in points_m; None or NaN: as the depth camera's

    def __len__(self) -> int:
        return len(self.keypoints)

    def at_size(self, width: int, height: int) -> Features:
        """The same features, without 3-D points, in pixels of the picture at another size."""
        scale = np.array([width / self.image_size[0], height / self.image_size[1]], np.float32)
        keypoints = (self.keypoints + 0.5) * scale - 0.5
        return Features(keypoints, self.scores, self.descriptors, self.scales, (width, height), self.global_descriptor)

    def strongest(self, count: int) -> Features:
        """The same features cut to the `count` best locals."""
        return Features(
            self.keypoints[:count],
            self.scores[:count],
            self.descriptors[:count],
            self.scales[:count],
            self.image_size,
            self.global_descriptor,
            None if self.points_m is None else self.points_m[:count],
            None if self.depth_sigma_m is None else self.depth_sigma_m[:count],
        )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture reduced to what recognition and geometry read of it."""

    features: Features
    camera: Camera | None = None
    body_t_camera: Pose | None = None


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

    `retrieval_score` is the cosine of the global descriptors in [-1, 1]. `etr_score` is the re-ranker's score (any real
    number), higher where geometry confirmed it, or None when it was not computed. `probability` is in
    [0, 1].
    `reason` is empty when `accepted`, else says why not. `weight` is the share of the belief that is with this place,
    in [0, 1]: 1 when localized, split when ambiguous, 0 when unknown; the first candidate of a place has it.
    """

    place: Place
    retrieval_score: float
    etr_score: float | None = None
    probability: float | None = None
    inliers: int | None = None
    accepted: bool = False
    reason: str = ""
    geometry: Geometry | None = None
    weight: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """How the robot stood at the query to how it stood at the place, from local matches that agree with one motion.

    `match_t_query` is the pose of the query's body in the matched place's body frame: p_match = match_t_query p_query.
    Its position is in metres when `is_metric`; else it is a unit direction, or zero when not even that is known.
    It is None when no relative pose could be computed. `covariance` is (6, 6), see `etr_ros.transforms`; when the pose
    is not metric, its position block says how sure the direction is. `degeneracy` names what makes it less certain,
    empty when nothing does; `coverage` is the share of the picture that the inliers spread over, in [0, 1]; `agreement`
    is the share of all locals in 3-D on whose depth both views agree, see `etr_ros.layout`, NaN when not known.
    """

    inliers: int
    matches: int
    match_t_query: Pose | None = None
    covariance: NDArray[np.float64] | None = None
    is_metric: bool = False
    degeneracy: str = ""
    coverage: float = 0.0
    agreement: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class LoopClosure:
    """Two places that are believed, or not, to be near each other, for the pose graph of a SLAM back end.

    `geometry.match_t_query` is the relative pose. `reason` is empty when `accepted`, else says why not; a rejected one
    must not enter a pose graph. `support` counts the neighbouring queries that agree.
    """

    query: Place
    match: Place
    geometry: Geometry
    probability: float | None = None
    support: int = 0
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
    def scored(self) -> int:
        """How many candidates have a match probability: fewer than all when the answer was due before the last."""
        return sum(candidate.probability is not None for candidate in self.candidates)

    @property
    def best(self) -> Candidate | None:
        """The accepted candidate with the best score, or None."""
        return next((candidate for candidate in self.candidates if candidate.accepted), None)


@dataclass(frozen=True, slots=True, eq=False)
class LoopAnswer:
    """What one picture told: its match, and the loops that are decided now.

    A loop may belong to an earlier keyframe, which waited for this one's support.
    """

    match: PlaceMatch
    loops: tuple[LoopClosure, ...]
