"""Ground truth: which places are right, by pairs, distance and frame number."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import make_place
from etr_ros import ground_truth
from etr_ros.errors import DataError
from etr_ros.types import Place, Pose


def test_pairs_by_file_name(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text(
        "database,query,note\nfar/0001.jpg,near/a.jpg,x\n0002.jpg,a.jpg,\n0000.jpg,b.jpg,\n0009.jpg,c.jpg,\n"
    )
    pairs = ground_truth.read_pairs(file)
    truth = ground_truth.from_pairs(pairs, ["a.jpg", "c.jpg", "d.jpg"], [make_place(i) for i in range(3)])
    assert truth.positives == {"a.jpg": {1, 2}, "c.jpg": set(), "d.jpg": set()}


def test_two_places_of_one_name_are_both_right() -> None:
    places = [Place(0, "x.jpg", "monday", 0), Place(1, "x.jpg", "tuesday", 0)]
    assert ground_truth.from_pairs([("q.jpg", "x.jpg")], ["q.jpg"], places).positives["q.jpg"] == {0, 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "must start with the header"),
        ("", "header"),
        ("query,database\na.jpg\n", "line 2"),
        ("query,database\n,b\n", "line 2"),
    ],
)
def test_bad_pair_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "truth.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        ground_truth.read_pairs(file)
    with pytest.raises(DataError, match="cannot read"):
        ground_truth.read_pairs(tmp_path / "none.csv")


def test_pairs_of_other_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="names no pair"):
        ground_truth.from_pairs([("a.jpg", "z.jpg")], ["a.jpg"], [make_place(0)])


def test_radius_is_inclusive_and_in_three_dimensions() -> None:
    places = [make_place(0, 0.0), make_place(1, 3.0), make_place(2), make_place(3, 3.1)]
    poses = {"ground": Pose((0, 0, 0)), "upstairs": Pose((0, 0, 4)), "lost": None}
    truth = ground_truth.from_poses(poses, places, 3.0)
    assert truth.positives == {"ground": {0, 1}, "upstairs": set()}


def test_radius_without_poses_says_whose_are_missing() -> None:
    with pytest.raises(DataError, match="the database"):
        ground_truth.from_poses({"q": Pose((0, 0, 0))}, [make_place(0)], 1.0)
    with pytest.raises(DataError, match="the queries"):
        ground_truth.from_poses({"q": None}, [make_place(0, 1.0)], 1.0)


def test_frame_numbers_of_places_count_not_their_ids() -> None:
    truth = ground_truth.from_frame_numbers(["a", "b", "c"], [0, 2, 3], tolerance=1)  # frame 1 became no place
    assert truth.positives == {"a": {0}, "b": {0, 1}, "c": {1, 2}}


def test_only_the_past_counts() -> None:
    truth = ground_truth.from_frame_numbers(["a", "b", "c"], [0, 1, 2], tolerance=2).before({"a": 0, "b": 1, "c": 1})
    assert truth.positives == {"a": set(), "b": {0}, "c": {0}}
