"""The map on disk: round trip, what is refused, and what an interrupted build leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import SPEC, make_features, make_frame
from etr_ros.cli.info import run as run_info
from etr_ros.config import Config
from etr_ros.database import PlaceMap, read_info
from etr_ros.errors import MapError
from etr_ros.map_writer import MapWriter
from etr_ros.place_table import ROW, ROWS
from etr_ros.types import Pose


def write_map(path: Path, places: int = 5, index: str = "exact") -> None:
    with MapWriter(path, SPEC, index, Config().to_dict()) as writer:
        for i in range(places):
            writer.add(make_frame(i, Pose((float(i), 0.5, 0.0))), make_features(i, count=10 + i))
        writer.commit()


def data_folder(path: Path) -> Path:
    return path / f"data-{read_info(path).map_id}"


def test_round_trip(tmp_path: Path) -> None:
    write_map(tmp_path / "map")
    opened = PlaceMap(tmp_path / "map")
    assert len(opened) == opened.info.places == 5
    assert opened.info.features == SPEC
    assert opened.info.has_poses and opened.info.frame_id == "map"
    for i, place in enumerate(opened.places):
        assert (place.place_id, place.name, place.session, place.stamp_ns) == (i, f"{i:04d}.jpg", "survey", i * 10**9)
        assert place.pose == Pose((float(i), 0.5, 0.0))
        stored, original = opened.view(i).features, make_features(i, count=10 + i)
        np.testing.assert_array_equal(stored.keypoints, original.keypoints)
        np.testing.assert_allclose(stored.descriptors, original.descriptors, atol=1e-3)
        np.testing.assert_allclose(stored.global_descriptor, original.global_descriptor, atol=1e-3)
        assert stored.image_size == (640, 480)
        thumbnail = opened.thumbnail(i)
        assert thumbnail is not None and thumbnail.dtype == np.uint8


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_place_is_its_own_nearest(tmp_path: Path, index: str) -> None:
    write_map(tmp_path / "map", places=30, index=index)
    opened = PlaceMap(tmp_path / "map")
    for i in (0, 13, 29):
        places, cosines = opened.search(make_features(i), top_k=3)
        assert places[0].place_id == i
        assert cosines[0] == pytest.approx(1.0, abs=1e-3)
        assert list(cosines) == sorted(cosines, reverse=True)


def test_only_earlier_places_are_searched_when_asked(tmp_path: Path) -> None:
    write_map(tmp_path / "map", places=8)
    opened = PlaceMap(tmp_path / "map")
    places, _ = opened.search(make_features(6), top_k=10, places_before=4)
    assert sorted(place.place_id for place in places) == [0, 1, 2, 3]
    assert opened.search(make_features(6), top_k=10, places_before=0)[0] == []


def test_top_k_larger_than_the_map(tmp_path: Path) -> None:
    write_map(tmp_path / "map", places=2)
    assert len(PlaceMap(tmp_path / "map").search(make_features(0), top_k=100)[0]) == 2


def test_a_map_of_one_place(tmp_path: Path) -> None:
    write_map(tmp_path / "map", places=1)
    assert PlaceMap(tmp_path / "map").search(make_features(0), top_k=5)[0][0].place_id == 0


def test_a_picture_without_local_features_is_a_place_too(tmp_path: Path) -> None:
    with MapWriter(tmp_path / "map", SPEC, "exact", {}) as writer:
        writer.add(make_frame(0), make_features(0, count=0))
        writer.commit()
    assert len(PlaceMap(tmp_path / "map").view(0).features) == 0


def test_an_empty_map_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    writer = MapWriter(tmp_path / "map", SPEC, "exact", {})
    with pytest.raises(MapError, match="no picture could be used"), writer:
        writer.commit()
    assert not (tmp_path / "map").exists()


def test_an_error_while_building_keeps_the_old_map(tmp_path: Path) -> None:
    write_map(tmp_path / "map", places=3)
    before = read_info(tmp_path / "map")

    def broken_build() -> None:
        with MapWriter(tmp_path / "map", SPEC, "exact", {}) as writer:
            writer.add(make_frame(0), make_features(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_build()
    assert read_info(tmp_path / "map") == before
    assert len(PlaceMap(tmp_path / "map")) == 3
    assert len(list((tmp_path / "map").glob("data-*"))) == 1


def test_rebuilding_replaces_the_map_and_its_data(tmp_path: Path) -> None:
    write_map(tmp_path / "map", places=3)
    write_map(tmp_path / "map", places=4)
    assert len(PlaceMap(tmp_path / "map")) == 4
    assert len(list((tmp_path / "map").glob("data-*"))) == 1


@pytest.mark.parametrize("old_map", [True, False])
def test_kill_during_a_build_leaves_the_old_map_or_none(tmp_path: Path, old_map: bool) -> None:
    path = tmp_path / "map"
    if old_map:
        write_map(path, places=3)
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from builders import SPEC, make_features, make_frame
        from etr_ros.map_writer import MapWriter
        with MapWriter(Path(sys.argv[1]), SPEC, "exact", {}) as writer:
            for i in range(10**6):
                writer.add(make_frame(i), make_features(i))
                if i == 20:
                    print("busy", flush=True)
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout and process.stdout.readline() == b"busy\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    if old_map:
        assert len(PlaceMap(path)) == 3
    else:
        with pytest.raises(MapError, match="is not a map"):
            PlaceMap(path)
    write_map(path, places=2)  # and the next build works, and clears what the killed one left
    assert len(PlaceMap(path)) == 2
    assert len(list(path.glob("data-*"))) == 1


def test_a_folder_with_other_files_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MapError, match="holds other files"):
        write_map(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_poses_in_two_frames_are_refused(tmp_path: Path) -> None:
    with MapWriter(tmp_path / "map", SPEC, "exact", {}) as writer:
        writer.add(make_frame(0, Pose((0.0, 0.0, 0.0))), make_features(0))
        with pytest.raises(MapError, match="'map' and 'odom'"):
            writer.add(make_frame(1, Pose((0.0, 0.0, 0.0), frame_id="odom")), make_features(1))


def test_what_is_not_a_map_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="etr build-map"):
        PlaceMap(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name", ["index-5.faiss", "globals.f16", "descriptors.f16", "offsets.i64", "places.rows", "names.utf8", "scales.u8"]
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    write_map(tmp_path / "map", index="hnsw")
    file = data_folder(tmp_path / "map") / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-8])
    for opens in (lambda: PlaceMap(tmp_path / "map"), lambda: run_info(Namespace(map=tmp_path / "map", json=False))):
        with pytest.raises(MapError, match=name):
            opens()


def test_an_index_of_noise_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "map", index="hnsw")
    file = data_folder(tmp_path / "map") / "index-5.faiss"
    file.write_bytes(bytes(np.random.default_rng(0).integers(0, 255, file.stat().st_size, np.uint8)))
    with pytest.raises(MapError, match="damaged"):
        PlaceMap(tmp_path / "map")


@pytest.mark.parametrize(
    ("column", "value", "read"),
    [
        ("name_end", 2**40, lambda opened: opened.places[2]),
        ("name_end", 0, lambda opened: list(opened.places)),
        ("session", 7, lambda opened: opened.places[2]),
        ("rig", 7, lambda opened: opened.view(2)),
    ],
)
def test_rows_of_noise_are_refused_when_they_are_read(
    tmp_path: Path, column: str, value: int, read: Callable[[PlaceMap], object]
) -> None:
    write_map(tmp_path / "map")
    file = data_folder(tmp_path / "map") / ROWS
    rows = np.frombuffer(file.read_bytes(), ROW).copy()
    rows[column][2] = value
    file.write_bytes(rows.tobytes())
    opened = PlaceMap(tmp_path / "map")
    assert opened.places[0].name == "0000.jpg"
    with pytest.raises(MapError, match=r"places\.rows of the map is damaged"):
        read(opened)


def test_offsets_of_noise_are_refused_when_they_are_read(tmp_path: Path) -> None:
    write_map(tmp_path / "map")
    file = data_folder(tmp_path / "map") / "offsets.i64"
    file.write_bytes(bytes(reversed(file.read_bytes())))
    with pytest.raises(MapError, match=r"offsets\.i64 is damaged"):
        PlaceMap(tmp_path / "map").view(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"places": -1}, "impossible"),
        ({"places": 4}, "build the map again"),
        ({"map_id": "../../etc"}, "impossible"),
        ({"locals": 10**12}, "build the map again"),
        ({"features": {}}, "incomplete"),
    ],
)
def test_manifests_that_lie_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_map(tmp_path / "map")
    manifest = tmp_path / "map" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(MapError, match=message):
        PlaceMap(tmp_path / "map")


def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "map")
    (tmp_path / "map" / "manifest.json").write_text("{")
    with pytest.raises(MapError, match="cannot read"):
        PlaceMap(tmp_path / "map")


def test_ivf_pq_needs_places_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"retrieval\.index=exact"):
        write_map(tmp_path / "map", places=3, index="ivf-pq")
