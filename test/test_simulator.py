from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vizdoom")

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from etr_ros.errors import DataError
from etr_ros.types import Frame, Pose
from examples.simulator.bag import IMAGE_TOPIC, INFO_TOPIC, POSE_TOPIC, write_bag
from examples.simulator.camera import Camera, level_pose, yaw_rad
from examples.simulator.covisibility import Sight, covisible_pairs, overlaps, sight
from examples.simulator.drive import drive
from examples.simulator.export import write_frames
from examples.simulator.level import CELL_M, Level, Line, Sector
from examples.simulator.places import MAX_SHIFT_M, MAX_TURN_RAD, views_of_places
from examples.simulator.plan import MAX_LATERAL_M, STEP_M, Round, plan_rounds
from examples.simulator.plot import JudgedMatch, plot_map, plot_sheet
from examples.simulator.space import MIN_CLEARANCE_M, FreeSpace
from examples.simulator.world import World

CAMERA = Camera(160, 120)
ROBOT_RADIUS_M = 0.4
EYE_M = 1.2


def box(x: float, y: float, width: float, depth: float) -> tuple[Line, Line, Line, Line]:
    right, top = x + width, y + depth
    return (x, y, right, y), (right, y, right, top), (x, top, right, top), (x, y, x, top)


def room(width: float, depth: float) -> Level:
    """An empty room with a floor at 0, a ceiling at 3 m, and a corner at the origin."""
    return Level("room", (Sector(0.0, 3.0, box(0, 0, width, depth), (True,) * 4),))


ROOM = room(10, 6)


def two_rooms(step_m: float, *, liquid: bool = False) -> Level:
    """Two rooms of 8 m by 8 m that share the side at x = 8; the right floor is higher by `step_m`."""
    left, right = box(0, 0, 8, 8), box(8, 0, 8, 8)
    shared = left[1]
    right = (right[0], right[1], right[2], shared)
    return Level(
        "two rooms",
        (
            Sector(0.0, 6.0, left, (True, False, True, True)),
            Sector(step_m, 6.0, right, (True, True, True, False), is_liquid=liquid),
        ),
    )


def ring() -> Level:
    """A corridor, 4 m wide, around a solid block."""
    return Level("ring", (Sector(0.0, 3.0, box(0, 0, 30, 20) + box(4, 4, 22, 12), (True,) * 8),))


def at(x: float, y: float, yaw: float) -> Pose:
    return level_pose(x, y, EYE_M, yaw)


def see(level: Level, x: float, y: float, yaw: float) -> Sight:
    return sight(level.heights, CAMERA, at(x, y, yaw))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("MAP01", CAMERA) as world:
        yield world


@pytest.fixture(scope="module")
def rounds(world: World) -> tuple[Round, Round]:
    return plan_rounds(FreeSpace(world.level.heights), 60.0, seed=1)


# level, free space


def test_free_space_is_the_room_without_a_margin() -> None:
    space = FreeSpace(ROOM.heights)
    side = 2 * MIN_CLEARANCE_M
    assert space.area_m2 == pytest.approx((10 - side) * (6 - side), rel=0.1)
    assert space.contains(np.array([[5.0, 3.0], [0.2, 3.0], [-1.0, 3.0], [50.0, 50.0]])).tolist() == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("level", "can_cross"),
    [(two_rooms(0.3), True), (two_rooms(1.5), False), (two_rooms(5.0), False), (two_rooms(0.0, liquid=True), False)],
    ids=["low step", "high step", "no headroom", "water"],
)
def test_crossing_from_room_to_room(level: Level, can_cross: bool) -> None:
    space = FreeSpace(level.heights)
    assert space.is_straight_way_free(np.array([4.0, 4.0]), np.array([12.0, 4.0])) is can_cross


def test_line_inside_of_a_sector_does_not_cut_it() -> None:
    whole = ROOM.sectors[0]
    cut = Sector(0.0, 3.0, (*whole.lines, (5.0, 1.0, 5.0, 4.0)), (*whole.blocking, False))
    assert np.array_equal(Level("cut", (cut,)).heights.floor_m, ROOM.heights.floor_m)


