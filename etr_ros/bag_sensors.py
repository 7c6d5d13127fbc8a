"""What a rosbag2 recording knows about its pictures beside their pixels: intrinsics, mount and depth."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from etr_ros import sensor_conversions as conversions
from etr_ros.bag_messages import Nearest, Stream
from etr_ros.bag_storage import Bag
from etr_ros.camera import Camera
from etr_ros.config import SensorConfig
from etr_ros.errors import CameraError, ConfigError, EtrError
from etr_ros.tf import TransformBuffer
from etr_ros.track import TransformError
from etr_ros.types import FloatArray, Frame, Pose

T = TypeVar("T")

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
TF_STATIC, TF_TYPE = "/tf_static", "tf2_msgs/msg/TFMessage"
SHOWN_REASONS = 3


class BagSensors:
    """Completes the frames of a bag. What is not known stays None, the frame stays usable, and `notes` says why."""

    def __init__(self, bag: Bag, config: SensorConfig) -> None:
        """Reads what `config` names, but for stereo and odometry.

        Raises DataError when the bag lacks a topic, ConfigError for a mount that is none or depth without intrinsics.
        """
        if not config.camera_info_topic:
            raise ConfigError("depth and the camera's mount need intrinsics: give --camera-info-topic")
        self._config, self._bag = config, bag
        self._infos = Stream(bag, config.camera_info_topic, (CAMERA_INFO,), "camera info")
        self._depths = Stream(bag, config.depth_topic, DEPTH_TYPES, "image") if config.depth_topic else None
        self._mount = conversions.to_mount(config.camera_mount, config.base_frame) if config.camera_mount else None
        self._frames = 0
        self._missing: dict[str, Counter[str]] = {}

    def start(self, body_frame: str = "") -> None:
        """Read from the start of the bag. `body_frame` is that of the poses, by default `config.base_frame`."""
        self._body_frame = body_frame or self._config.base_frame
        self._frames, self._missing = 0, {}
        self._info = Nearest(iter(self._infos))
        self._depth = Nearest(iter(self._depths)) if self._depths else None
        if self._mount is None:
            self._transforms = self._static_transforms()
        else:
            self._mount = dataclasses.replace(self._mount, frame_id=self._body_frame)

    def complete(self, frame: Frame, camera_frame_id: str) -> Frame:
        """The frame with its camera and, as far as they are known, mount and depth.

        `camera_frame_id` is the `header.frame_id` of the picture. `start` first; frames come in the order of time.
        """
        self._frames += 1
        camera_frame = conversions.frame_name(camera_frame_id)
        camera = self._known("intrinsics", lambda: self._camera(frame))
        if camera is None:
            return frame
        return dataclasses.replace(
            frame,
            camera=camera,
            body_t_camera=self._known("mount", lambda: self._body_t_camera(camera_frame)),
            depth_m=self._known("depth", lambda: self._depth_m(frame, camera_frame)),
        )

    def notes(self) -> list[str]:
        """What the pictures so far lack and why, one line each; empty when all is well."""
        notes = []
        for what, reasons in self._missing.items():
            shown = reasons.most_common(SHOWN_REASONS)
            why = "; ".join(f"{reason} ({count})" for reason, count in shown) if len(reasons) > 1 else shown[0][0]
            notes.append(f"{reasons.total()} of {self._frames} pictures have no {what}: {why}")
        return notes + self._infos.notes() + (self._depths.notes() if self._depths else [])

    def _known(self, what: str, read: Callable[[], T | None]) -> T | None:
        try:
            return read()
        except EtrError as error:
            self._missing.setdefault(what, Counter())[str(error)] += 1
            return None

    def _camera(self, frame: Frame) -> Camera:
        found = self._info.at(frame.stamp_ns)
        if found is None:
            raise CameraError(f"{self._infos.topic} holds no message that can be read")
        camera = conversions.to_camera(found[1], self._config.rectified)
        camera.require_size(*frame.size)
        return camera

    def _body_t_camera(self, camera_frame: str) -> Pose:
        if self._mount is not None:
            return self._mount
        if not camera_frame:
            raise TransformError("they carry no frame_id: give --camera-mount")
        try:
            return self._transforms.lookup(self._body_frame, camera_frame, 0).pose
        except TransformError as error:
            raise TransformError(
                f"'{camera_frame}' in '{self._body_frame}' is not known: {error} on {TF_STATIC}, or give --camera-mount"
            ) from error

    def _depth_m(self, frame: Frame, camera_frame: str) -> FloatArray | None:
        if self._depth is None or self._depths is None:
            return None
        found = self._depth.at(frame.stamp_ns)
        if found is None or abs(found[0] - frame.stamp_ns) > self._config.sync_ms * 1e6:
            raise CameraError(f"{self._depths.topic} holds none within {self._config.sync_ms:g} ms of the picture")
        conversions.require_registered(found[1], camera_frame)
        return conversions.to_depth_m(found[1], *frame.size)

    def _static_transforms(self) -> TransformBuffer:
        buffer = TransformBuffer(self._config.odom_jump_m)
        topic = self._bag.topics.get(TF_STATIC)
        if topic is None or topic.type != TF_TYPE:
            return buffer
        for _, message in Stream(self._bag, TF_STATIC, (TF_TYPE,), "TF"):
            for each in message.transforms:
                child, pose = conversions.to_transform(each)
                with contextlib.suppress(TransformError):  # what is missing then is told by the first picture
                    if pose is not None:
                        buffer.set_static(child, pose)
        return buffer
