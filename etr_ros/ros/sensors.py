"""What the node knows about an image beside its pixels: intrinsics, mount, depth or right image, and odometry."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from etr_ros import images
from etr_ros import sensor_conversions as conversions
from etr_ros.camera import Camera
from etr_ros.config import SensorConfig
from etr_ros.errors import ConfigError
from etr_ros.ros.feeds import KEEP, Feed, Link, OdometryFeed, is_late
from etr_ros.ros.frames import Frames
from etr_ros.ros.problems import Problems, about
from etr_ros.tf import Segments, Transform
from etr_ros.track import BACK_NS, TransformError
from etr_ros.transforms import compose
from etr_ros.types import FloatArray, Frame, Pose

WAIT = 5  # times sensor.sync_ms
EVENT_S = 5.0  # how long diagnostics show a jump or a restart
SILENT_S = 1.0
RESTART_S = 2.0  # within this, all streams going back are one restart


class Sensors:
    """Subscribes to what the configuration names, and completes frames with what was measured when they were taken.

    What is not known stays None, and `problems` says why. `restarted` counts how often time went back (a bag started
    again); everything older was forgotten then. `config.sync_ms` may be changed by assigning `config`. `complete` and
    `stereo` are for one thread; the other methods for any.
    """

    def __init__(
        self,
        node: Node,
        config: SensorConfig,
        *,
        reliable: bool = True,
        needs_pose: bool = False,
        after: Sensors | None = None,
    ) -> None:
        """`reliable` is the delivery asked of pictures and camera info; `needs_pose` takes odometry from TF if need be.
        `after` listened before: a new segment of odometry begins, and time that went back since is noticed.

        Raises ConfigError for topics that make no sense together or a mount that is none.
        """
        _check(config)
        self.config = config
        self.restarted = 0
        self._problems = Problems()
        self._changed = threading.Condition()
        self._link = Link(node, MutuallyExclusiveCallbackGroup(), self._changed, self._problems)
        self._reliable, self._needs_pose, self._closed = reliable, needs_pose, False
        self._mount = conversions.to_mount(config.camera_mount, config.base_frame) if config.camera_mount else None
        self._last_image_ns: int | None = after._last_image_ns if after else None
        self._restarted_s = -math.inf
        self._segments = Segments(after.segment + 1 if after else 0)
        self._newest: tuple[int | None, float] = (None, 0.0)  # stamp of the odometry, and when it came
        self._info = self._feed(config.camera_info_topic, CameraInfo, keep=1)
        self._depth = self._feed(config.depth_topic)
        self._right = self._feed(config.right_image_topic)
        self._right_info = self._feed(config.right_info_topic, CameraInfo, keep=1)
        self._odometry: OdometryFeed | None = None
        if config.odom_topic:
            self._odometry = OdometryFeed(self._link, config.odom_topic, config.odom_jump_m, self._restart)
        self._frames = Frames(self._link, config.odom_jump_m)
        if (self._info and not self._mount) or (needs_pose and not self._odometry):
            with contextlib.suppress(TransformError):  # told by the first frame
                self._frames.listen()

    def close(self) -> None:
        """Unsubscribe, and end the wait of `complete`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for feed in (self._info, self._depth, self._right, self._right_info, self._odometry, self._frames):
            if feed is not None:
                feed.close()

    @property
    def segment(self) -> int:
        """The segment of odometry that the last completed frame belongs to."""
        return self._segments.number

    @property
    def newest_pose(self) -> Pose | None:
        """Where odometry last saw the robot; None when it says nothing, or said nothing new for a second."""
        with self._changed:
            newest_ns, now_s = self._odometry_ns(), time.monotonic()
            if newest_ns != self._newest[0]:
                self._newest = newest_ns, now_s
            if newest_ns is None or now_s - self._newest[1] > SILENT_S:
                return None
            if self._odometry is not None:
                return self._odometry.at(newest_ns, 0)[0]
            with contextlib.suppress(TransformError):
                return self._frames.lookup(self.config.odom_frame, self.config.base_frame, newest_ns, 0, "").pose
            return None

    def problems(self) -> list[str]:
        """What is wrong now, one line each with what to do."""
        return self._problems.lines()

    def warnings(self) -> list[str]:
        """Those problems that came up since the last call, for the log."""
        return self._problems.take_new()

    def complete(self, frame: Frame, camera_frame_id: str) -> Frame:
        """The frame with camera, mount, depth or right picture, and pose, as far as they are known at its stamp.

        `camera_frame_id` is the `header.frame_id` of the image. Waits for late depth, right image and odometry, for at
        most 5 times sensor.sync_ms.
        """
        stamp, camera_frame = frame.stamp_ns, conversions.frame_name(camera_frame_id)
        self._watch_time(stamp)
        with self._changed:
            limit_s = WAIT * self.config.sync_ms / 1e3
            self._changed.wait_for(lambda: self._closed or not self._awaits(stamp, camera_frame), limit_s)
        known = self._problems.known
        right, baseline_m = known("right image", lambda: self._stereo(stamp)) or (None, 0.0)
        return dataclasses.replace(
            frame,
            camera=known("camera", lambda: self._camera(frame)),
            body_t_camera=known("mount", lambda: self._body_t_camera(stamp, camera_frame)),
            depth_m=known("depth", lambda: self._depth_m(frame, camera_frame)),
            right=right,
            baseline_m=baseline_m,
            pose=known("odometry", lambda: self._pose(stamp)),
        )

    # What is known at a stamp: None when it was not asked for, EtrError when it should be there

    def _camera(self, frame: Frame) -> Camera | None:
        if self._info is None:
            return None
        with about(f"no intrinsics on {self._info.topic}"):
            camera = conversions.to_camera(self._info.newest(), self.config.rectified or self._right is not None)
            camera.require_size(*frame.size)
            return camera

    def _body_t_camera(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        if self._info is None or self._mount is not None:
            return self._mount
        if not camera_frame:
            raise TransformError("the images carry no frame_id: set sensor.camera_mount")
        mount = "set sensor.camera_mount"
        return self._frames.lookup(self.config.base_frame, camera_frame, stamp_ns, self._tolerance_ns, mount).pose

    def _depth_m(self, frame: Frame, camera_frame: str) -> FloatArray | None:
        if self._depth is None:
            return None
        with about(f"no depth on {self._depth.topic}"):
            message = self._depth.near(frame.stamp_ns, self._tolerance_ns)
            conversions.require_registered(message, camera_frame)
            return conversions.to_depth_m(message, *frame.size)

    def _stereo(self, stamp_ns: int) -> tuple[images.Image, float] | None:
        if self._right is None or self._right_info is None:
            return None
        with about(f"no baseline on {self._right_info.topic}"):
            baseline_m = conversions.to_baseline_m(self._right_info.newest())
        with about(f"no right image on {self._right.topic}"):
            return images.from_message(self._right.near(stamp_ns, self._tolerance_ns)).image, baseline_m

    def _pose(self, stamp_ns: int) -> Pose | None:
        base = self.config.base_frame
        if self._odometry is not None:
            pose, child, edge = self._odometry.at(stamp_ns, self._tolerance_ns)
            moved = Transform(pose, (edge,))
            self._problems.clear("child")
            if not child:
                line = f"odometry on {self._odometry.topic} names no child_frame_id: it is taken as '{base}'"
                self._problems.report("child", line)
            elif child != base:
                instead = f"set sensor.base_frame to {child}"
                child_t_base = self._frames.lookup(child, base, stamp_ns, self._tolerance_ns, instead).pose
                moved = Transform(compose(pose, child_t_base), (edge,))
        elif self._needs_pose:
            instead = "set sensor.odom_topic"
            moved = self._frames.lookup(self.config.odom_frame, base, stamp_ns, self._tolerance_ns, instead)
        else:
            return None
        jump = self._segments.follow(moved)
        if jump:
            self._problems.report("jump", f"odometry jumped ({jump} since the last image): check its source", EVENT_S)
        return moved.pose

    # Time

    @property
    def _tolerance_ns(self) -> int:
        return int(self.config.sync_ms * 1e6)

    def _awaits(self, stamp_ns: int, camera_frame: str) -> bool:
        newest = [self._odometry_ns()]
        if self._mount is None:
            newest.append(self._frames.newest_ns(self.config.base_frame, camera_frame))
        pictures = [feed for feed in (self._depth, self._right) if feed is not None]
        late = any(is_late(each, stamp_ns) for each in newest)
        return late or any(feed.awaits(stamp_ns, self._tolerance_ns) for feed in pictures)

    def _odometry_ns(self) -> int | None:
        if self._odometry is not None:
            return self._odometry.track.newest_ns
        if self._needs_pose:
            return self._frames.newest_ns(self.config.odom_frame, self.config.base_frame)
        return None

    def _watch_time(self, stamp_ns: int) -> None:
        with self._changed:
            if self._last_image_ns is not None and stamp_ns < self._last_image_ns - BACK_NS:
                self._restart(self._last_image_ns - stamp_ns)
            self._last_image_ns = stamp_ns
        if stamp_ns:
            self._problems.clear("stamp")
        else:
            self._problems.report("stamp", "the images carry no time stamp: nothing can be matched to them")

    def _restart(self, back_ns: int) -> None:
        """Forget what was before; `changed` is held. Streams go back one after the other, which is one restart."""
        if time.monotonic() - self._restarted_s < RESTART_S:
            return
        self._restarted_s = time.monotonic()
        self.restarted += 1
        self._segments.restart()
        self._last_image_ns = None
        for feed in (self._depth, self._right, self._odometry, self._frames):
            if feed is not None:
                feed.clear()
        line = f"time went back by {back_ns / 1e9:.1f} s (was a bag started again?): all before is forgotten"
        self._problems.report("time", line, EVENT_S)

    # Construction

    def _feed(self, topic: str, kind: type | None = None, keep: int = KEEP) -> Feed | None:
        picture = CompressedImage if topic.endswith(("/compressed", "/compressedDepth")) else Image
        return Feed(self._link, topic, kind or picture, reliable=self._reliable, keep=keep) if topic else None


def _check(config: SensorConfig) -> None:
    if bool(config.right_image_topic) != bool(config.right_info_topic):
        raise ConfigError("a stereo pair needs both sensor.right_image_topic and sensor.right_info_topic")
    if (config.depth_topic or config.right_image_topic) and not config.camera_info_topic:
        raise ConfigError("depth and stereo need intrinsics: set sensor.camera_info_topic")
