"""The pictures of a rosbag2 recording, with the pose of the robot at the time of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from etr_ros import images
from etr_ros.bag_messages import Stream, deserialize, stamp_ns, topic_type
from etr_ros.bag_sensors import BagSensors
from etr_ros.bag_storage import Bag
from etr_ros.config import SensorConfig
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError, ImageError
from etr_ros.poses import PoseTrack
from etr_ros.sensor_conversions import frame_name
from etr_ros.types import Frame

RAW_IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (RAW_IMAGE, COMPRESSED_IMAGE)
POSE_TYPES = ("nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")


class BagImages(FrameSource):
    """The pictures of one image topic, raw or compressed. Stamps are those of the headers, names are the stamps.

    Poses are read from the pose topic at each picture's stamp, see `PoseTrack.at`. A header without a stamp
    (0, as of some drivers) is replaced by the time at which the bag received the message. Intrinsics, mount and depth
    come with `sensors`, see `BagSensors`; the body is the frame that odometry names as its child.
    """

    def __init__(
        self,
        path: Path,
        image_topic: str,
        pose_topic: str | None = None,
        session: str = "",
        sensors: SensorConfig | None = None,
    ) -> None:
        """Raises DataError when the bag cannot be read or lacks a topic (naming those that would do).

        Raises ConfigError for sensors that make no sense.
        """
        self._bag = Bag(path)
        self._image_topic, self._pose_topic = image_topic, pose_topic
        self._image_type = topic_type(self._bag, image_topic, IMAGE_TYPES, "image")
        self._poses = Stream(self._bag, pose_topic, POSE_TYPES, "pose") if pose_topic is not None else None
        self._sensors = BagSensors(self._bag, sensors) if sensors else None
        self.session = session or path.resolve().stem
        self._unstamped = 0
        super().__init__(self._bag.topics[image_topic].messages, has_poses=pose_topic is not None)

    def describe(self) -> str:
        poses = f" with poses of {self._pose_topic}" if self._pose_topic else ""
        return f"{self._image_topic} in {self._bag.path}{poses}"

    def notes(self) -> list[str]:
        notes = super().notes()
        if self._unstamped:
            notes.append(f"{self._unstamped} pictures have no stamp: the time of recording was taken")
        for source in (self._poses, self._sensors):
            notes += source.notes() if source else []
        if self._bag.damage:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._bag.damage.items())
            of_all = "" if self.expected is None else f" of {self.expected}"
            notes.append(
                f"the bag is damaged, {self.read + len(self.skipped)}{of_all} pictures could be read ({reasons})"
            )
        return notes

    def _frames(self) -> Iterator[Frame]:
        self._unstamped = 0
        track, body_frame = self._read_track()
        if self._sensors:
            self._sensors.start(body_frame)
        for received_ns, data in self._bag.messages(self._image_topic):
            try:
                message = deserialize(data, self._image_type)
                taken_ns = stamp_ns(message) or received_ns
                image = images.from_message(message)
            except (DataError, ImageError) as error:
                self.skipped.append(f"{_name(received_ns)}: {error}")
                continue
            self._unstamped += stamp_ns(message) == 0
            frame = Frame(image, taken_ns, _name(taken_ns), self.session, track.at(taken_ns) if track else None)
            yield self._sensors.complete(frame, message.header.frame_id) if self._sensors else frame

    def _read_track(self) -> tuple[PoseTrack | None, str]:
        """The poses, and the frame that they are of; empty when no message names it."""
        if self._poses is None:
            return None, ""
        stamps, rows, frame_id, child_frame = [], [], "", ""
        for taken_ns, message in self._poses:
            frame_id = frame_id or message.header.frame_id
            child_frame = child_frame or frame_name(getattr(message, "child_frame_id", ""))
            pose = message.pose if hasattr(message.pose, "position") else message.pose.pose
            position, quat = pose.position, pose.orientation
            stamps.append(taken_ns)
            rows.append((position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w))
        return PoseTrack(stamps, rows, frame_id or "map"), child_frame


def _name(at_ns: int) -> str:
    return f"{at_ns // 1_000_000_000}.{at_ns % 1_000_000_000:09d}"
