"""The pictures of a rosbag2 recording, with the pose of the robot at the time of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from etr_ros import images
from etr_ros.bag_messages import deserialize, stamp_ns, topic_type
from etr_ros.bag_poses import BagPoses
from etr_ros.bag_sensors import BagSensors
from etr_ros.bag_storage import Bag
from etr_ros.camera import Camera
from etr_ros.config import SensorConfig
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError, ImageError
from etr_ros.types import Frame

RAW_IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (RAW_IMAGE, COMPRESSED_IMAGE)


class BagImages(FrameSource):
    """The pictures of one image topic, raw or compressed. Stamps are those of the headers, names are the stamps.

    Poses are read from the pose topic at each picture's stamp, see `BagPoses.at`. A header without a stamp
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
        self.bag = Bag(path)
        self._image_topic, self._pose_topic = image_topic, pose_topic
        self._image_type = topic_type(self.bag, image_topic, IMAGE_TYPES, "image")
        jump_m = (sensors or SensorConfig()).odom_jump_m
        self._poses = BagPoses(self.bag, pose_topic, jump_m) if pose_topic is not None else None
        self._sensors = BagSensors(self.bag, sensors) if sensors else None
        self.session = session or path.resolve().stem
        self._unstamped = 0
        self.camera_frame = ""  # of the first picture, and its intrinsics; known once it was read
        self.camera: Camera | None = None
        super().__init__(self.bag.topics[image_topic].messages, has_poses=pose_topic is not None)

    def describe(self) -> str:
        poses = f" with poses of {self._pose_topic}" if self._pose_topic else ""
        return f"{self._image_topic} in {self.bag.path}{poses}"

    def notes(self) -> list[str]:
        notes = super().notes()
        if self._unstamped:
            notes.append(f"{self._unstamped} pictures have no stamp: the time of recording was taken")
        for source in (self._poses, self._sensors):
            notes += source.notes() if source else []
        if self.bag.damage:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.bag.damage.items())
            of_all = "" if self.expected is None else f" of {self.expected}"
            notes.append(
                f"the bag is damaged, {self.read + len(self.skipped)}{of_all} pictures could be read ({reasons})"
            )
        return notes

    def segment_at(self, stamp_ns: int) -> int:
        """The number of the unbroken piece of the pose topic that a stamp lies in."""
        return self._poses.segment_at(stamp_ns) if self._poses else 0

    def _frames(self) -> Iterator[Frame]:
        self._unstamped = 0
        if self._sensors:
            self._sensors.start(self._poses.body_frame if self._poses else "")
        for received_ns, data in self.bag.messages(self._image_topic):
            try:
                message = deserialize(data, self._image_type)
                taken_ns = stamp_ns(message) or received_ns
                image, size = images.from_message(message, self.enough_px)
            except (DataError, ImageError) as error:
                self.skipped.append(f"{_name(received_ns)}: {error}")
                continue
            self._unstamped += stamp_ns(message) == 0
            pose = self._poses.at(taken_ns) if self._poses else None
            frame = Frame(image, taken_ns, _name(taken_ns), self.session, pose, full_size=size)
            if self._sensors:
                frame = self._sensors.complete(frame, message.header.frame_id)
            self.camera_frame = self.camera_frame or message.header.frame_id
            self.camera = self.camera or frame.camera
            yield frame


def _name(at_ns: int) -> str:
    return f"{at_ns // 1_000_000_000}.{at_ns % 1_000_000_000:09d}"
