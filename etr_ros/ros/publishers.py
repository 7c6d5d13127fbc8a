"""What the node says about one image: the match, the pose, the annotated picture and markers."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from etr_ros.config import RobotConfig
from etr_ros.localization import pose_of_loop, pose_of_match
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import ANNOTATED, LOOPS, MARKERS, MATCH, POSE
from etr_ros.ros.markers import loop_markers, map_markers, match_markers
from etr_ros.ros.picture import draw_match
from etr_ros.types import Frame, LoopClosure, PlaceMatch
from etr_ros_msgs.msg import PlaceMatch as PlaceMatchMessage

if TYPE_CHECKING:
    from etr_ros.pipeline import Recognizer

MAX_LOOPS = 2000  # that markers show, the newest ones
MAP_EVERY_S = 5.0  # the marker of the map is sent again, for whoever has come


class AnswerPublishers:
    """Lifecycle publishers: silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._match = node.create_lifecycle_publisher(MATCH.type, MATCH.name, 10)
        self._pose = node.create_lifecycle_publisher(POSE.type, POSE.name, 10)
        self._loops = node.create_lifecycle_publisher(LOOPS.type, LOOPS.name, 100)
        self._annotated = node.create_lifecycle_publisher(ANNOTATED.type, ANNOTATED.name, 1)
        self._markers = node.create_lifecycle_publisher(MARKERS.type, MARKERS.name, 10)
        self._decided: deque[LoopClosure] = deque(maxlen=MAX_LOOPS)
        self._shown: tuple[object, ...] = ()

    def restart(self) -> None:
        """A new drive begins: markers forget the loops of the last one."""
        self._decided.clear()

    def publish(
        self,
        message: PlaceMatchMessage,
        match: PlaceMatch,
        frame: Frame,
        recognizer: Recognizer,
        config: RobotConfig,
    ) -> PoseWithCovarianceStamped | None:
        """Publish `message`, which says `match`, the answer to `frame`, and what follows from it; give back the pose.

        In loop mode the pose is that of accepted loops with the prebuilt map, see `publish_loop`.
        """
        header = message.header
        self._match.publish(message)
        pose = None
        if not config.loop.enabled:
            known = pose_of_match(match, config.node.place_sigma_m, config.node.place_sigma_deg)
            pose = known and conversions.to_pose_with_covariance(*known, header.stamp)
        if pose is not None:
            self._pose.publish(pose)
        if self._annotated.get_subscription_count() > 0:
            self._annotated.publish(conversions.to_image(draw_match(frame.image, match, recognizer.thumbnail), header))
        if self._markers.get_subscription_count() > 0:
            self._publish_markers(match, recognizer)
        return pose

    def publish_loop(self, loop: LoopClosure, camera_frame: str) -> PoseWithCovarianceStamped | None:
        """Publish a decided loop; an accepted one with a prebuilt map tells the pose in it, which is given back."""
        self._decided.append(loop)
        message = conversions.to_loop_message(loop, camera_frame)
        self._loops.publish(message)
        known = pose_of_loop(loop)
        if known is None:
            return None
        pose = conversions.to_pose_with_covariance(*known, message.header.stamp)
        self._pose.publish(pose)
        return pose

    def _publish_markers(self, match: PlaceMatch, recognizer: Recognizer) -> None:
        markers = match_markers(match) + loop_markers(self._decided)
        info, viewers = recognizer.info, self._markers.get_subscription_count()
        shown = (info.map_id, info.places, viewers, time.monotonic() // MAP_EVERY_S)
        if shown != self._shown:
            self._shown = shown
            markers += map_markers(recognizer.places)
        self._markers.publish(MarkerArray(markers=markers))
