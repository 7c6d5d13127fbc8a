"""Pictures' companions over a real DDS: complete frames from another process, and every way in which sensors fail."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sensor_source
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sensor_rig import MOUNT, MS, Rig, S, until
from sensor_source import RIGHT_GREY, START_NS, x_at

import sensor_messages as messages
from etr_ros.config import SensorConfig
from etr_ros.errors import ConfigError
from etr_ros.ros.conversions import stamp_ns, to_frame
from etr_ros.ros.sensors import Sensors
from etr_ros.types import Frame
from sensor_messages import HEIGHT, WIDTH

RGBD = {"camera_info_topic": "/left/info", "depth_topic": "/depth", "odom_topic": "/odom", "camera_mount": MOUNT}
STEREO = {"camera_info_topic": "/left/info", "right_image_topic": "/right/image", "right_info_topic": "/right/info"}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def _stopped(rig: Rig) -> Iterator[None]:
    yield
    rig.stop()


def test_frames_of_another_process_are_complete(rig: Rig) -> None:
    sensors = rig.listen(**RGBD | STEREO)
    newest: list[Image] = []
    subscription = rig.node.create_subscription(Image, "/left/image", newest.append, 10)
    with subprocess.Popen([sys.executable, sensor_source.__file__]) as process:
        try:
            until(lambda: len(newest) > 5, "images")
            checked: set[int] = set()
            complete = 0
            while complete < 20:
                assert len(checked) < 200, sensors.problems()
                until(lambda: stamp_ns(newest[-1].header.stamp) not in checked, "the next image")
                frame = sensors.complete(to_frame(newest[-1]), newest[-1].header.frame_id)
                checked.add(frame.stamp_ns)
                if frame.camera is None or frame.pose is None or frame.depth_m is None or frame.right is None:
                    continue  # this machine was too busy: what came too late stays unknown
                complete += 1
                assert (frame.camera.width, frame.camera.fx, frame.camera.distortion) == (WIDTH, 55.0, ())  # rectified
                assert frame.pose.position_m == pytest.approx((x_at(frame.stamp_ns), 0, 0), abs=1e-6)
                assert frame.pose.frame_id == "odom"
                np.testing.assert_allclose(frame.depth_m, 1.0 + x_at(frame.stamp_ns), rtol=1e-6)
                assert frame.body_t_camera is not None and frame.body_t_camera.position_m == (0.2, 0, 0.5)
                assert frame.right.shape == (HEIGHT, WIDTH, 3) and frame.right.min() == RIGHT_GREY
                assert frame.baseline_m == pytest.approx(0.12)
            assert (sensors.segment, sensors.restarted) == (0, 0)
        finally:
            process.kill()
            rig.node.destroy_subscription(subscription)


def test_nothing_is_asked_for(rig: Rig) -> None:
    sensors = rig.listen()
    frame = rig.complete()
    assert (frame.camera, frame.body_t_camera, frame.depth_m, frame.right, frame.pose) == (None,) * 5
    assert sensors.problems() == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"right_image_topic": "/right/image"}, "both sensor.right_image_topic and sensor.right_info_topic"),
        ({"depth_topic": "/depth"}, "set sensor.camera_info_topic"),
        ({"camera_mount": "here"}, "'x y z roll pitch yaw'"),
    ],
)
def test_configurations_that_make_no_sense(rig: Rig, config: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sensors(rig.node, SensorConfig(**config))


# Camera info


def test_camera_info_missing_then_late_then_of_another_size(rig: Rig) -> None:
    sensors = rig.listen(**RGBD | {"depth_topic": "", "odom_topic": ""})
    assert rig.complete().camera is None
    assert sensors.problems() == [
        "no intrinsics on /left/info: nothing has come yet: its publisher is silent, or too fast for the network"
    ]
    assert sensors.warnings() == sensors.problems()
    assert sensors.warnings() == []
    rig.send(rig.source.info, messages.info(k=[0.0] * 9))
    assert rig.named("the camera is not calibrated").camera is None
    rig.send(rig.source.info, messages.info())
    rig.eventually(lambda frame: frame.camera)
    assert sensors.problems() == []
    assert rig.complete(size=(80, 60)).camera is None
    assert "camera info is for 64 x 48 pictures, this one has 80 x 60" in sensors.problems()[0]


@pytest.mark.parametrize(
    ("kind", "reliability", "words"),
    [
        (None, None, "nobody publishes there"),
        (Image, ReliabilityPolicy.RELIABLE, "carries sensor_msgs/msg/Image, not sensor_msgs/msg/CameraInfo"),
        (CameraInfo, ReliabilityPolicy.BEST_EFFORT, "set node.reliable to false"),
    ],
)
def test_why_no_camera_info(rig: Rig, kind: Any, reliability: Any, words: str) -> None:
    rig.listen(camera_info_topic="/odd/info", camera_mount=MOUNT)
    publisher = kind and rig.other.create_publisher(kind, "/odd/info", QoSProfile(depth=1, reliability=reliability))
    rig.named(words)
    if publisher:
        rig.other.destroy_publisher(publisher)


# Depth


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (messages.depth(np.ones((20, 30), np.float32), START_NS), "30 x 20 px, the picture 64 x 48"),
        (messages.flat_depth(0.0, START_NS), "all zero or NaN"),
        (messages.flat_depth(math.nan, START_NS), "all zero or NaN"),
        (
            messages.depth(np.ones((HEIGHT, WIDTH), np.float32), START_NS, encoding="8UC1"),
            "encoding '8UC1' is not known",
        ),
        (
            messages.flat_depth(1.0, START_NS - 40 * MS),
            "nearest message is 40 ms before the image: raise sensor.sync_ms",
        ),
        (messages.flat_depth(1.0, START_NS - 5 * S), "5000 ms before the image: check its publisher and the clocks"),
        (messages.flat_depth(1.0, START_NS + 30 * MS), "30 ms after the image"),
        (
            messages.depth(np.ones((HEIGHT, WIDTH), np.float32), header=messages.header(START_NS, "infrared")),
            "seen from 'infrared', the image from 'camera_optical': take depth that is registered",
        ),
    ],
)
def test_depth_that_cannot_be_used_is_named_until_it_is_good(rig: Rig, message: Image, words: str) -> None:
    sensors = rig.listen(**RGBD | {"odom_topic": ""})
    rig.send(rig.source.info, messages.info())
    rig.send(rig.source.depth, message)
    assert rig.named(words).depth_m is None
    rig.send(rig.source.depth, messages.flat_depth(2.0, START_NS + S))
    rig.eventually(lambda frame: frame.depth_m is not None and frame.camera, START_NS + S)
    assert sensors.problems() == []


def test_compressed_depth(rig: Rig) -> None:
    rig.listen(**RGBD | {"depth_topic": "/depth/compressedDepth"})
    publisher = rig.other.create_publisher(CompressedImage, "/depth/compressedDepth", 5)
    until(publisher.get_subscription_count, "the subscription")
    message = messages.compressed_depth(np.full((HEIGHT, WIDTH), 1500, np.uint16), "16UC1; compressedDepth png")
    message.header = messages.header(START_NS)
    rig.send(publisher, message)
    frame = rig.eventually(lambda frame: frame.depth_m is not None)
    assert frame.depth_m is not None and frame.depth_m.max() == pytest.approx(1.5)


def test_depth_that_is_a_little_late_is_waited_for(rig: Rig) -> None:
    rig.listen(**RGBD, sync_ms=400.0)
    rig.send(rig.source.depth, messages.flat_depth(1.0, START_NS))
    rig.eventually(lambda frame: frame.depth_m is not None)
    timer = threading.Timer(0.3, lambda: rig.source.depth.publish(messages.flat_depth(3.0, START_NS + 500 * MS)))
    timer.start()
    frame = rig.complete(START_NS + 500 * MS)
    timer.join()
    assert frame.depth_m is not None and frame.depth_m.max() == pytest.approx(3.0)


def test_closing_ends_the_wait(rig: Rig) -> None:
    sensors = rig.listen(**RGBD, sync_ms=1000.0)
    rig.send(rig.source.depth, messages.flat_depth(1.0, START_NS))
    rig.eventually(lambda frame: frame.depth_m is not None)
    sensors.config = SensorConfig(**RGBD, sync_ms=999.0)
    frames: list[Frame] = []
    waiting = threading.Thread(target=lambda: frames.append(rig.complete(START_NS + 999 * MS + 1)))
    waiting.start()
    rig.stop()
    waiting.join(2.0)  # it would wait for 5 s
    assert len(frames) == 1


# Stereo


def test_right_camera_problems(rig: Rig) -> None:
    sensors = rig.listen(**STEREO, camera_mount=MOUNT)
    rig.send(rig.source.info, messages.info())
    frame = rig.eventually(lambda frame: frame.camera and frame)
    assert frame.right is None
    assert sensors.problems()[0].startswith("no baseline on /right/info: nothing has come yet")
    rig.send(rig.source.right_info, messages.info(p=[50.0, *[0.0] * 11]))
    rig.eventually(lambda _: "gives no baseline" in sensors.problems()[0])
    rig.send(rig.source.right_info, messages.info())
    rig.eventually(lambda _: "no right image on /right/image" in sensors.problems()[0])
    assert rig.complete().right is None
