"""What the node says about one image: the match, the pose and the annotated picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from etr_ros.config import NodeConfig
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import ANNOTATED, MATCH, POSE
from etr_ros.ros.picture import draw_match
from etr_ros.types import Frame, PlaceMatch, State
from etr_ros_msgs.msg import PlaceMatch as PlaceMatchMessage


class AnswerPublishers:
    """Lifecycle publishers: silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._match = node.create_lifecycle_publisher(MATCH.type, MATCH.name, 10)
        self._pose = node.create_lifecycle_publisher(POSE.type, POSE.name, 10)
        self._annotated = node.create_lifecycle_publisher(ANNOTATED.type, ANNOTATED.name, 1)

    def publish(
        self,
        message: PlaceMatchMessage,
        match: PlaceMatch,
        frame: Frame,
        thumbnail: Callable[[int], NDArray[np.uint8] | None],
        config: NodeConfig,
    ) -> None:
        """Publish `message`, which says `match`, the answer to `frame`, and what follows from it."""
        header = message.header
        self._match.publish(message)
        best = match.best
        if match.state is State.LOCALIZED and best is not None and best.place.pose is not None:
            sigmas = config.place_sigma_m, config.place_sigma_deg
            self._pose.publish(conversions.to_pose_with_covariance(best.place.pose, header.stamp, *sigmas))
        if self._annotated.get_subscription_count() > 0:
            self._annotated.publish(conversions.to_image(draw_match(frame.image, match, thumbnail), header))
