"""What the node says about one image: the match, the pose and the annotated picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from etr_ros.config import RobotConfig
from etr_ros.localization import pose_of, pose_of_loop
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import ANNOTATED, LOOPS, MATCH, POSE
from etr_ros.ros.picture import draw_match
from etr_ros.types import Frame, LoopClosure, PlaceMatch, State
from etr_ros_msgs.msg import PlaceMatch as PlaceMatchMessage


class AnswerPublishers:
    """Lifecycle publishers: silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._match = node.create_lifecycle_publisher(MATCH.type, MATCH.name, 10)
        self._pose = node.create_lifecycle_publisher(POSE.type, POSE.name, 10)
        self._loops = node.create_lifecycle_publisher(LOOPS.type, LOOPS.name, 100)
        self._annotated = node.create_lifecycle_publisher(ANNOTATED.type, ANNOTATED.name, 1)

    def publish(
        self,
        message: PlaceMatchMessage,
        match: PlaceMatch,
        frame: Frame,
        thumbnail: Callable[[int], NDArray[np.uint8] | None],
        config: RobotConfig,
    ) -> PoseWithCovarianceStamped | None:
        """Publish `message`, which says `match`, the answer to `frame`, and what follows from it; give back the pose.

        In loop mode the pose is that of accepted loops with the prebuilt map, see `publish_loop`.
        """
        header = message.header
        self._match.publish(message)
        best, pose = match.best, None
        if match.state is State.LOCALIZED and best is not None and not config.loop.enabled:
            known = pose_of(best, config.node.place_sigma_m, config.node.place_sigma_deg)
            pose = known and conversions.to_pose_with_covariance(*known, header.stamp)
        if pose is not None:
            self._pose.publish(pose)
        if self._annotated.get_subscription_count() > 0:
            self._annotated.publish(conversions.to_image(draw_match(frame.image, match, thumbnail), header))
        return pose

    def publish_loop(self, loop: LoopClosure, camera_frame: str) -> PoseWithCovarianceStamped | None:
        """Publish a decided loop; an accepted one with a prebuilt map tells the pose in it, which is given back."""
        message = conversions.to_loop_message(loop, camera_frame)
        self._loops.publish(message)
        known = pose_of_loop(loop)
        if known is None:
            return None
        pose = conversions.to_pose_with_covariance(*known, message.header.stamp)
        self._pose.publish(pose)
        return pose
