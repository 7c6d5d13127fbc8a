"""Results on disk: what is written is what is read, the hash is of the content, and damage is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from etr_ros import result_files
from etr_ros.errors import DataError
from etr_ros.result import Query, Result
from etr_ros.types import Candidate, Geometry, LoopClosure
from result_maker import made_result


def plain(value: object) -> object:
    """Dataclasses without arrays, to be compared."""
    if isinstance(value, Geometry):
        return dataclasses.astuple(dataclasses.replace(value, covariance=None)), np.asarray(value.covariance).tolist()
    if isinstance(value, Query):
        candidates = value.match.candidates if value.match else ()
        match = value.match and (value.match.stamp_ns, value.match.state, value.match.stage_ms)
        return dataclasses.replace(value, match=None).__repr__(), match, [plain(each) for each in candidates]
    if isinstance(value, (Candidate, LoopClosure)):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def content(result: Result) -> object:
    return [plain(each) for each in (*result.queries, *result.loops)], result.notes


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    written = result_files.write(tmp_path / "r", made_result())
    read = result_files.read(tmp_path / "r")
    assert content(read) == content(made_result())
    assert read.manifest == written.manifest
    assert read.manifest["counts"]["outcomes"] == {"answered": 3, "skipped": 1, "unusable": 1, "dropped": 0}
    assert (read.manifest["counts"]["loops_accepted"], read.manifest["counts"]["loops_rejected"]) == (1, 1)
    assert read.manifest["mode"] == "loops"


def test_the_hash_is_of_the_answers_and_not_of_the_time_they_took(tmp_path: Path) -> None:
    result = made_result()
    slower = tuple(
        dataclasses.replace(q, match=dataclasses.replace(q.match, stage_ms={"extract": 99.0})) if q.match else q
        for q in result.queries
    )
    other = (dataclasses.replace(result.loops[0], support=4), *result.loops[1:])
    hashes = [
        result_files.write(tmp_path / str(number), each).manifest["hash"]
        for number, each in enumerate(
            (result, dataclasses.replace(result, queries=slower), dataclasses.replace(result, loops=other))
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_files_beside_the_tables_belong_to_the_hash(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with_metrics = result_files.write(tmp_path, made_result()).manifest
    assert "metrics.json" in with_metrics["files"]
    (tmp_path / "metrics.json").unlink()
    assert result_files.write(tmp_path, made_result()).manifest["hash"] != with_metrics["hash"]


def test_an_empty_result_can_be_read(tmp_path: Path) -> None:
    result_files.write(tmp_path, Result({}, ()))
    assert result_files.read(tmp_path).queries == ()
    assert result_files.open_pictures(tmp_path) is None


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    query = made_result().queries[0]
    with pytest.raises(DataError, match="same name"):
        result_files.write(tmp_path, Result({}, (query, query)))


@pytest.mark.parametrize("name", ["queries.csv", "predictions.csv", "loops.csv"])
def test_a_table_that_was_cut_or_changed_is_told(tmp_path: Path, name: str) -> None:
    result_files.write(tmp_path, made_result())
    file = tmp_path / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=f"{name} was changed or cut"):
        result_files.read(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=name):
        result_files.read(tmp_path)


def test_a_result_that_was_not_finished_is_none(tmp_path: Path) -> None:
    result_files.write(tmp_path, made_result())
    (tmp_path / "result.json").unlink()
    with pytest.raises(DataError, match="no result of `etr replay`"):
        result_files.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"files": {}}, "does not name the files"),
        ({"files": {"../../etc/passwd": "0"}}, "does not name the files"),
        ({"notes": [1]}, "damaged"),
        ({"files": 3}, "damaged"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    result_files.write(tmp_path, made_result())
    manifest = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(manifest | changes))
    with pytest.raises(DataError, match=message):
        result_files.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    result_files.write(tmp_path, made_result())
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError):
        result_files.read(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("stamp_ns", "soon"), ("outcome", "perhaps"), ("state", "lost"), ("odom_x", "nan"), ("odom_qw", "0")],
)
def test_a_cell_that_makes_no_sense_is_named_with_its_line(tmp_path: Path, column: str, value: str) -> None:
    result_files.write(tmp_path, made_result())
    file = tmp_path / "queries.csv"
    header, first, *rest = file.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index(column)] = value
    file.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    manifest = json.loads((tmp_path / "result.json").read_text())
    manifest["files"]["queries.csv"] = result_files._sha256(file)
    (tmp_path / "result.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"queries\.csv, line 2"):
        result_files.read(tmp_path)
