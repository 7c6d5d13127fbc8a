"""Image folders: order, stamps, poses, and what is left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from etr_ros.datasets import image_folder
from etr_ros.errors import DataError


def save(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((40, 50, 3), value, np.uint8))


def test_natural_order_and_fields(tmp_path: Path) -> None:
    save(tmp_path / "drive", "f10.png", "f2.png", "f1.PNG".lower(), "g.bmp")
    (tmp_path / "drive" / "notes.txt").write_text("no picture")
    (tmp_path / "drive" / ".hidden.png").write_bytes(b"")
    source = image_folder(tmp_path / "drive")
    assert source.expected == 4
    frames = list(source)
    assert [frame.name for frame in frames] == ["f1.png", "f2.png", "f10.png", "g.bmp"]
    assert [frame.stamp_ns for frame in frames] == [0, 10**9, 2 * 10**9, 3 * 10**9]
    assert {frame.session for frame in frames} == {"drive"}
    assert frames[0].image.shape == (40, 50, 3)
    assert source.notes() == []
    assert len(list(source)) == 4  # a second reading starts over


def test_stamps_of_names_and_the_order_number_survive_a_bad_picture(tmp_path: Path) -> None:
    save(tmp_path, "12.5.png", "b.png")
    (tmp_path / "a.png").write_bytes(b"bad")
    assert {frame.name: frame.stamp_ns for frame in image_folder(tmp_path)} == {
        "12.5.png": 12_500_000_000,
        "b.png": 2 * 10**9,
    }


def test_unreadable_pictures_are_counted_by_name(tmp_path: Path) -> None:
    save(tmp_path, "good.png")
    for number in range(7):
        (tmp_path / f"bad{number}.jpg").write_bytes(b"\xff\xd8")
    source = image_folder(tmp_path)
    assert [frame.name for frame in source] == ["good.png"]
    (note,) = source.notes()
    assert note.startswith("7 of 8 pictures were skipped: bad0.jpg: the JPEG is truncated")
    assert note.endswith("and 2 more")


def test_poses_and_how_many_lack_one(tmp_path: Path) -> None:
    save(tmp_path / "p", "a.png", "b.png")
    csv = tmp_path / "poses.csv"
    csv.write_text("file,x_m,y_m,stamp_ns\na.png,3,4,5\nb.png,nan,4,6\n")
    source = image_folder(tmp_path / "p", csv, session="monday")
    first, second = source
    assert first.pose is not None
    assert first.pose.position_m == (3, 4, 0)
    assert (first.stamp_ns, first.session) == (5, "monday")
    assert second.pose is None
    assert source.notes() == ["1 of 2 pictures have no pose"]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pictures directly in it \(\.jpg"):
        image_folder(tmp_path)
    save(tmp_path / "floor1", "a.png")
    with pytest.raises(DataError, match="its subfolders floor1/ do"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        image_folder(tmp_path / "floor1" / "a.png")


def test_only_unreadable_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"no picture could be read.*a\.png"):
        list(image_folder(tmp_path))
