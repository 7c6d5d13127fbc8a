"""Camera info, depth, mounts and problems: what is read of good messages, and what is said of bad ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not here")

from sensor_msgs.msg import RegionOfInterest

import sensor_messages as messages
from etr_ros import sensor_conversions as conversions
from etr_ros import transforms
from etr_ros.errors import CameraError, ConfigError
from etr_ros.ros.problems import Problems
from sensor_messages import HEIGHT, WIDTH

METRES = np.linspace(0.5, 5.0, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
MILLIMETRES = (METRES * 1000).astype(np.uint16)


def test_camera_is_read_of_k_or_of_p() -> None:
    camera = conversions.to_camera(messages.info(), rectified=False)
    assert (camera.fx, camera.cx, camera.distortion[0]) == (60.0, 31.5, 0.1)
    rectified = conversions.to_camera(messages.info(), rectified=True)
    assert (rectified.fx, rectified.cx, rectified.cy, rectified.distortion) == (55.0, 30.0, 20.0, ())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"k": [0.0] * 9, "d": [], "width": 0, "height": 0}, "not calibrated"),
        ({"k": [math.nan] * 9}, "no nine numbers"),
        ({"distortion_model": "guess"}, "'guess' is not known"),
        ({"binning_x": 2}, "binned"),
        ({"roi": RegionOfInterest(x_offset=4, width=32, height=48)}, "region of interest"),
    ],
)
def test_camera_info_that_cannot_be_used(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(CameraError, match=words):
        conversions.to_camera(messages.info(**changed), rectified=False)


def test_a_region_of_interest_of_the_whole_picture_is_none() -> None:
    whole = RegionOfInterest(width=WIDTH, height=HEIGHT)
    assert conversions.to_camera(messages.info(roi=whole), rectified=False).fx == 60.0


def test_baseline() -> None:
    assert conversions.to_baseline_m(messages.info()) == pytest.approx(0.12)


@pytest.mark.parametrize(("focal_px", "shift"), [(0.0, -6.0), (50.0, 0.0), (50.0, 6.0), (50.0, math.nan), (1e-9, -6.0)])
def test_no_baseline(focal_px: float, shift: float) -> None:
    p = [focal_px, 0.0, 30.0, shift, 0.0, focal_px, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    with pytest.raises(CameraError, match="gives no baseline"):
        conversions.to_baseline_m(messages.info(p=p))


def padded(values: np.ndarray) -> Any:
    """The depth image with 6 bytes of padding behind each row."""
    raw = np.full((HEIGHT, values.strides[0] + 6), 255, np.uint8)
    raw[:, :-6] = values.view(np.uint8)
    return messages.depth(values, step=raw.shape[1], data=messages.bytes_of(raw))


@pytest.mark.parametrize(
    ("message", "tolerance_m"),
    [
        (messages.depth(METRES), 0.0),
        (messages.depth(METRES.astype(">f4")), 0.0),
        (padded(METRES), 0.0),
        (messages.depth(MILLIMETRES), 1e-3),
        (messages.depth(MILLIMETRES.astype(">u2")), 1e-3),
        (messages.compressed_depth(MILLIMETRES, "16UC1; compressedDepth"), 1e-3),
        (messages.compressed_depth(MILLIMETRES, "16UC1; compressedDepth png"), 1e-3),
        # quantisation a / (value - b) as the transport defines it, with a = 10100 and b = 1
        (
            messages.compressed_depth((10100 / METRES + 1).astype(np.uint16), "32FC1; compressedDepth png", (10100, 1)),
            3e-3,
        ),
    ],
)
def test_depth_is_read(message: Any, tolerance_m: float) -> None:
    depth_m = conversions.to_depth_m(message, WIDTH, HEIGHT)
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, METRES, rtol=0, atol=tolerance_m)


@pytest.mark.parametrize("unknown", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_distance_is_nan(unknown: float) -> None:
    values = METRES.copy()
    values[3, 4] = unknown
    depth_m = conversions.to_depth_m(messages.depth(values), WIDTH, HEIGHT)
    assert np.isnan(depth_m[3, 4]) and np.isnan(depth_m).sum() == 1


def test_zero_in_compressed_depth_is_nan() -> None:
    values = (10100 / METRES + 1).astype(np.uint16)
    values[0, 0], values[0, 1] = 0, 1  # unknown, and a division by zero
    depth_m = conversions.to_depth_m(
        messages.compressed_depth(values, "32FC1; compressedDepth", (10100, 1)), WIDTH, HEIGHT
    )
    assert np.isnan(depth_m[0, :2]).all() and np.isnan(depth_m).sum() == 2


PNG = messages.compressed_depth(MILLIMETRES, "16UC1; compressedDepth").data
ODD_PNG = messages.compressed_depth(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "").data


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (messages.depth(METRES[:20]), "depth image has 64 x 20 px, the picture 64 x 48"),
        (messages.depth(np.zeros_like(METRES)), "all zero or NaN"),
        (messages.depth(np.full_like(METRES, math.nan)), "all zero or NaN"),
        (messages.depth(np.zeros_like(MILLIMETRES)), "all zero or NaN"),
        (messages.depth(METRES, encoding="rgb8"), "encoding 'rgb8' is not known: publish it as 16UC1 or 32FC1"),
        (messages.depth(METRES, encoding=""), "encoding '' is not known"),
        (messages.depth(METRES, step=10), "10 in a row; 48 rows of 256 are needed"),
        (messages.depth(METRES, data=messages.bytes_of(METRES[:20])), "has 5120 bytes"),
        (messages.compressed_depth(MILLIMETRES[:20], "16UC1; compressedDepth"), "64 x 20 px"),
        (messages.compressed_depth(MILLIMETRES, "16UC1; compressedDepth rvl"), "publish it as compressedDepth png"),
        (messages.compressed_depth(MILLIMETRES, "jpeg"), "encoding 'jpeg' is not known"),
        (messages.CompressedImage(format="16UC1; compressedDepth"), "is not known"),
        (messages.CompressedImage(format="16UC1; compressedDepth", data=PNG[:60]), "damaged"),
        (messages.CompressedImage(format="16UC1; compressedDepth", data=PNG[:40] + PNG[80:]), "damaged"),
        (messages.CompressedImage(format="16UC1; compressedDepth", data=ODD_PNG), "damaged, or not of 16 bits"),
    ],
)
def test_depth_that_cannot_be_used(message: Any, words: str) -> None:
    with pytest.raises(CameraError, match=words):
        conversions.to_depth_m(message, WIDTH, HEIGHT)


def seen_from_body(mount: str, point: tuple[float, float, float]) -> list[float]:
    return (transforms.to_matrix(conversions.to_mount(mount, "base_link")) @ [*point, 1.0])[:3].tolist()


def test_mount_places_the_optical_frame() -> None:
    assert seen_from_body("0.2 0 0.5 0 0 0", (0, 0, 1)) == pytest.approx([1.2, 0, 0.5])  # ahead
    assert seen_from_body("0 0 0 0 0 0", (1, 0, 0)) == pytest.approx([0, -1, 0])  # the picture's right
    assert seen_from_body("0 0 0 0 30 0", (0, 0, 2)) == pytest.approx([math.sqrt(3), 0, -1])  # tilted down
    assert seen_from_body("0 0 0 0 30 90", (0, 0, 2)) == pytest.approx([0, math.sqrt(3), -1])  # and turned left
    assert seen_from_body("0 0 0 90 0 0", (1, 0, 0)) == pytest.approx([0, 0, -1])  # rolled to the right
    assert conversions.to_mount("0 0 0 0 0 0", "base_link").frame_id == "base_link"


@pytest.mark.parametrize("text", ["0 0 0", "0 0 0 0 0 x", "0 0 0 0 0 nan", "inf 0 0 0 0 0", "1 2 3 4 5 6 7"])
def test_mount_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="must be 'x y z roll pitch yaw'"):
        conversions.to_mount(text, "base_link")


def test_transforms_lose_their_leading_slash_and_are_checked() -> None:
    child, pose = conversions.to_transform(messages.transform(0, "/base", "/camera", 1.0))
    assert child == "camera" and pose is not None and pose.frame_id == "base" and pose.position_m == (1, 0, 0)
    assert conversions.to_transform(messages.transform(0, "a", "b", math.nan))[1] is None


def test_problems_come_and_go_and_are_logged_once() -> None:
    now_s = 0.0
    problems = Problems(lambda: now_s)
    problems.report("depth", "no depth")
    problems.report("jump", "a jump", hold_s=5.0)
    assert problems.lines() == ["no depth", "a jump"]
    assert problems.take_new() == ["no depth", "a jump"]
    problems.clear("depth")
    assert problems.lines() == ["a jump"]
    now_s = 6.0
    problems.report("depth", "no depth again")
    assert problems.lines() == ["no depth again"]
    assert problems.take_new() == []
    now_s = 60.0
    problems.report("depth", "no depth at last")
    assert problems.take_new() == ["no depth at last"]


def test_a_problem_of_a_moment_is_told_at_least_once() -> None:
    now_s = 0.0
    problems = Problems(lambda: now_s)
    problems.report("jump", "a jump", hold_s=5.0)
    now_s = 60.0
    assert problems.lines() == ["a jump"]
    assert problems.lines() == []
