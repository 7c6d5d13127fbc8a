"""Adding to a map: the same bytes as a map built at once, whatever happens in between."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from builders import SPEC, make_features, make_frame
from etr_ros import database
from etr_ros import index as retrieval
from etr_ros.config import Config
from etr_ros.database import MANIFEST, PlaceMap, read_info
from etr_ros.errors import MapError
from etr_ros.map_writer import MapWriter
from etr_ros.types import Pose

CONFIG = Config().replace(**{"memory.locals": 30})


def add(writer: MapWriter, numbers: range) -> None:
    for i in numbers:
        pose = Pose((float(i), 0.5, 0.0)) if i % 3 else None
        writer.add(make_frame(i, pose, f"drive {i // 4}"), make_features(i, count=20 + i))


def write(path: Path, places: int, kind: str = "half", index: str = "auto") -> Path:
    config = CONFIG.replace(**{"memory.descriptors": kind, "retrieval.index": index})
    with MapWriter(path, SPEC, index, config.to_dict(), map_id="same", memory=config.memory) as writer:
        add(writer, range(places))
        writer.commit()
    return path


def grow(path: Path, numbers: range) -> None:
    with MapWriter.add_to(path, SPEC) as writer:
        add(writer, numbers)
        writer.commit()


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", ["half", "int8"])
@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_a_map_that_grew_is_the_one_built_at_once(tmp_path: Path, kind: str, index: str) -> None:
    grown = write(tmp_path / "grown", 5, kind, index)
    grow(grown, range(5, 6))
    grow(grown, range(6, 12))
    assert contents(grown) == contents(write(tmp_path / "once", 12, kind, index))
    assert len(PlaceMap(grown)) == 12


def test_growth_changes_the_index_where_the_size_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, once = tmp_path / "grown", tmp_path / "once"
    write(grown, 5)
    assert read_info(grown).index == "exact"
    monkeypatch.setattr(retrieval, "choose", lambda kind, places: "hnsw" if places > 5 else "exact")
    grow(grown, range(5, 12))
    assert read_info(grown).index == "hnsw"
    assert contents(grown) == contents(write(once, 12))


def test_fewer_locals_are_stored_when_asked(tmp_path: Path) -> None:
    info = PlaceMap(write(tmp_path / "map", 12)).info
    assert info.locals == sum(min(30, 20 + i) for i in range(12))


def test_an_open_map_does_not_see_what_is_added(tmp_path: Path) -> None:
    path = write(tmp_path / "map", 5)
    opened = PlaceMap(path)
    grow(path, range(5, 9))
    assert len(opened) == 5
    assert [place.place_id for place in opened.search(make_features(7), 10)[0]] == sorted(
        range(5), key=lambda i: -float(opened.view(i).features.global_descriptor @ make_features(7).global_descriptor)
    )
    assert PlaceMap(path).search(make_features(7), 1)[0][0].name == "0007.jpg"


def test_an_error_while_adding_leaves_the_map_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "map", 5)
    before = contents(path)

    def broken() -> None:
        with MapWriter.add_to(path, SPEC) as writer:
            add(writer, range(5, 9))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert contents(path) == before


def test_kill_while_adding_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "map", 5)
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from builders import SPEC
        from etr_ros.map_writer import MapWriter
        from test_map_growth import add
        with MapWriter.add_to(Path(sys.argv[1]), SPEC) as writer:
            for i in range(5, 10**6):
                add(writer, range(i, i + 1))
                if i == 300:
                    print("busy", flush=True)
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout and process.stdout.readline() == b"busy\n"
    with pytest.raises(MapError, match="somebody else is adding"):
        MapWriter.add_to(path, SPEC)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(PlaceMap(path)) == 5
    assert PlaceMap(path).search(make_features(3), 1)[0][0].place_id == 3
    grow(path, range(5, 12))
    once = contents(write(tmp_path / "once", 12))
    left = contents(path)
    assert {name: left[name] for name in once} == once  # thumbnails of the killed one may lie there, unused


def test_a_map_that_was_replaced_meanwhile_is_not_added_to(tmp_path: Path) -> None:
    path = write(tmp_path / "map", 5)

    def late() -> None:
        with MapWriter.add_to(path, SPEC) as writer:
            add(writer, range(5, 6))
            manifest = json.loads((path / MANIFEST).read_text()) | {"map_id": "other"}
            (path / MANIFEST).write_text(json.dumps(manifest))
            writer.commit()

    with pytest.raises(MapError, match="replaced by another map meanwhile"):
        late()


def test_other_features_are_not_added(tmp_path: Path) -> None:
    path = write(tmp_path / "map", 5)
    other = type(SPEC)(**(vars(SPEC) | {"max_keypoints": 100}))
    with pytest.raises(MapError, match="max_keypoints 512 instead of 100"):
        MapWriter.add_to(path, other)
    with pytest.raises(MapError, match="is not a map"):
        MapWriter.add_to(tmp_path / "nothing", SPEC)


@pytest.mark.parametrize("is_added", [True, False])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, is_added: bool) -> None:
    """A limit on the size of files stands for the disk: writing fails in the same way and place."""
    path = tmp_path / "map"
    if is_added:
        write(path, 5)
    before = contents(path)
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from builders import SPEC
        from etr_ros.errors import MapError
        from etr_ros.map_writer import MapWriter
        from test_map_growth import add
        path = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            with MapWriter.add_to(path, SPEC) if path.exists() else MapWriter(path, SPEC, "auto", {}) as writer:
                add(writer, range(1000))
                writer.commit()
        except MapError as error:
            print(error)
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.check_output([sys.executable, "-c", script, path], env=environment, text=True)
    (line,) = told.splitlines()
    kept = "the map is as it was before" if is_added else "nothing of it is kept"
    assert line == f"cannot write a map to {path} (File too large); {kept}"
    assert contents(path) == before
    assert path.exists() == is_added


def test_a_ceiling_below_the_least_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "map", 5)
    with_ceiling = PlaceMap(path, ceiling_mb=1)
    assert np.array_equal(with_ceiling.view(3).features.descriptors, PlaceMap(path).view(3).features.descriptors)
    assert with_ceiling.search(make_features(3), 1)[0][0] == PlaceMap(path).places[3]
    info = read_info(path)
    huge = dataclasses.replace(info, features=dataclasses.replace(info.features, max_keypoints=40_000))
    monkeypatch.setattr(database, "read_info", lambda _: huge)
    with pytest.raises(
        MapError, match=r"memory\.ceiling_mb is 1, the map .* needs at least 2: its index takes 0\.0 MB"
    ):
        PlaceMap(path, ceiling_mb=1)
