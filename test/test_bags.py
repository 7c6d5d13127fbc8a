"""Bags: both storages, all image and pose types, split, damaged, and what is said about missing topics."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bag_maker import START_NS, TENTH_S, Storage, drive, picture, pose_message, raw_image, write_bag
from etr_ros.bag_poses import POSE_TYPES
from etr_ros.bags import BagImages
from etr_ros.errors import DataError

STORAGES: tuple[Storage, ...] = ("mcap", "sqlite3")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("pose_type", POSE_TYPES)
def test_pictures_with_poses(tmp_path: Path, storage: Storage, compressed: bool, pose_type: str) -> None:
    source = BagImages(drive(tmp_path / "monday", storage, 5, pose_type, compressed), "/camera", "/odom")
    assert source.expected == 5
    frames = list(source)
    assert len(frames) == 5
    for number, frame in enumerate(frames):
        assert np.array_equal(frame.image, picture(number))
        assert frame.stamp_ns == START_NS + number * TENTH_S
        assert frame.session == "monday"
        assert frame.pose is not None
        assert frame.pose.frame_id == "odom"
        assert frame.pose.position_m[0] == pytest.approx(number / 10, abs=1e-6)
    assert frames[1].name == "1700000000.100000000"
    assert source.notes() == []
    assert len(list(source)) == 5


@pytest.mark.parametrize("storage", STORAGES)
def test_a_single_storage_file_is_a_bag_too(tmp_path: Path, storage: Storage) -> None:
    bag = drive(tmp_path / "bag", storage)
    (file,) = [entry for entry in bag.iterdir() if entry.suffix in (".mcap", ".db3")]
    source = BagImages(file, "/camera")
    assert len(list(source)) == 10
    assert all(frame.pose is None for frame in source)
    assert source.notes() == []


@pytest.mark.parametrize("storage", STORAGES)
def test_split_bag_without_metadata(tmp_path: Path, storage: Storage) -> None:
    bag = tmp_path / "split"
    bag.mkdir()
    for part in range(11):
        written = drive(tmp_path / f"part{part}", storage, 2, first=2 * part)
        (file,) = [entry for entry in written.iterdir() if entry.suffix in (".mcap", ".db3")]
        file.rename(bag / f"split_{part}{file.suffix}")
    source = BagImages(bag, "/camera", "/odom")
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [START_NS + number * TENTH_S for number in range(22)]
    assert all(frame.pose is not None for frame in frames)
    assert source.expected == 22
    assert source.notes() == []


def cut(bag: Path, keep: float) -> None:
    (file,) = [entry for entry in bag.iterdir() if entry.suffix in (".mcap", ".db3")]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("keep_metadata", [True, False])
def test_truncated_bag_keeps_what_is_before_the_damage(tmp_path: Path, storage: Storage, keep_metadata: bool) -> None:
    bag = drive(tmp_path / "bag", storage, pictures=200)
    cut(bag, 0.6)
    if not keep_metadata:
        (bag / "metadata.yaml").unlink()
    source = BagImages(bag, "/camera", "/odom")
    frames = list(source)
    assert 60 < len(frames) <= 125
    assert [frame.stamp_ns for frame in frames] == [START_NS + number * TENTH_S for number in range(len(frames))]
    assert np.array_equal(frames[-1].image, picture(len(frames) - 1))
    posed = sum(frame.pose is not None for frame in frames)
    assert posed >= len(frames) - 2
    of_all = " of 200" if keep_metadata else ""
    assert any(f"the bag is damaged, {len(frames)}{of_all} pictures could be read" in note for note in source.notes())


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("keep", [0.0, 0.001])
def test_bag_of_which_nothing_is_left(tmp_path: Path, storage: Storage, keep: float) -> None:
    bag = drive(tmp_path / "bag", storage, pictures=50)
    cut(bag, keep)
    with pytest.raises(DataError, match="nothing can be read of the bag"):
        BagImages(bag, "/camera")


@pytest.mark.parametrize("storage", STORAGES)
def test_bytes_flipped_inside_never_escape_as_another_error(tmp_path: Path, storage: Storage) -> None:
    bag = drive(tmp_path / "bag", storage, pictures=20)
    (file,) = [entry for entry in bag.iterdir() if entry.suffix in (".mcap", ".db3")]
    whole = file.read_bytes()
    for seed in range(15):
        broken = np.frombuffer(whole, np.uint8).copy()
        at = np.random.default_rng(seed).integers(0, len(broken), 200)
        broken[at] ^= 0xFF
        file.write_bytes(broken.tobytes())
        with suppress(DataError):
            list(BagImages(bag, "/camera", "/odom"))


def test_missing_and_wrong_topics_name_the_ones_there(tmp_path: Path) -> None:
    bag = drive(tmp_path / "bag", "mcap", 2)
    with pytest.raises(DataError, match=r"has no topic /cam; its image topics are: /camera \(sensor_msgs/msg/Image\)"):
        BagImages(bag, "/cam")
    with pytest.raises(DataError, match=r"has /odom as nav_msgs/msg/Odometry, which is no image; .*/camera"):
        BagImages(bag, "/odom")
    with pytest.raises(DataError, match=r"has no topic /tf; its pose topics are: /odom \(nav_msgs/msg/Odometry\)"):
        BagImages(bag, "/camera", "/tf")
    no_images = write_bag(tmp_path / "poses", "mcap", [("/odom", 1, pose_message(POSE_TYPES[0], 1, 0.0))])
    with pytest.raises(DataError, match=r"it has no image topic \(sensor_msgs/msg/Image"):
        BagImages(no_images, "/camera")


def test_things_that_are_no_bag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no bag"):
        BagImages(tmp_path / "nothing", "/camera")
    with pytest.raises(DataError, match="no rosbag2 recording"):
        BagImages(tmp_path, "/camera")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(DataError, match="rosbags-convert"):
        BagImages(tmp_path / "old.bag", "/camera")


def test_bad_pictures_and_poses_are_counted(tmp_path: Path) -> None:
    bad = raw_image(START_NS, 0)
    bad.encoding = "32FC1"
    unstamped = raw_image(0, 1)
    odometry = POSE_TYPES[0]
    messages = [
        ("/odom", START_NS, pose_message(odometry, START_NS, 0.0)),
        ("/camera", START_NS, bad),
        ("/odom", START_NS + TENTH_S, pose_message(odometry, START_NS + TENTH_S, float("nan"))),
        ("/camera", START_NS + TENTH_S, unstamped),
    ]
    source = BagImages(write_bag(tmp_path / "bag", "mcap", messages), "/camera", "/odom")
    (frame,) = source
    assert frame.stamp_ns == START_NS + TENTH_S
    assert frame.pose is None
    skipped, without_pose, without_stamp = source.notes()
    assert "1 of 2 pictures were skipped: 1700000000.000000000: unknown image encoding '32FC1'" in skipped
    assert without_pose == "1 of 1 pictures have no pose"
    assert without_stamp.startswith("1 pictures have no stamp")


def test_no_pose_where_the_track_has_a_hole(tmp_path: Path) -> None:
    messages = [("/odom", START_NS, pose_message(POSE_TYPES[1], START_NS, 0.0))]
    late = START_NS + 10 * TENTH_S
    messages += [("/camera", START_NS + n * TENTH_S, raw_image(START_NS + n * TENTH_S, n)) for n in range(11)]
    messages.append(("/odom", late, pose_message(POSE_TYPES[1], late, 1.0)))
    frames = list(BagImages(write_bag(tmp_path / "bag", "sqlite3", messages), "/camera", "/odom"))
    assert [frame.pose is not None for frame in frames] == [True] + [False] * 9 + [True]
