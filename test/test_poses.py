"""Poses: interpolation by hand cases and properties, TUM and CSV files, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros.errors import DataError
from etr_ros.poses import PoseTrack, is_pose, poses_of_files, stamp_in_name, to_pose

SECOND = 1_000_000_000
HALF = np.sqrt(0.5)


def row(x: float, quat: tuple[float, float, float, float] = (0, 0, 0, 1)) -> list[float]:
    return [x, 0.0, 0.0, *quat]


def test_half_way_between_two_poses() -> None:
    track = PoseTrack([0, SECOND // 2], [row(0), row(1, (0, 0, HALF, HALF))])
    pose = track.at(SECOND // 4)
    assert pose is not None
    assert pose.position_m == pytest.approx((0.5, 0, 0))
    assert pose.quat_xyzw == pytest.approx((0, 0, np.sin(np.pi / 8), np.cos(np.pi / 8)))  # half of 90 degrees


def test_a_quaternion_and_its_negative_are_the_same_rotation() -> None:
    pose = PoseTrack([0, 100], [row(0, (0, 0, HALF, HALF)), row(1, (0, 0, -HALF, -HALF))]).at(50)
    assert pose is not None
    assert np.abs(pose.quat_xyzw) == pytest.approx((0, 0, HALF, HALF))


@given(
    share=st.floats(0, 1),
    angles=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    positions=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_interpolation_stays_between_and_turns_evenly(
    share: float, angles: tuple[float, float], positions: tuple[float, float]
) -> None:
    quats = [(0.0, 0.0, float(np.sin(angle / 2)), float(np.cos(angle / 2))) for angle in angles]
    stamp = round(share * SECOND / 4)
    pose = PoseTrack([0, SECOND // 4], [row(positions[0], quats[0]), row(positions[1], quats[1])]).at(stamp)
    assert pose is not None
    assert min(positions) - 1e-6 <= pose.position_m[0] <= max(positions) + 1e-6
    assert np.linalg.norm(pose.quat_xyzw) == pytest.approx(1.0)
    turned = 2 * np.arctan2(pose.quat_xyzw[2], pose.quat_xyzw[3]) - angles[0]
    whole = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    if abs(abs(whole) - np.pi) > 1e-3:  # half a turn may go either way
        assert np.cos(turned - whole * stamp / (SECOND / 4)) == pytest.approx(1.0, abs=1e-6)


def test_holes_and_ends_give_no_pose() -> None:
    track = PoseTrack([10 * SECOND, 0, SECOND // 4], [row(10), row(0), row(1)])  # any order
    assert track.at(5 * SECOND) is None
    assert track.at(-SECOND) is None
    assert track.at(11 * SECOND) is None
    just_after = track.at(10 * SECOND + 15_000_000)
    assert just_after is not None
    assert just_after.position_m[0] == 10
    assert PoseTrack([], []).at(0) is None


def test_unusable_rows_are_left_out() -> None:
    track = PoseTrack([0, 1, 2, 3], [row(0), row(np.nan), row(np.inf), row(3, (0, 0, 0, 0))])
    assert len(track) == 1
    assert to_pose(row(np.nan)) is None
    assert to_pose(row(0, (0, 0, 0, 1e300))) is None
    assert to_pose(row(1, (0, 0, 0, 0))) is None


@given(st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1e-6, 1e9])), min_size=7, max_size=7))
def test_is_pose_says_what_to_pose_takes(values: list[float]) -> None:
    assert is_pose(values) == (to_pose(values) is not None)


def test_quaternions_are_normalised() -> None:
    pose = to_pose(row(1, (0, 0, 0, 5)))
    assert pose is not None
    assert pose.quat_xyzw == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        ("1305031102.175304.png", 1305031102_175304000),
        ("1403636579763555584.png", 1403636579763555584),
        ("frame_000001.jpg", None),
        ("000001.png", None),
        ("a.b.png", None),
    ],
)
def test_stamps_in_file_names(name: str, stamp: int | None) -> None:
    assert stamp_in_name(name) == stamp


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_tum_by_stamp_interpolates(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.txt", "# comment\n100.0 0 0 0 0 0 0 1\n\n100.2 2 0 0 0 0 0 1\n")
    inside, outside = poses_of_files(path, ["100.1.png", "200.0.png"])
    assert inside.stamp_ns == 100_100_000_000
    assert inside.pose is not None
    assert inside.pose.position_m == pytest.approx((1, 0, 0))
    assert outside.pose is None


def test_tum_by_order_when_names_hold_no_time(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.tum", "1 5 0 0 0 0 0 1\n2 nan 0 0 0 0 0 1\n")
    first, second = poses_of_files(path, ["a.png", "b.png"])
    assert first.pose is not None
    assert first.pose.position_m == (5, 0, 0)
    assert first.stamp_ns == SECOND
    assert second.pose is None


def test_csv_forms(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    plain = poses_of_files(write(tmp_path / "1.csv", "file,x_m,y_m\nsub/a.png,1,2\nother.png,0,0\n"), names)
    assert plain[0].pose is not None
    assert plain[0].pose.position_m == (1, 2, 0)
    assert plain[1].pose is None
    yaw = poses_of_files(
        write(tmp_path / "2.csv", f"file,x_m,y_m,z_m,yaw_rad,stamp_ns\na.png,1,2,3,{np.pi},7\n"), names
    )[0]
    assert yaw.stamp_ns == 7
    assert yaw.pose is not None
    assert yaw.pose.position_m == (1, 2, 3)
    assert yaw.pose.quat_xyzw == pytest.approx((0, 0, 1, 0), abs=1e-12)
    quat = poses_of_files(
        write(tmp_path / "3.csv", "file,x_m,y_m,qx,qy,qz,qw\na.png,1,2,0,0,2,0\nb.png,nan,2,0,0,0,1\n"), names
    )
    assert quat[0].pose is not None
    assert quat[0].pose.quat_xyzw == (0, 0, 1, 0)
    assert quat[1].pose is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "1 2 3\n", r"line 1: expected 'stamp x y z qx qy qz qw'"),
        ("p.txt", "1 2 3 4 5 6 7 x\n", "line 1"),
        ("p.txt", "nan 2 3 4 5 6 7 1\n", "line 1"),
        ("p.txt", "1 0 0 0 0 0 0 1\n", "1 poses for 2 pictures"),
        ("p.csv", "a,b\n1,2\n", "must start with a header"),
        ("p.csv", "", "must start with a header"),
        ("p.csv", "file,x_m,y_m\nz.png,1,2\n", "names none of the pictures"),
        ("p.csv", "file,x_m,y_m\na.png,1\n", r"line 2: not a number in the row of a\.png"),
        ("p.csv", "file,x_m,y_m\na.png,1,2\na.png,1,2\n", "named twice"),
    ],
)
def test_bad_pose_files_say_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        poses_of_files(write(tmp_path / name, text), ["a.png", "b.png"])


def test_missing_pose_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the pose file"):
        poses_of_files(tmp_path / "none.txt", ["a.png"])
