"""Pieces of the page as HTML. Every text is escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

from etr_ros.report import data, words
from etr_ros.result import Outcome, Result


def kind(manifest: Mapping[str, Any]) -> str:
    """What was replayed, in words."""
    place_map = manifest.get("map")
    map_path = place_map.get("path") if isinstance(place_map, Mapping) else None
    against = f" in the map {Path(str(map_path)).name}" if map_path else ""
    mode = "Loop closures" if manifest.get("mode") == "loops" else "Localization"
    simulate = manifest.get("simulate")
    live = f", simulated live node, {simulate['compute_ms']:g} ms per picture" if isinstance(simulate, Mapping) else ""
    return mode + against + live


def recorded(result: Result) -> str:
    """When the recording began and how long it is."""
    if not result.queries:
        return "no pictures"
    first, last = result.queries[0].stamp_ns, result.queries[-1].stamp_ns
    try:
        start = datetime.fromtimestamp(first // 10**9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        start = f"stamp {first} ns"
    minutes, seconds = divmod(round((last - first) / 1e9), 60)
    return f"{start}, {minutes} min {seconds:02d} s"


def tile(tile: words.Tile) -> str:
    """One number."""
    unit = f'<span class="unit">\u2009{escape(tile.unit)}</span>' if tile.unit else ""
    return (
        f'<div class="tile"><dt>{escape(tile.label)}</dt><dd><span class="value">{escape(tile.value)}{unit}</span>'
        f'<span class="note">{escape(tile.note)}</span></dd></div>'
    )


def notes(notes: Iterable[str]) -> str:
    """What the user has to know; empty when nothing."""
    items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<aside class="notes" aria-label="Notes"><h2>Notes</h2><ul>{items}</ul></aside>' if items else ""


def unanswered(result: Result) -> str:
    """Why pictures have no answer, and how many."""
    counted = Counter(
        (query.outcome.value, query.reason or "not said")
        for query in result.queries
        if query.outcome is not Outcome.ANSWERED
    )
    rows = ((outcome, reason, str(count)) for (outcome, reason), count in sorted(counted.items()))
    return table(("Outcome", "Reason", "Pictures"), rows)


def stages(times: Mapping[str, Mapping[str, float]]) -> str:
    """Percentiles of the stages."""
    rows = ((stage, *(f"{each[p]:.1f}" for p in ("p50", "p90", "p99"))) for stage, each in times.items())
    return table(("Stage", "Median, ms", "90 %, ms", "99 %, ms"), rows)


def source(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of all that the result was made of, but the configuration."""
    for part in ("bag", "map", "simulate", "versions"):
        values = manifest.get(part)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if value not in (None, ""):
                yield f"{part}: {name}", str(value)
    for name in ("etr_ros", "seed", "hash"):
        if name in manifest:
            yield name, str(manifest[name])


def settings(result: Result) -> str:
    """The configuration, what is not the default first."""
    changed = [(name, value, text) for name, value, text, is_changed in data.settings(result) if is_changed]
    every = [(name, value, text) for name, value, text, _ in data.settings(result)]
    columns = ("Parameter", "Value", "What it is")
    first = table(columns, changed) or "<p>Every value is the default.</p>"
    return f"<h3>Not the default</h3>{first}<details><summary>All values</summary>{table(columns, every)}</details>"


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Empty when there are no rows. Columns of numbers are aligned to the right."""
    body = [[*row] for row in rows]
    if not body:
        return ""
    is_number = [all(_is_number(row[c]) for row in body) for c in range(len(columns))]
    classes = [' class="number"' if number else "" for number in is_number]
    head = "".join(f'<th scope="col"{c}>{escape(name)}</th>' for c, name in zip(classes, columns, strict=True))
    lines = ("".join(f"<td{c}>{escape(cell)}</td>" for c, cell in zip(classes, row, strict=True)) for row in body)
    whole = f"<thead><tr>{head}</tr></thead><tbody><tr>{'</tr><tr>'.join(lines)}</tr></tbody>"
    return f'<div class="scroll"><table>{whole}</table></div>'


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
