"""One node process, active, with a raw camera: images in, answers out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fake_recognizer import AMBIGUOUS, BUG, NO_KEYPOINTS, UNKNOWN, pixels
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from robot import NodeProcess, Robot
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from etr_ros.ros.conversions import to_stamp
from etr_ros_msgs.msg import PlaceMatch

SKIPPED = "images skipped (limits between queries, or no keyframe)"


@pytest.fixture(scope="module")
def process(map_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    parameters = {
        "node.map": map_path,
        "node.autostart": True,
        "node.image_topic": "/camera",
        "sensor.odom_topic": "/odom",
        "backend.names": "initialpose",
    }
    with NodeProcess(tmp_path_factory.mktemp("node") / "log", **parameters) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
def active(robot: Robot, process: NodeProcess, map_path: Path) -> Iterator[Robot]:
    """The robot, with the node at its defaults and on the first map."""
    robot.until(lambda: robot.camera.get_subscription_count() > 0, "the node to subscribe")
    yield robot
    assert process.is_alive
    assert robot.set(retrieval__top_k=20, node__min_period_s=0.0, node__min_motion_m=0.0).successful
    assert robot.load_map(map_path).success


def drive_to(active: Robot, x_m: float) -> int:
    """Let odometry say where the robot is; the stamp of that."""
    message = Odometry(child_frame_id="base_link")
    stamp_ns = active.new_stamp()
    message.header.frame_id, message.header.stamp = "odom", to_stamp(stamp_ns)
    message.pose.pose.position.x = x_m
    message.pose.pose.orientation.w = 1.0
    active.odometry.publish(message)
    active.spin(0.2)
    return stamp_ns


def test_match_says_what_the_core_said(active: Robot) -> None:
    image = active.image(pixels(place_id=2))
    match = active.show(image)
    assert match.header == image.header
    assert match.state == PlaceMatch.STATE_LOCALIZED
    assert match.map_id == active.map_info().info.map_id
    assert match.map_frame == "map"
    assert [candidate.place_id for candidate in match.candidates] == [2, 3, 4, 0, 1]
    best, second = match.candidates[:2]
    assert (best.name, best.session, best.accepted, best.has_pose) == ("0002.jpg", "survey", True, True)
    assert (best.pose.position.x, best.pose.position.y) == (2.0, 2.0)
    assert best.retrieval_score == pytest.approx(0.9)
    assert (best.inliers, second.accepted, second.reason) == (-1, False, "not the first")
    assert [stage.name for stage in match.stages] == ["wait", "decode", "sensors", "extract", "retrieve", "message"]
    assert match.queries >= 1


def test_pose_of_the_best_place_with_covariance(active: Robot) -> None:
    active.poses.clear()
    assert active.set(node__place_sigma_m=2, node__place_sigma_deg=90.0).successful
    image = active.image(pixels(place_id=3))
    active.show(image)
    pose = active.until(lambda: active.poses, "a pose")[0]
    assert pose.header.stamp == image.header.stamp
    assert pose.header.frame_id == "map"
    assert pose.pose.pose.position.x == 3.0
    diagonal = np.diag(np.reshape(pose.pose.covariance, (6, 6)))
    assert diagonal == pytest.approx([4.0] * 3 + [(math.pi / 2) ** 2] * 3)


def test_who_asks_to_localize_gets_one_more_initial_pose(active: Robot) -> None:
    heard: list[PoseWithCovarianceStamped] = []
    subscription = active.node.create_subscription(PoseWithCovarianceStamped, "/initialpose", heard.append, 10)
    active.until(lambda: active.node.count_publishers("/initialpose"), "the topic")
    active.spin(0.5)
    for place_id in (1, 2):  # the first pose of all may have gone to a test before
        active.show(active.image(pixels(place_id)))
    future = active.localize_async()
    active.spin(0.2)
    active.camera.publish(active.image(pixels(place_id=3)))
    assert active.answer(future, "localize").localized
    active.until(lambda: heard and heard[-1].pose.pose.position.x == 3.0, "the pose")
    active.show(active.image(pixels(place_id=4)))
    active.spin(0.3)
    active.node.destroy_subscription(subscription)
    assert [message.pose.pose.position.x for message in heard][-1] == 3.0
    assert len(heard) <= 2


def test_a_new_tolerance_of_stamps_is_used_at_once(active: Robot) -> None:
    active.until(lambda: active.odometry.get_subscription_count() > 0, "the node to subscribe to odometry")
    assert active.set(sensor__sync_ms=200.0).successful
    stamp_ns = drive_to(active, 0.0)
    match = active.show(active.image(pixels(), stamp_ns + 50_000_000))
    assert active.set(sensor__sync_ms=20.0).successful
    waited = next(stage.duration_ms for stage in match.stages if stage.name == "sensors")
    assert waited > 500  # 5 times the tolerance for the odometry to come


@pytest.mark.parametrize(
    ("red", "state"), [(AMBIGUOUS, PlaceMatch.STATE_AMBIGUOUS), (UNKNOWN, PlaceMatch.STATE_UNKNOWN)]
)
def test_no_pose_unless_localized(active: Robot, red: int, state: int) -> None:
    active.poses.clear()
    assert active.show(active.image(pixels(red=red))).state == state
    active.show(active.image(pixels(place_id=1)))
    poses = active.until(lambda: active.poses, "the pose of the second image")
    assert [pose.pose.pose.position.x for pose in poses] == [1.0]


def test_bad_images_are_told_and_the_node_goes_on(active: Robot) -> None:
    unknown_encoding = active.image(pixels())
    unknown_encoding.encoding = "nonsense"
    short = active.image(pixels())
    short.height = 4000
    bad = {
        "unknown image encoding 'nonsense'": unknown_encoding,
        "but the image has 9216": short,
        "unknown image encoding ''": Image(),
        "1x1 px": active.image(pixels()[:1, :1]),
        "no features in this picture": active.image(pixels(red=NO_KEYPOINTS)),
        "ZeroDivisionError: a bug": active.image(pixels(red=BUG)),
    }
    for reason, message in bad.items():
        future = active.localize_async()
        active.spin(0.2)
        active.camera.publish(message)
        answer = active.answer(future, "localize")
        assert not answer.success
        assert reason in answer.message
    assert active.show(active.image(pixels())).state == PlaceMatch.STATE_LOCALIZED


def test_warning_in_diagnostics_names_the_reason(active: Robot) -> None:
    active.camera.publish(active.image(pixels(red=NO_KEYPOINTS)))
    status = active.status(lambda status: status.level == DiagnosticStatus.WARN, "a warning")
    assert "(no features in this picture)" in status.message


@pytest.mark.parametrize("stamp_ns", [0, -5_000_000_000, 10**9 * 2**31 - 1])
def test_any_stamp_is_answered_and_kept(active: Robot, stamp_ns: int) -> None:
    assert active.show(active.image(pixels(), stamp_ns)).state == PlaceMatch.STATE_LOCALIZED


def test_newest_image_wins_and_drops_are_counted(active: Robot) -> None:
    active.matches.clear()
    images = [active.image(pixels(delay_s=0.5))] + [active.image(pixels(place_id=i)) for i in range(4)]
    for image in images:
        active.camera.publish(image)
        active.spin(0.05)
    last = active.match_of(images[-1])
    assert last.dropped >= 1
    assert len(active.matches) < len(images)
    assert int(active.value("images dropped (node busy)")) >= 1


def test_live_parameters_take_effect(active: Robot) -> None:
    assert active.set(retrieval__top_k=2).successful
    assert len(active.show(active.image(pixels())).candidates) == 2


def test_parameters_refuse_what_is_not_allowed(active: Robot) -> None:
    for values, reason in (
        ({"retrieval__top_k": 0}, "out of range"),
        ({"decision__min_probability": 1.5}, "out of range"),
        ({"decision__ambiguity_m": "far"}, "decision.ambiguity_m must be a number"),
        ({"compute__device": "cpu"}, "read-only"),
    ):
        result = active.set(**values)
        assert not result.successful
        assert reason in result.reason
    assert active.set(decision__ambiguity_m=3).successful  # a whole number is a number


def test_least_time_skips_images_and_localize_does_not_care(active: Robot) -> None:
    active.show(active.image(pixels()))
    assert active.set(node__min_period_s=1000.0).successful
    skipped = int(active.value(SKIPPED))
    active.camera.publish(active.image(pixels()))
    active.until(lambda: int(active.value(SKIPPED)) == skipped + 1, "the skip")
    future = active.localize_async()
    active.spin(0.2)
    image = active.image(pixels(place_id=4))
    active.camera.publish(image)
    answer = active.answer(future, "localize")
    assert answer.success, answer.message
    assert answer.match.header == image.header
    assert answer.match.candidates[0].place_id == 4


def test_least_motion_needs_the_robot_to_move(active: Robot) -> None:
    active.until(lambda: active.odometry.get_subscription_count() > 0, "the node to subscribe to odometry")
    drive_to(active, 0.0)
    active.show(active.image(pixels()))
    assert active.set(node__min_motion_m=1.0).successful
    drive_to(active, 0.5)
    near = active.image(pixels())
    active.camera.publish(near)
    active.spin(0.3)
    drive_to(active, 1.5)
    active.show(active.image(pixels()))
    assert near.header not in [match.header for match in active.matches]


def test_annotated_picture_on_demand(active: Robot) -> None:
    pictures: list[Image] = []
    subscription = active.node.create_subscription(Image, "/etr/annotated", pictures.append, 10)
    active.until(lambda: active.node.count_publishers("/etr/annotated"), "the topic")
    active.spin(0.5)
    image = active.image(pixels(place_id=1))
    active.show(image)
    picture = active.until(lambda: pictures, "an annotated picture")[0]
    active.node.destroy_subscription(subscription)
    assert picture.header == image.header
    assert (picture.encoding, picture.step, len(picture.data)) == (
        "bgr8",
        3 * picture.width,
        3 * picture.width * picture.height,
    )
    assert picture.width > 3 * 64


def test_markers_on_demand(active: Robot) -> None:
    arrays: list[MarkerArray] = []
    subscription = active.node.create_subscription(MarkerArray, "/etr/markers", arrays.append, 10)
    active.until(lambda: active.node.count_publishers("/etr/markers"), "the topic")
    active.spin(0.5)
    active.show(active.image(pixels(place_id=2)))
    shown = {marker.ns: marker for marker in active.until(lambda: arrays, "markers")[0].markers}
    assert [point.x for point in shown["map"].points] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (shown["match"].pose.position.x, shown["match"].header.frame_id) == (2.0, "map")
    assert len(shown["candidates"].points) == len(shown["candidates"].colors) == 5
    active.show(active.image(pixels(red=UNKNOWN)))
    later = active.until(lambda: arrays[1:], "markers again")[0]
    active.node.destroy_subscription(subscription)
    assert [marker.action for marker in later.markers if marker.ns == "match"] == [Marker.DELETE]


def test_a_map_that_is_loaded_during_a_query_does_not_name_its_places(
    active: Robot, map_path: Path, other_map_path: Path
) -> None:
    before = active.map_info().info.map_id
    image = active.image(pixels(place_id=4, delay_s=1.0))
    active.camera.publish(image)
    active.spin(0.3)
    answer = active.load_map(other_map_path)
    assert answer.success and answer.info.map_id != before
    match = active.match_of(image)
    assert (match.map_id, match.candidates[0].place_id) == (before, 4)


def test_map_swap(active: Robot, map_path: Path, other_map_path: Path) -> None:
    before = active.map_info().info
    assert (before.path, before.places, before.has_poses) == (str(map_path), 5, True)
    answer = active.load_map(other_map_path)
    assert answer.success, answer.message
    assert (answer.info.path, answer.info.places, answer.info.has_poses) == (str(other_map_path), 3, False)
    active.poses.clear()
    match = active.show(active.image(pixels(place_id=1)))
    assert match.map_id == answer.info.map_id != before.map_id
    assert (match.candidates[0].has_pose, match.map_frame) == (False, "")
    assert not active.poses


def test_map_that_cannot_be_used_leaves_the_old_one(active: Robot, tmp_path: Path) -> None:
    before = active.map_info().info
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    for path, reason in (
        (tmp_path / "nothing", "is not a map"),
        (tmp_path, "format version 99"),
        ("", "no folder is given"),
    ):
        answer = active.load_map(path)
        assert not answer.success
        assert reason in answer.message
        assert answer.info == before
    assert "no folder is given" in active.value("last error")
    assert active.show(active.image(pixels())).map_id == before.map_id


def test_localize_without_images_says_where_it_listens(active: Robot) -> None:
    answer = active.answer(active.localize_async(timeout_s=0.3), "localize")
    assert not answer.success
    assert "no image for 0.3 s on /camera" in answer.message


@pytest.mark.parametrize("timeout_s", [-1.0, math.nan, math.inf])
def test_localize_refuses_a_timeout_that_is_none(active: Robot, timeout_s: float) -> None:
    answer = active.answer(active.localize_async(timeout_s), "localize")
    assert not answer.success
    assert "timeout_s must be between" in answer.message


def test_diagnostics_when_all_is_well_and_when_the_camera_falls_silent(active: Robot) -> None:
    active.show(active.image(pixels(), drive_to(active, 0.0)))
    status = active.status(lambda status: status.level == DiagnosticStatus.OK, "an OK")
    values = {pair.key: pair.value for pair in status.values}
    assert (status.name, status.message) == ("/etr: place recognition", "localized")
    assert (values["state"], values["places"]) == ("active", "5")
    assert active.set(node__image_timeout_s=0.5).successful
    status = active.status(lambda status: status.level == DiagnosticStatus.ERROR, "an error")
    assert "on /camera (sensor_msgs/msg/Image, reliable, depth 2) from 1 publisher (reliable)" in status.message
