"""Every default, once. ROS parameters, command-line options and the tables in the docs are made from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from etr_ros.compute_config import ComputeConfig
from etr_ros.errors import ConfigError
from etr_ros.memory_config import MemoryConfig
from etr_ros.options import Scalar, build, option, options

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ExtractorConfig:
    """How a picture becomes features. A map remembers these values; a query must use the same."""

    name: str = option("xfeat", "Local features", choices=("xfeat", "superpoint", "delg-lite", "delg-r50", "delg-r101"))
    global_name: str = option(
        "auto",
        "Global descriptor; auto takes the one that goes with the local features",
        choices=("auto", "vlad", "delg"),
    )
    global_weights: str = option(
        "", "Weight file of the global descriptor (see `etr fit-vlad`); empty takes the registered one"
    )
    weights: str = option("", "Weight file of the local features; empty takes the registered one (see `etr weights`)")
    max_keypoints: int = option(512, "Local features kept per picture, strongest first", low=16, high=8192)
    max_side_px: int = option(
        640, "Pictures with a longer side are shrunk to this before extraction", low=64, high=4096
    )


@dataclass(frozen=True)
class RetrievalConfig:
    """How candidates are found among the places of a map."""

    index: str = option(
        "auto",
        "Index of the map; auto compares all places of a small map, and takes ivf-pq for a large one",
        choices=("auto", "exact", "hnsw", "ivf-pq"),
    )
    top_k: int = option(20, "Candidates retrieved; ETR reads `rerank.shortlist` of them", low=1, high=1000, live=True)


@dataclass(frozen=True)
class RerankConfig:
    """How candidates are put in order."""

    name: str = option("etr-s", "Re-ranker: etr-s, etr-s-small (faster), etr-d, magsac, none, or a .safetensors file")
    max_locals: int = option(
        0, "Local features read per picture; 0 takes what the weights were trained with", low=0, high=4096
    )
    shortlist: int = option(
        20,
        "Candidates that ETR reads, the most promising ones by a quick look at all; the others follow without a score; "
        "0: all",
        low=0,
        high=1000,
    )
    confirmed: int = option(
        5, "Best ones that geometry has a look at; 0: none, and hardly any probability reaches 0.9", low=0, high=100
    )


@dataclass(frozen=True)
class DecisionConfig:
    """When a candidate is believed."""

    min_probability: float = option(
        0.9, "Candidates below this match probability are not accepted", low=0.0, high=1.0, live=True
    )
    ambiguity_m: float = option(
        5.0, "Accepted places further apart than this (metres) make the answer ambiguous", low=0.0, high=1e6, live=True
    )
    ambiguity_s: float = option(
        10.0,
        "The same for places without poses: seen further apart than this (seconds) in one session",
        low=0.0,
        high=1e6,
        live=True,
    )
    min_agreement: float = option(
        0.9,
        "Share of the picture's points in 3-D on whose depth query and place must agree; things that were moved since "
        "lower it",
        low=0.0,
        high=1.0,
        live=True,
    )
    calibration: str = option(
        "",
        "Calibration file of the match probability (see `etr calibrate`); empty takes the re-ranker's own",
    )
    max_false_loops_per_km: float = option(
        0.0,
        "Accept so that there are at most this many false loops, or false places when localizing, per km driven by "
        "what the calibration measured; replaces min_probability; 0 turns it off",
        low=0.0,
        high=1e6,
        live=True,
    )


@dataclass(frozen=True)
class GeometryConfig:
    """How the relative pose between a query and a place is computed, and what its covariance is made from."""

    candidates: int = option(
        8, "Best candidates whose relative pose is computed; 0 turns geometry off", low=0, high=100, live=True
    )
    min_inliers: int = option(
        20,
        "Fewer local matches than this that agree with one motion do not verify a place",
        low=6,
        high=4096,
        live=True,
    )
    pixel_sigma: float = option(
        1.0, "Standard deviation of a local feature's position in pixels", low=0.01, high=100.0, live=True
    )
    depth_sigma: float = option(
        0.0025,
        "Standard deviation of a depth of 1 m in metres; it grows with the square of the depth",
        low=1e-5,
        high=1.0,
        live=True,
    )
    inflation: float = option(
        2.5,
        "Covariances are multiplied by this: errors of neighbouring local features are alike, not independent",
        low=1.0,
        high=100.0,
        live=True,
    )
    max_depth_m: float = option(10.0, "Depth beyond this (metres) is not used", low=0.1, high=1000.0, live=True)


@dataclass(frozen=True)
class LoopConfig:
    """When a place match becomes a loop closure: what odometry and neighbouring queries must say."""

    enabled: bool = option(
        False, "Build a map of this session while driving and look for loops in it; needs odometry to be sure"
    )
    exclusion_s: float = option(
        20.0, "Places of this session younger than this (seconds) are no candidates", low=0.0, high=1e6, live=True
    )
    exclusion_m: float = option(
        5.0,
        "Places of this session nearer than this along the way driven (metres) are no candidates",
        low=0.0,
        high=1e6,
        live=True,
    )
    min_probability: float = option(
        0.1,
        "Match probability of a loop before odometry and neighbouring queries are asked",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_coverage: float = option(
        0.12,
        "Share of the picture that the agreeing local matches of a loop must spread over",
        low=0.0,
        high=1.0,
        live=True,
    )
    max_sigma_m: float = option(
        0.15,
        "Metric loops whose relative position is less certain (standard deviation in metres) are rejected",
        low=0.001,
        high=100.0,
        live=True,
    )
    min_support: int = option(
        2, "Neighbouring queries that must agree with a loop before it is accepted", low=0, high=100, live=True
    )
    first_support: int = option(
        8,
        "The same where odometry and accepted loops do not tell the relative position to 0.5 m yet",
        low=0,
        high=100,
        live=True,
    )
    support_s: float = option(
        15.0,
        "Queries within this time (seconds) are neighbours; a loop waits this long for support",
        low=0.0,
        high=1e4,
        live=True,
    )
    max_pending: int = option(100, "Loops that wait for support; the oldest is rejected first", low=1, high=10000)
    drift_m_per_m: float = option(
        0.02, "Odometry drift in metres per metre driven (one standard deviation)", low=0.0, high=1.0, live=True
    )
    drift_deg_per_m: float = option(
        0.2, "Odometry drift in degrees per metre driven (one standard deviation)", low=0.0, high=90.0, live=True
    )


@dataclass(frozen=True)
class KeyframeConfig:
    """Which pictures of a drive become places of a map: a picture is kept when any limit is passed."""

    distance_m: float = option(0.5, "Distance to the last keyframe in metres (needs poses)", low=0.0, high=1e4)
    angle_deg: float = option(20.0, "Turn since the last keyframe in degrees (needs poses)", low=0.0, high=180.0)
    period_s: float = option(
        0.0, "Time since the last keyframe in seconds; 0 turns the rule off when there are poses", low=0.0, high=1e6
    )


@dataclass(frozen=True)
class NodeConfig:
    """How the ROS node meets the robot."""

    map: str = option("", "Folder of the map, read at every configure; ~/load_map swaps it while running", live=True)
    autostart: bool = option(False, "Configure and activate at start, without a lifecycle manager")
    image_topic: str = option("image", "Topic of the camera")
    compressed: bool = option(False, "The image topic carries sensor_msgs/CompressedImage")
    reliable: bool = option(True, "Ask for reliable delivery of images; a best-effort camera needs false")
    queue_depth: int = option(2, "Images that the middleware may hold back for the node", low=1, high=100)
    image_timeout_s: float = option(
        5.0, "Diagnostics report an error after this many seconds without an image", low=0.1, high=3600.0, live=True
    )
    deadline_ms: float = option(
        0.0,
        "An answer is due this long after its image came (milliseconds); candidates that cannot be re-ranked by then "
        "keep the order of retrieval and are not accepted; 0: whatever time it takes",
        low=0.0,
        high=1e5,
        live=True,
    )
    min_period_s: float = option(
        0.0,
        "Least time between queries in seconds, by image stamps; 0 queries whenever the node is free",
        low=0.0,
        high=3600.0,
        live=True,
    )
    min_motion_m: float = option(
        0.0,
        "Query only after moving this far in metres, or turning (needs odometry; 0 turns the rule off)",
        low=0.0,
        high=1e4,
        live=True,
    )
    min_motion_deg: float = option(
        0.0,
        "Query only after turning this far in degrees, or moving (needs odometry; 0 turns the rule off)",
        low=0.0,
        high=180.0,
        live=True,
    )
    place_sigma_m: float = option(
        1.0,
        "Standard deviation of ~/pose in metres where no metric relative pose is known: the spacing of the map",
        low=0.01,
        high=1e4,
        live=True,
    )
    place_sigma_deg: float = option(
        20.0,
        "Standard deviation of ~/pose in degrees where no metric relative pose is known",
        low=0.1,
        high=180.0,
        live=True,
    )


@dataclass(frozen=True)
class SensorConfig:
    """What else than images the node listens to, and where the camera sits."""

    camera_info_topic: str = option("", "Topic of sensor_msgs/CameraInfo; empty: no intrinsics, so no relative pose")
    rectified: bool = option(
        False, "The camera's pictures are rectified: the intrinsics are P of the camera info, not K and the distortion"
    )
    depth_topic: str = option(
        "",
        "Topic of depth images registered to the camera (16UC1 in mm or 32FC1 in m; compressed when its name ends "
        "in /compressedDepth)",
    )
    right_image_topic: str = option(
        "", "Topic of the right camera of a rectified stereo pair (compressed when its name ends in /compressed)"
    )
    right_info_topic: str = option("", "Topic of the right camera's sensor_msgs/CameraInfo")
    odom_topic: str = option("", "Topic of nav_msgs/Odometry; empty reads odom_frame from TF in loop mode")
    odom_frame: str = option("odom", "Frame of the odometry when it is read from TF")
    odom_jump_m: float = option(
        2.0,
        "A step of the odometry longer than this within 0.2 s (metres) is a jump, as is a turn of more than 60 "
        "degrees; geometry is not carried across it",
        low=0.01,
        high=1e4,
    )
    base_frame: str = option("base_link", "Frame of the robot's body")
    camera_mount: str = option(
        "",
        "Where the camera sits on the body, 'x y z roll pitch yaw' in metres and degrees; with zero angles it "
        "looks along the body's x, a positive pitch tilts it down; empty asks TF for the image's frame",
    )
    sync_ms: float = option(
        20.0,
        "Depth, right image and odometry may differ from the image's stamp by this (milliseconds)",
        low=0.0,
        high=1000.0,
        live=True,
    )


@dataclass(frozen=True)
class BackendConfig:
    """Which SLAM back ends the accepted loops and poses are sent to."""

    names: str = option(
        "", "Back ends to feed, separated by commas: rtabmap, pose_graph, cslam, initialpose, cuvslam; empty feeds none"
    )
    robot_id: int = option(0, "Number of this robot in pose_graph", low=0, high=2**31 - 1)
    node_tolerance_s: float = option(
        1.0, "rtabmap and cslam: a place belongs to their nearest node within this time (seconds)", low=0.001, high=60.0
    )
    max_waiting: int = option(
        100, "rtabmap and cslam: loops that wait for their nodes; beyond, the oldest is given up", low=1, high=10000
    )


@dataclass(frozen=True)
class Config:
    """All of the core's configuration. Construct with `Config.from_dict`, which validates."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    keyframe: KeyframeConfig = field(default_factory=KeyframeConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from nested (`{"retrieval": {"top_k": 5}}`) or dotted (`{"retrieval.top_k": 5}`) values.

        Raises ConfigError for an unknown name, a wrong type or a value out of range.
        """
        config: Self = build(cls, values)
        return config

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file of nested values, plain or as a ROS parameter file for every node (`/**`).

        Raises ConfigError when it cannot be read or does not validate.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must hold sections such as 'retrieval:' with 'top_k: 20' below")
        if set(values) == {"/**"}:
            values = (values["/**"] or {}).get("ros__parameters") or {}
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, dict[str, Scalar]]:
        """Nested plain values, as for YAML or JSON."""
        return dataclasses.asdict(self)

    def replace(self, **dotted: Any) -> Self:
        """A copy with some values changed: `config.replace(**{"retrieval.top_k": 5})`."""
        flat: dict[str, Any] = {each.name: each.value for each in options(self)}
        return type(self).from_dict(flat | dotted)


@dataclass(frozen=True)
class RobotConfig(Config):
    """The core's configuration and that of the ROS node around it."""

    node: NodeConfig = field(default_factory=NodeConfig)
    sensor: SensorConfig = field(default_factory=SensorConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)

    @property
    def enough_px(self) -> int:
        """How long the longer side of a decoded JPEG must be; 0, all of it, where disparities are measured in it."""
        return 0 if self.sensor.right_image_topic else self.extractor.max_side_px
