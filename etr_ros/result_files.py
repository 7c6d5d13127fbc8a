"""A result on disk: the folder that `etr replay` makes, `etr diff` and `etr report` read.

    my_result/
        result.json       what it was made of, counts, notes, and the SHA-256 of each file below that is hashed
        queries.csv       every picture of the recording and what became of it
        predictions.csv   the candidates of each answered picture, best first
        loops.csv         every decided loop, accepted or not
        timing.csv        milliseconds of each stage (not hashed)
        pictures/         map of the answered pictures (not hashed)
        odometry.tum, loops.g2o, output/, metrics.json   where there is something to say

`result.json` is written last: a folder without it is no result. Columns are named in `etr_ros.result_rows`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from etr_ros import result_rows as rows
from etr_ros.database import PlaceMap
from etr_ros.errors import DataError
from etr_ros.result import Outcome, Query, Result
from etr_ros.result_rows import Row
from etr_ros.types import Candidate, LoopClosure, PlaceMatch, State

FORMAT_VERSION = 2
MANIFEST = "result.json"
PICTURES = "pictures"
OUTPUT_BAG = "output"
TABLES = {"queries.csv": rows.QUERIES, "predictions.csv": rows.PREDICTIONS, "loops.csv": rows.LOOPS}
OPTIONAL = ("metrics.json", "loops.g2o", "odometry.tum", f"{OUTPUT_BAG}/metadata.yaml", f"{OUTPUT_BAG}/output.mcap")
MAX_CELL = 1_000_000

T = TypeVar("T")


def write(path: Path, result: Result) -> Result:
    """Write the tables and, last, the manifest; give back the result with its whole manifest.

    What else belongs to the result (OPTIONAL) must be there before: it is hashed too. Raises DataError when two
    queries have one name or the folder cannot be written.
    """
    if len({query.name for query in result.queries}) != len(result.queries):
        raise DataError("two pictures of the result have the same name")
    every = result.queries
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)
        _write_table(path / "queries.csv", rows.QUERIES, map(rows.query_row, every))
        _write_table(path / "predictions.csv", rows.PREDICTIONS, _each(rows.prediction_rows, every))
        _write_table(path / "loops.csv", rows.LOOPS, map(rows.loop_row, result.loops))
        _write_table(path / "timing.csv", rows.TIMING, _each(rows.timing_rows, every))
        files = {name: _sha256(path / name) for name in (*TABLES, *OPTIONAL) if (path / name).is_file()}
        manifest = {
            "format_version": FORMAT_VERSION,
            **result.manifest,
            "counts": _counts(result),
            "notes": list(result.notes),
            "files": files,
            "hash": _hash_of(files),
        }
        draft = path / f"{MANIFEST}.part"
        draft.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path / MANIFEST)
    except OSError as error:
        raise DataError(f"cannot write the result to {path}: {error.strerror}") from error
    return dataclasses.replace(result, manifest=manifest)


def read(path: Path) -> Result:
    """The result at `path`. Raises DataError when it is missing, damaged, changed or of another format version."""
    manifest = read_manifest(path)
    _check_files(path, manifest["files"])
    matches = _read_matches(path)
    queries: dict[str, Query] = {}
    for query in _table(path / "queries.csv", rows.QUERIES, lambda row: rows.to_query(row, _match(row, matches))):
        if query.name in queries:
            raise DataError(f"{path / 'queries.csv'} names the picture {query.name} twice: replay the bag again")
        queries[query.name] = query
    loops: tuple[LoopClosure, ...] = tuple(
        _table(path / "loops.csv", rows.LOOPS, lambda row: rows.to_loop(row, queries))
    )
    return Result(manifest, tuple(queries.values()), loops, tuple(manifest["notes"]))


def open_pictures(path: Path) -> PlaceMap | None:
    """The map of the answered pictures, by `Query.picture_id`; None where none was answered. Raises MapError."""
    return PlaceMap(path / PICTURES) if (path / PICTURES).exists() else None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone. Raises DataError when it is missing, damaged or of another format version."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is no result of `etr replay`: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path / MANIFEST} is damaged ({error}): replay the bag again") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}, this is for {FORMAT_VERSION}: replay the bag again")
    is_text = all(isinstance(note, str) for note in manifest.get("notes", []))
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("notes"), list) or not is_text:
        raise DataError(f"{path / MANIFEST} is damaged (no files or notes): replay the bag again")
    return dict(manifest)


def _check_files(path: Path, files: dict[str, Any]) -> None:
    """Raises DataError when a table is missing, or a file of the result is not what was written."""
    if not set(TABLES) <= set(files) or not set(files) <= {*TABLES, *OPTIONAL}:
        raise DataError(f"{path / MANIFEST} does not name the files of a result: replay the bag again")
    for name, digest in files.items():
        try:
            found = _sha256(path / name)
        except OSError as error:
            raise DataError(f"cannot read {path / name}: {error.strerror}; replay the bag again") from error
        if found != digest:
            raise DataError(f"{path / name} was changed or cut since it was written: replay the bag again")


def _read_matches(path: Path) -> dict[str, tuple[list[Candidate], dict[str, float]]]:
    """Candidates and stage times by the name of the picture."""
    found: dict[str, tuple[list[Candidate], dict[str, float]]] = {}
    for name, candidate in _table(
        path / "predictions.csv", rows.PREDICTIONS, lambda row: (row.text("query"), rows.to_candidate(row))
    ):
        found.setdefault(name, ([], {}))[0].append(candidate)
    if (path / "timing.csv").is_file():
        for name, stage, ms in _table(
            path / "timing.csv", rows.TIMING, lambda row: (row.text("query"), row.text("stage"), row.number("ms"))
        ):
            found.setdefault(name, ([], {}))[1][stage] = ms
    return found


def _match(row: Row, matches: dict[str, tuple[list[Candidate], dict[str, float]]]) -> PlaceMatch | None:
    if not row.knows("state"):
        return None
    try:
        state = State(row.text("state"))
    except ValueError:
        raise DataError(f"there is no state '{row.text('state')[:40]}'") from None
    candidates, stage_ms = matches.get(row.text("query"), ([], {}))
    return PlaceMatch(row.integer("stamp_ns"), state, tuple(candidates), stage_ms)


def _table(path: Path, columns: Sequence[str], convert: Callable[[Row], T]) -> Iterator[T]:
    """The converted rows of a table. Raises DataError that names file and line."""
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != list(columns):
                raise DataError(f"{path} has other columns than those of a result: replay the bag again")
            for cells in reader:
                if len(cells) != len(columns):
                    raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells, not {len(columns)}")
                try:
                    value = convert(Row(dict(zip(columns, cells, strict=True))))
                except DataError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}") from error
                yield value
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _write_table(path: Path, columns: Sequence[str], table: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(table)


def _each(convert: Callable[[Query], Iterator[list[str]]], queries: Iterable[Query]) -> Iterator[list[str]]:
    for query in queries:
        yield from convert(query)


def _counts(result: Result) -> dict[str, Any]:
    outcomes = Counter(query.outcome for query in result.queries)
    states = Counter(query.match.state for query in result.queries if query.match)
    accepted = sum(loop.accepted for loop in result.loops)
    return {
        "pictures": len(result.queries),
        "outcomes": {outcome.value: outcomes[outcome] for outcome in Outcome},
        "states": {state.value: states[state] for state in State},
        "loops_accepted": accepted,
        "loops_rejected": len(result.loops) - accepted,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)
        return found.hexdigest()


def _hash_of(files: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
