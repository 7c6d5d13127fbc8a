"""`etr report`: a result as one HTML page that needs nothing else, neither network nor server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from etr_ros import result_files
from etr_ros.errors import DataError
from etr_ros.measure import Protocol
from etr_ros.report import data, figures, parts, words
from etr_ros.report.entries import entries_of, reasons
from etr_ros.report.pictures import Key, Pictures, compare, encode
from etr_ros.report.verdicts import Verdict, read_truth
from etr_ros.report.words import Facts

SCRIPTS = ("basics.js", "layout.js", "map.js", "list.js", "pair.js", "charts.js", "main.js")
MAX_COMPARED = 3000  # pairs whose local matches are drawn
FIRST = (Verdict.WRONG, Verdict.RIGHT, Verdict.UNKNOWN, Verdict.MISSED, Verdict.REJECTED)  # kept where not all can be

T = TypeVar("T")
Track = Callable[[Iterable[T], str], Iterable[T]]


@dataclass(frozen=True)
class Written:
    """What came out: the headline of the page, and how large it is."""

    headline: str
    size_bytes: int


def write_report(
    path: Path, output: Path, track: Track[Any] = lambda items, what: items, protocol: Protocol | None = None
) -> Written:
    """Write the page of the result at `path`. `track` sees what takes long, `protocol` judges it anew.

    The same result gives the same bytes. Raises DataError when there is no result or the page cannot be written.
    """
    result = result_files.read(path)
    measured = read_metrics(path)
    pictures = Pictures(path, result)
    truth = read_truth(result, measured, pictures.map.places if pictures.map else (), protocol)
    entries = entries_of(result, truth)
    facts = Facts(
        result,
        truth,
        measured or {},
        entries,
        figures.neighbour_agreement(result),
        figures.stage_times(result.queries),
    )
    spots = data.Spots(result, pictures, truth)
    for entry in entries:
        if entry.match is not None:
            spots.of(entry.match)
    payload = data.payload(facts, pictures, spots, _compare(facts, pictures, spots, track))
    payload["pictures"] = _pictures(facts, pictures, spots)
    notes = [*result.notes, *truth.notes, *pictures.notes]
    text = page(facts, payload, notes)
    try:
        draft = output.with_name(output.name + ".part")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, output)
    except OSError as error:
        raise DataError(f"cannot write the report to {output}: {error.strerror}") from error
    return Written(words.headline(facts), output.stat().st_size)


def read_metrics(path: Path) -> Mapping[str, Any] | None:
    """metrics.json of a result that was read, so that its hash is right; None where nothing was measured."""
    file = path / "metrics.json"
    if not file.exists():
        return None
    try:
        measured = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error}): replay the bag again") from error
    return measured if isinstance(measured, Mapping) else None


def page(facts: Facts, payload: Mapping[str, Any], notes: Iterable[str]) -> str:
    """The whole page. What comes from outside is escaped here, and shown as text only by the scripts."""
    style = _asset("page.css")
    script = '(() => {\n"use strict";\n' + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"
    manifest = facts.result.manifest
    bag = manifest.get("bag")
    name = str(bag.get("name", "recording")) if isinstance(bag, Mapping) else "recording"
    return Template(_asset("page.html")).substitute(
        title=escape(f"{name}: etr report"),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
        style=style,
        script=script,
        name=escape(name),
        kind=escape(parts.kind(manifest)),
        recorded=escape(parts.recorded(facts.result)),
        headline=escape(words.headline(facts)),
        tiles="".join(map(parts.tile, words.tiles(facts))),
        protocol=escape(" ".join(words.protocol(facts))),
        notes=parts.notes(notes),
        pictures=escape(words.pictures_line(facts.result)),
        unanswered=parts.unanswered(facts.result),
        reasons=parts.table(("Why pairs were rejected", "Pairs"), ((why, str(n)) for why, n in reasons(facts.entries))),
        stages=parts.stages(facts.times),
        source=parts.table(("What", "Value"), parts.source(manifest)),
        settings=parts.settings(facts.result),
        data=_json(payload),
    )


def _compare(facts: Facts, pictures: Pictures, spots: data.Spots, track: Track[Any]) -> dict[int, tuple[int, int, str]]:
    """The local matches of the pairs whose two pictures are there, by the row of the entry."""
    order = sorted(range(len(facts.entries)), key=lambda row: (FIRST.index(facts.entries[row].verdict), row))
    rows: list[int] = []
    pairs: list[tuple[Key, Key]] = []
    for row in order:
        entry = facts.entries[row]
        query = spots.keys[entry.row]
        match = None if entry.match is None else spots.keys[spots.of(entry.match)]
        if query is not None and match is not None and len(rows) < MAX_COMPARED:
            rows.append(row)
            pairs.append((query, match))
    return dict(zip(rows, compare(pairs, pictures, lambda each: track(each, "compare pictures")), strict=True))


def _pictures(facts: Facts, pictures: Pictures, spots: data.Spots) -> list[str]:
    """Base64 JPEG of each spot that an entry shows, by number; empty where there is none."""
    order = sorted(facts.entries, key=lambda entry: (FIRST.index(entry.verdict), entry.row))
    wanted: dict[int, None] = {}
    for entry in order:
        wanted[entry.row] = None
        if entry.match is not None:
            wanted[spots.of(entry.match)] = None
    found = {number: pictures.thumbnail(key) for number in wanted if (key := spots.keys[number]) is not None}
    there = [number for number, picture in found.items() if picture is not None]
    encoded = dict(zip(there, encode([p for p in found.values() if p is not None]), strict=True))
    return [encoded.get(number, "") for number in range(len(spots.values))]


def _asset(name: str) -> str:
    return (files("etr_ros.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _json(value: Any) -> str:
    """For a script element: nothing in it can end the element, and lone surrogates stay escaped."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