def test_level_too_small_for_a_robot_is_refused() -> None:
    with pytest.raises(DataError, match="nowhere"):
        FreeSpace(room(1, 1).heights)


def test_engine_levels_have_no_pinholes(world: World) -> None:
    solid = np.isinf(world.level.heights.floor_m).astype(np.uint8)
    sizes = cv2.connectedComponentsWithStats(solid, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    assert sizes.min() > 1


# covisibility


@given(x=st.floats(1, 9), y=st.floats(1, 5), yaw=st.floats(-math.pi, math.pi))
@settings(max_examples=20, deadline=None)
def test_view_overlaps_itself(x: float, y: float, yaw: float) -> None:
    seen = see(ROOM, x, y, yaw)
    assert overlaps(CAMERA, seen, seen)[0] > 0.98


@given(x=st.floats(1, 9), y=st.floats(1, 5), yaw=st.floats(-math.pi, math.pi))
@settings(max_examples=20, deadline=None)
def test_points_lie_on_floor_ceiling_and_walls(x: float, y: float, yaw: float) -> None:
    points = see(ROOM, x, y, yaw).points
    to_surface = np.abs(points[:, :, None] - np.array([[0.0, 10.0], [0.0, 6.0], [0.0, 3.0]])).min(axis=(1, 2))
    assert to_surface.max() < 3 * CELL_M


def test_opposite_views_share_nothing() -> None:
    assert overlaps(CAMERA, see(ROOM, 5, 3, 0.0), see(ROOM, 5, 3, math.pi)) == (0.0, 0.0)


def test_overlap_shrinks_with_turn_and_is_symmetric() -> None:
    ahead = see(ROOM, 5, 3, 0.0)
    shares = [overlaps(CAMERA, ahead, see(ROOM, 5, 3, turn))[0] for turn in (0.0, 0.3, 0.6, 1.2)]
    assert shares[0] > 0.98 > shares[1] > shares[2] > shares[3] > 0
    aside = see(ROOM, 3, 4, -0.2)
    assert overlaps(CAMERA, ahead, aside) == overlaps(CAMERA, aside, ahead)


def test_wall_hides() -> None:
    left, ahead, behind_block = (see(ring(), x, y, math.pi / 2) for x, y in ((2, 3), (2, 4), (8, 2)))
    assert overlaps(CAMERA, left, behind_block)[1] < 0.05
    assert [(i, j) for i, j, _ in covisible_pairs(CAMERA, [left], [ahead, behind_block])] == [(0, 0)]


def test_each_pair_among_the_same_views_comes_once() -> None:
    views = [see(ROOM, x, 3, 0.0) for x in (2.0, 2.5, 3.0)]
    assert [(i, j) for i, j, _ in covisible_pairs(CAMERA, views, views)] == [(0, 1), (0, 2), (1, 2)]


def test_depth_is_along_the_optical_axis_and_sky_is_far() -> None:
    depth = see(ROOM, 2, 3, 0.0).depth_m
    middle = depth[len(depth) // 2 - 1 : len(depth) // 2 + 1]
    at_the_end = np.abs(np.linspace(-8, 8, middle.shape[1])) < 2.8  # between the side walls, which are 3 m away
    assert middle[:, at_the_end] == pytest.approx(8.0, abs=2 * CELL_M)
    yard = Level("yard", (Sector(0.0, 3.0, ROOM.sectors[0].lines, (True,) * 4, is_open_sky=True),))
    seen = see(yard, 2, 3, 0.0)
    assert np.isinf(seen.depth_m[0]).all()
    assert (seen.points[:, 2] < 3.2).all()


# world


def test_view_has_the_asked_pose(world: World, rounds: tuple[Round, Round]) -> None:
    for x, y, yaw in rounds[0].every(7.0):
        pose = world.look(x, y, yaw).pose
        assert np.hypot(pose.position_m[0] - x, pose.position_m[1] - y) < 0.04
        assert abs(math.remainder(yaw_rad(pose) - yaw, math.tau)) < math.radians(0.02)


def test_eye_is_the_same_height_above_every_floor(world: World, rounds: tuple[Round, Round]) -> None:
    eyes = []
    for x, y, yaw in rounds[0].every(7.0):
        pose = world.look(x, y, yaw).pose
        eyes.append(pose.position_m[2] - world.level.heights.floor_m[world.level.heights.cells(x, y)])
    assert np.median(eyes) == pytest.approx(1.23, abs=0.001)
    assert min(eyes) > 1.2  # higher on a stair, where the body stands on the higher step


def test_same_pose_gives_the_same_picture(world: World, rounds: tuple[Round, Round]) -> None:
    x, y, yaw = rounds[0].every(7.0)[1]
    first = world.look(x, y, yaw)
    world.look(*rounds[0].every(7.0)[3])
    again = world.look(x, y, yaw)
    assert first.image.shape == (120, 160, 3)
    assert first.image.dtype == np.uint8
    assert first.pose == again.pose
    assert np.abs(first.image.astype(int) - again.image).mean() < 3.0


def test_light_changes_the_picture(world: World, rounds: tuple[Round, Round]) -> None:
    x, y, yaw = rounds[0].every(7.0)[1]
    world.set_light(exposure=0.5)
    dark = world.look(x, y, yaw).image.mean()
    world.set_light(exposure=1.0)
    assert dark < 0.7 * world.look(x, y, yaw).image.mean()


def test_looking_from_inside_of_a_wall_is_refused(world: World) -> None:
    with pytest.raises(DataError, match="in a wall"):
        world.look(*world.level.heights.origin_m, 0.0)


@pytest.mark.parametrize("name", ["MAP99", "nowhere", ""])
def test_unknown_level_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="MAP01"):
        World(name)


def test_world_leaves_nothing_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    World("MAP31", CAMERA).close()
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.iterdir())


