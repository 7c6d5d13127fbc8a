"""The lines of a report: each pair of a picture and a place that was believed or not, and what is known of it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etr_ros.report.verdicts import Truth, Verdict, apart, judge_answer, judge_loops, missed_without_loop, pose_error
from etr_ros.result import Query, Result
from etr_ros.types import Candidate, Geometry, LoopClosure, Place

NO_LOOP = "nothing was found that looks like it"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, eq=False)
class Entry:
    """One pair. `row` is that of the query in the result; `match` is None where there is nothing to compare with.

    `apart` are metres and degrees between the true poses, `off` those by which the relative pose is wrong.
    """

    row: int
    match: Place | None
    accepted: bool
    verdict: Verdict
    reason: str = ""
    probability: float | None = None
    support: int | None = None
    geometry: Geometry | None = None
    retrieval_score: float | None = None
    etr_score: float | None = None
    apart: tuple[float, float] | None = None
    off: tuple[float, float] | None = None


def entries_of(result: Result, truth: Truth) -> list[Entry]:
    """In loop mode every loop, and every revisit of which no loop tells; else the answer to each picture."""
    if result.manifest.get("mode") != "loops":
        return [_of_answer(row, query, truth) for row, query in enumerate(result.queries) if query.match is not None]
    rows = {query.stamp_ns: row for row, query in enumerate(result.queries)}
    loops = [loop for loop in result.loops if loop.query.stamp_ns in rows]
    entries = [
        _of_loop(rows[loop.query.stamp_ns], result.queries, loop, verdict, truth)
        for loop, verdict in zip(loops, judge_loops(loops, truth), strict=True)
    ]
    silent = missed_without_loop(loops, truth)
    entries += [Entry(rows[stamp], None, False, Verdict.MISSED, NO_LOOP) for stamp in silent if stamp in rows]
    return sorted(entries, key=lambda entry: entry.row)


def chosen(query: Query) -> Candidate | None:
    """The candidate that stands for an answer: the accepted one, or else the best."""
    if query.match is None:
        return None
    return query.match.best or next(iter(query.match.candidates), None)


def reasons(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """Why pairs were rejected, numbers left out, the most frequent first."""
    found = Counter(general(entry.reason) for entry in entries if not entry.accepted and entry.reason)
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))


def general(reason: str) -> str:
    """A reason without its numbers."""
    return _NUMBER.sub("…", reason)


def _of_answer(row: int, query: Query, truth: Truth) -> Entry:
    candidate = chosen(query)
    verdict = judge_answer(query, candidate, truth)
    if candidate is None:
        return Entry(row, None, False, verdict, NO_LOOP)
    entry = Entry(
        row,
        candidate.place,
        candidate.accepted,
        verdict,
        candidate.reason,
        candidate.probability,
        None,
        candidate.geometry,
        candidate.retrieval_score,
        candidate.etr_score,
    )
    if candidate.geometry is None:
        return dataclasses.replace(entry, apart=_apart(query, candidate.place, truth))
    asking = Place(-1, query.name, "", query.stamp_ns)
    place = dataclasses.replace(candidate.place, session=candidate.place.session or "the map")
    loop = LoopClosure(asking, place, candidate.geometry)
    return dataclasses.replace(entry, apart=_apart(query, place, truth), off=pose_error(loop, truth))


def _of_loop(row: int, queries: Sequence[Query], loop: LoopClosure, verdict: Verdict, truth: Truth) -> Entry:
    own = queries[row].match
    listed = own.candidates if own is not None else ()
    same = (c for c in listed if (c.place.session, c.place.stamp_ns) == (loop.match.session, loop.match.stamp_ns))
    candidate = next(same, None)
    return Entry(
        row,
        loop.match,
        loop.accepted,
        verdict,
        loop.reason,
        loop.probability,
        loop.support,
        loop.geometry,
        candidate.retrieval_score if candidate else None,
        candidate.etr_score if candidate else None,
        _known(apart(loop.match, loop.query, truth)),
        pose_error(loop, truth),
    )


def _apart(query: Query, place: Place, truth: Truth) -> tuple[float, float] | None:
    asking = Place(-1, query.name, "", query.stamp_ns)
    return _known(apart(dataclasses.replace(place, session=place.session or "the map"), asking, truth))


def _known(pair: tuple[float, float]) -> tuple[float, float] | None:
    return None if pair[0] != pair[0] else pair
