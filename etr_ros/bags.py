"""The pictures of a rosbag2 recording, with the pose of the robot at the time of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_typestore

from etr_ros import images
from etr_ros.bag_storage import Bag
from etr_ros.datasets import FrameSource
from etr_ros.errors import DataError, ImageError
from etr_ros.poses import PoseTrack
from etr_ros.types import Frame

RAW_IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (RAW_IMAGE, COMPRESSED_IMAGE)
POSE_TYPES = ("nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")

_MESSAGES = get_typestore(Stores.ROS2_HUMBLE)  # these types are the same in every later distribution


class BagImages(FrameSource):
    """The pictures of one image topic, raw or compressed. Stamps are those of the headers, names are the stamps.

    Poses are read from the pose topic at each picture's stamp, see `PoseTrack.at`. A header without a stamp
    (0, as of some drivers) is replaced by the time at which the bag received the message.
    """

    def __init__(self, path: Path, image_topic: str, pose_topic: str | None = None, session: str = "") -> None:
        """Raises DataError when the bag cannot be read or lacks a topic (naming those that would do)."""
        self._bag = Bag(path)
        self._image_topic, self._pose_topic = image_topic, pose_topic
        self._image_type = _topic_type(self._bag, image_topic, IMAGE_TYPES, "image")
        self._pose_type = pose_topic and _topic_type(self._bag, pose_topic, POSE_TYPES, "pose")
        self.session = session or path.resolve().stem
        self._unstamped = self._broken_poses = 0
        super().__init__(self._bag.topics[image_topic].messages, has_poses=pose_topic is not None)

    def describe(self) -> str:
        poses = f" with poses of {self._pose_topic}" if self._pose_topic else ""
        return f"{self._image_topic} in {self._bag.path}{poses}"

    def notes(self) -> list[str]:
        notes = super().notes()
        if self._unstamped:
            notes.append(f"{self._unstamped} pictures have no stamp: the time of recording was taken")
        if self._broken_poses:
            notes.append(f"{self._broken_poses} messages of {self._pose_topic} are damaged and were left out")
        if self._bag.damage:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._bag.damage.items())
            of_all = "" if self.expected is None else f" of {self.expected}"
            notes.append(
                f"the bag is damaged, {self.read + len(self.skipped)}{of_all} pictures could be read ({reasons})"
            )
        return notes

    def _frames(self) -> Iterator[Frame]:
        self._unstamped = self._broken_poses = 0
        track = self._read_track()
        for received_ns, data in self._bag.messages(self._image_topic):
            try:
                message = _deserialize(data, self._image_type)
                stamp_ns = _stamp_ns(message) or received_ns
                image = images.from_message(message)
            except (DataError, ImageError) as error:
                self.skipped.append(f"{_name(received_ns)}: {error}")
                continue
            self._unstamped += _stamp_ns(message) == 0
            yield Frame(image, stamp_ns, _name(stamp_ns), self.session, track.at(stamp_ns) if track else None)

    def _read_track(self) -> PoseTrack | None:
        if not (self._pose_topic and self._pose_type):
            return None
        stamps, rows, frame_id = [], [], ""
        for received_ns, data in self._bag.messages(self._pose_topic):
            try:
                message = _deserialize(data, self._pose_type)
            except DataError:
                self._broken_poses += 1
                continue
            frame_id = frame_id or message.header.frame_id
            pose = message.pose if hasattr(message.pose, "position") else message.pose.pose
            position, quat = pose.position, pose.orientation
            stamps.append(_stamp_ns(message) or received_ns)
            rows.append((position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w))
        return PoseTrack(stamps, rows, frame_id or "map")


def _topic_type(bag: Bag, name: str, types: Collection[str], what: str) -> str:
    topic = bag.topics.get(name)
    if topic is not None and topic.type in types:
        return topic.type
    fitting = [f"{name} ({topic.type})" for name, topic in bag.topics.items() if topic.type in types]
    others = (
        f"its {what} topics are: {', '.join(fitting)}" if fitting else f"it has no {what} topic ({', '.join(types)})"
    )
    if not name:
        raise DataError(f"name the {what} topic to read of the bag {bag.path}; {others}")
    problem = f"has no topic {name}" if topic is None else f"has {name} as {topic.type}, which is no {what}"
    raise DataError(f"the bag {bag.path} {problem}; {others}")


def _deserialize(data: bytes, kind: str) -> Any:
    try:
        return _MESSAGES.deserialize_cdr(data, kind)
    except Exception as error:  # the parser of damaged data raises anything
        raise DataError(f"the message is damaged ({error})") from error


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _name(stamp_ns: int) -> str:
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
