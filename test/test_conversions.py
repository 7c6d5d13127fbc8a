"""Messages and core values: there and back."""

from __future__ import annotations

import dataclasses
import math
from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import SPEC, make_place
from etr_ros.database import MapInfo
from etr_ros.errors import ImageError
from etr_ros.types import Candidate, Place, PlaceMatch, Pose, State

pytest.importorskip("rclpy", reason="ROS 2 is not here")
pytest.importorskip("etr_ros_msgs.msg._place_match", reason="etr_ros_msgs is not built")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from etr_ros.localization import pose_of
from etr_ros.ros import conversions

INFO = MapInfo(
    map_id="abc",
    path="/maps/abc",
    format_version=1,
    places=7,
    locals=70,
    sessions=("monday", "tuesday"),
    has_poses=True,
    frame_id="map",
    rigs=(),
    features=SPEC,
    descriptors="half",
    index="exact",
    index_parameters={},
    metric="inner product",
    created="2024-02-29T12:00:00Z",
    files={"a": 5, "b": 6},
    config={},
)

finite = st.floats(-1e6, 1e6, width=32)
poses = st.builds(Pose, st.tuples(finite, finite, finite), st.tuples(finite, finite, finite, finite), st.just("map"))
places = st.builds(
    Place,
    st.integers(0, 2**32 - 1),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.text("abc", max_size=5),
    st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1),
    st.none() | poses,
)
unit = st.floats(0, 1, width=32)
candidates = st.builds(
    Candidate, places, unit, st.none() | finite, st.none() | unit, st.none() | st.integers(0, 9999), st.booleans()
)
matches = st.builds(
    PlaceMatch,
    st.integers(0, 2**31 * 10**9 - 1),
    st.sampled_from(State),
    st.lists(candidates, max_size=4).map(tuple),
    st.dictionaries(st.text("abc", min_size=1, max_size=5), unit, max_size=3),
)


@given(matches)
def test_match_survives_the_message(match: PlaceMatch) -> None:
    header = Header(stamp=conversions.to_stamp(match.stamp_ns), frame_id="camera")
    message = conversions.to_match_message(match, header, INFO.map_id, INFO.frame_id)
    assert (message.map_id, message.map_frame, message.header) == ("abc", "map", header)
    assert conversions.from_match_message(message) == match


def test_what_was_not_computed_is_nan_or_minus_one() -> None:
    message = conversions.to_candidate_message(Candidate(make_place(3), 0.5))
    assert math.isnan(message.etr_score)
    assert math.isnan(message.probability)
    assert (message.inliers, message.has_pose) == (-1, False)


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_stamp_there_and_back(nanoseconds: int) -> None:
    assert conversions.stamp_ns(conversions.to_stamp(nanoseconds)) == nanoseconds


@pytest.mark.parametrize("nanoseconds", [2**31 * 10**9, -(2**31) * 10**9 - 1, 10**30])
def test_stamp_that_no_message_can_hold_becomes_zero(nanoseconds: int) -> None:
    assert conversions.stamp_ns(conversions.to_stamp(nanoseconds)) == 0


@given(st.integers(32, 70), st.integers(32, 70), st.integers(0, 2**32 - 1))
def test_raw_image_there_and_back(width: int, height: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    message = conversions.to_image(picture, Header(stamp=conversions.to_stamp(5)))
    frame = conversions.to_frame(message)
    assert frame.stamp_ns == 5
    assert np.array_equal(frame.image, picture)


def test_compressed_image() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    message = CompressedImage(format="png", data=array("B", cv2.imencode(".png", picture)[1].tobytes()))
    assert np.array_equal(conversions.to_frame(message).image, picture)


@pytest.mark.parametrize(
    "message",
    [
        Image(),
        Image(height=40, width=50, encoding="bgr8", step=150),
        Image(height=40, width=50, encoding="32FC1", step=200, data=bytes(8000)),
        CompressedImage(),
        CompressedImage(format="16UC1; compressedDepth png", data=bytes(100)),
    ],
)
def test_image_that_cannot_be_used(message: Image | CompressedImage) -> None:
    with pytest.raises(ImageError):
        conversions.to_frame(message)


@given(st.floats(0.01, 1e3), st.floats(0.1, 180.0))
def test_covariance_is_that_of_the_sigmas_and_never_singular(sigma_m: float, sigma_deg: float) -> None:
    known = pose_of(Candidate(Place(0, "", "", 0, Pose((1.0, 2.0, 3.0))), 0.9), sigma_m, sigma_deg)
    assert known is not None
    message = conversions.to_pose_with_covariance(*known, conversions.to_stamp(7))
    covariance = np.reshape(message.pose.covariance, (6, 6))
    assert np.sqrt(np.diag(covariance)) == pytest.approx([sigma_m] * 3 + [math.radians(sigma_deg)] * 3)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert (message.header.frame_id, conversions.stamp_ns(message.header.stamp)) == ("map", 7)


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_odometry_that_is_no_pose(x: float) -> None:
    message = Odometry()
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = 1.0
    assert conversions.from_odometry(message) is None


def test_map_info() -> None:
    message = conversions.to_map_info_message(INFO)
    assert (message.map_id, message.path, message.places, message.size_bytes) == ("abc", "/maps/abc", 7, 11)
    assert list(message.sessions) == ["monday", "tuesday"]
    assert (message.extractor, message.global_descriptor) == (SPEC.extractor, SPEC.global_descriptor)
    assert conversions.stamp_ns(message.created) == 1_709_208_000 * 10**9


def test_map_info_with_a_time_that_is_none() -> None:
    message = conversions.to_map_info_message(dataclasses.replace(INFO, created="yesterday"))
    assert conversions.stamp_ns(message.created) == 0
