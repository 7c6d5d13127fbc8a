"""Every topic and service of the node, once: the node creates them, the reference page lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Empty
from visualization_msgs.msg import MarkerArray

from etr_ros.config import NodeConfig
from etr_ros_msgs.msg import LoopClosure, PlaceMatch
from etr_ros_msgs.srv import GetMapInfo, LoadMap, Localize, SaveMap


@dataclass(frozen=True)
class Endpoint:
    """A topic or service: its name, the class of its type, and what it is for.

    In a name, `~` is the node's; the name of a subscribed topic is that of the parameter that says it.
    """

    name: str
    type: Any
    help: str

    @property
    def type_name(self) -> str:
        """The type as ROS writes it, `package/msg/Type`."""
        package, kind, *_ = self.type.__module__.split(".")
        return f"{package}/{kind}/{self.type.__name__}"


MATCH = Endpoint("~/match", PlaceMatch, "The answer to each image that was queried, stamped as the image")
POSE = Endpoint(
    "~/pose",
    PoseWithCovarianceStamped,
    "Pose of the robot body in the map, stamped as the image; only when localized and the map has poses",
)
ANNOTATED = Endpoint(
    "~/annotated", Image, "The image beside its best candidates; computed only while somebody subscribes"
)
DIAGNOSTICS = Endpoint("/diagnostics", DiagnosticArray, "State, map, rates, drops, last error; once a second")
LOOPS = Endpoint(
    "~/loop_closures", LoopClosure, "Loop mode: every loop once it is decided, accepted or rejected with the reason"
)
MARKERS = Endpoint(
    "~/markers",
    MarkerArray,
    "Places, match, candidates and loops for RViz and Foxglove; made only while somebody subscribes",
)
PUBLISHED = (MATCH, POSE, LOOPS, ANNOTATED, MARKERS, DIAGNOSTICS)

IMAGE = Endpoint("node.image_topic", Image, "The camera when `node.compressed` is false")
COMPRESSED = Endpoint("node.image_topic", CompressedImage, "The camera when `node.compressed` is true")
INFO = Endpoint("sensor.camera_info_topic", CameraInfo, "Intrinsics of the camera, for relative poses")
DEPTH = Endpoint("sensor.depth_topic", Image, "Depth registered to the camera, for metric relative poses")
RIGHT = Endpoint("sensor.right_image_topic", Image, "Right picture of a rectified stereo pair, instead of depth")
RIGHT_INFO = Endpoint("sensor.right_info_topic", CameraInfo, "Intrinsics of the right camera, which hold the baseline")
ODOMETRY = Endpoint("sensor.odom_topic", Odometry, "Odometry: for loops, and for the least motion between queries")
TRIGGER = Endpoint("~/trigger", Empty, "Localize now, as `~/localize` does; the answer is on `~/match` and `~/pose`")
SUBSCRIBED = (IMAGE, COMPRESSED, INFO, DEPTH, RIGHT, RIGHT_INFO, ODOMETRY, TRIGGER)

LOAD_MAP = Endpoint("~/load_map", LoadMap, "Swap the map while running; a map that cannot be used leaves the old one")
GET_MAP_INFO = Endpoint("~/get_map_info", GetMapInfo, "Report the map in use")
LOCALIZE = Endpoint("~/localize", Localize, "Answer images at once, whatever the limits say, until one is recognised")
SAVE_MAP = Endpoint("~/save_map", SaveMap, "Loop mode: write the session that is being driven as a map")
SERVICES = (LOAD_MAP, GET_MAP_INFO, LOCALIZE, SAVE_MAP)


def camera(config: NodeConfig) -> Endpoint:
    """What the node subscribes to for images."""
    return COMPRESSED if config.compressed else IMAGE


def image_qos(config: NodeConfig) -> QoSProfile:
    """Quality of service of the image subscription."""
    reliability = ReliabilityPolicy.RELIABLE if config.reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=config.queue_depth, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