# rounds


def test_rounds_stay_in_free_space(world: World, rounds: tuple[Round, Round]) -> None:
    space = FreeSpace(world.level.heights)
    for way in rounds:
        assert space.clearance_m(way.points).min() > ROBOT_RADIUS_M
        assert 20 < way.length_m < 80
        steps = np.linalg.norm(np.diff(way.points, axis=0), axis=1)
        assert steps.max() < 1.01 * STEP_M
        assert np.linalg.norm(way.points[0] - way.points[-1]) < 3 * STEP_M


def test_rounds_turn_smoothly(rounds: tuple[Round, Round]) -> None:
    for way in rounds:
        assert np.abs(np.diff(way.yaw)).max() / STEP_M < math.radians(120)


def test_second_round_comes_near_the_survey_but_not_to_the_same_poses(rounds: tuple[Round, Round]) -> None:
    survey, second = rounds
    away = np.array([np.linalg.norm(survey.points - point, axis=1).min() for point in second.points])
    assert np.mean(away < 3.0) > 0.5
    assert np.mean(away > 0.05) > 0.2
    assert away.max() > MAX_LATERAL_M


def test_rounds_follow_from_the_seed() -> None:
    space = FreeSpace(ring().heights)
    one, same, other = (plan_rounds(space, 80.0, seed)[1] for seed in (3, 3, 4))
    assert np.array_equal(one.points, same.points)
    assert np.array_equal(one.yaw, same.yaw)
    assert not np.array_equal(one.points[:50], other.points[:50])


# frames, bags, folders, pictures


def test_drive_gives_stamped_frames_with_poses(world: World, rounds: tuple[Round, Round]) -> None:
    frames = list(drive(world, rounds[0], "survey", speed_mps=2.0, rate_hz=0.5))
    assert len(frames) == len(rounds[0].every(4.0))
    assert {b.stamp_ns - a.stamp_ns for a, b in pairwise(frames)} == {2_000_000_000}
    assert len({frame.name for frame in frames}) == len(frames)
    assert all(frame.session == "survey" and frame.pose is not None for frame in frames)


def test_views_of_a_place_are_near_each_other_and_follow_from_the_seed(world: World) -> None:
    frames = list(views_of_places(world, 4, seed=2))
    assert [frame.name for frame in frames[:3]] == ["p0000_0.jpg", "p0000_1.jpg", "p0000_2.jpg"]
    for start in range(0, len(frames), 3):
        anchor, *moved = (frame.pose for frame in frames[start : start + 3])
        assert anchor is not None
        for pose in moved:
            assert pose is not None
            assert math.dist(pose.position_m[:2], anchor.position_m[:2]) < MAX_SHIFT_M + 0.1
            assert abs(math.remainder(yaw_rad(pose) - yaw_rad(anchor), math.tau)) < MAX_TURN_RAD + 0.01
    assert [frame.pose for frame in views_of_places(world, 4, seed=2)] == [frame.pose for frame in frames]


def some_frames(count: int) -> list[Frame]:
    image = np.full((CAMERA.height_px, CAMERA.width_px, 3), 90, np.uint8)
    image[:, 80:] = (200, 30, 60)
    return [
        Frame(image, (1_700_000_000 + k) * 10**9 + 5, f"survey_{k:05d}.jpg", "survey", at(0.5 * k, -1.0, 0.1 * k))
        for k in range(count)
    ]


def test_bag_can_be_read_back(tmp_path: Path) -> None:
    frames = some_frames(3)
    assert write_bag(iter(frames), tmp_path / "bag", CAMERA) == 3
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(tmp_path / "bag") as bag:
        messages = [(c.topic, stamp, store.deserialize_cdr(data, c.msgtype)) for c, stamp, data in bag.messages()]
    assert [topic for topic, *_ in messages].count(IMAGE_TOPIC) == 3
    images = [(stamp, message) for topic, stamp, message in messages if topic == IMAGE_TOPIC]
    for frame, (stamp, message) in zip(frames, images, strict=True):
        assert stamp == frame.stamp_ns == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        seen = cv2.imdecode(message.data, cv2.IMREAD_COLOR).astype(int)
        assert np.abs(seen - frame.image)[:, :70].max() < 10
    info = next(message for topic, _, message in messages if topic == INFO_TOPIC)
    assert (info.width, info.height) == (CAMERA.width_px, CAMERA.height_px)
    assert info.k.reshape(3, 3)[0, 0] == CAMERA.focal_px
    odometry = [message for topic, _, message in messages if topic == POSE_TOPIC]
    for frame, message in zip(frames, odometry, strict=True):
        position, turn = message.pose.pose.position, message.pose.pose.orientation
        assert Pose((position.x, position.y, position.z), (turn.x, turn.y, turn.z, turn.w), "map") == frame.pose
        assert (message.header.frame_id, message.child_frame_id) == ("map", "base_link")


def test_bag_is_never_overwritten_and_never_half_written(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(DataError, match="exists"):
        write_bag(some_frames(1), tmp_path / "old", CAMERA)

    def broken() -> Iterator[Frame]:
        yield from some_frames(1)
        raise DataError("the camera fell off")

    with pytest.raises(DataError, match="fell off"):
        write_bag(broken(), tmp_path / "new", CAMERA)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_folder_has_pictures_and_their_poses(tmp_path: Path) -> None:
    frames = some_frames(2)
    write_frames(frames, tmp_path / "survey")
    with (tmp_path / "survey" / "poses.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [frame.name for frame in frames]
    assert float(rows[1]["x_m"]) == pytest.approx(0.5)
    assert float(rows[1]["qz"]) == pytest.approx(math.sin(0.05), abs=1e-6)
    assert all(cv2.imread(str(tmp_path / "survey" / row["file"])) is not None for row in rows)


def test_plots_are_saved_and_show_right_from_wrong(tmp_path: Path) -> None:
    query, place = some_frames(2)
    matches = [JudgedMatch(query, place, True, "etr 3.2"), JudgedMatch(place, query, False, "etr 0.1")]
    survey, second = plan_rounds(FreeSpace(ring().heights), 80.0, seed=0)
    plot_map(tmp_path / "map.png", ring(), survey, second, matches)
    plot_sheet(tmp_path / "sheet.png", matches, columns=1)
    assert cv2.imread(str(tmp_path / "map.png")).std() > 5
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    right, wrong = sheet[2, 2], sheet[len(sheet) // 2 + 2, 2]
    assert right.argmax() == 1
    assert wrong.argmax() == 2
    with pytest.raises(DataError, match="no matches"):
        plot_sheet(tmp_path / "empty.png", [])
