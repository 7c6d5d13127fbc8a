"""A result in a few sentences and numbers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etr_ros.report.entries import Entry
from etr_ros.report.verdicts import Truth, Verdict
from etr_ros.result import Outcome, Result
from etr_ros.types import State

SUCCESS = ("within_m", "within_deg", "share")
NO_TRUTH = (
    "The recording has no ground truth (see --truth-topic of etr replay), so nothing here says right or wrong, "
    "and recall cannot be told."
)


@dataclass(frozen=True)
class Tile:
    """One number that counts, with its unit, and what it is of."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Facts:
    """What the sentences are about."""

    result: Result
    truth: Truth
    measured: Mapping[str, Any]
    entries: Sequence[Entry]
    agreement: Mapping[str, float] | None
    times: Mapping[str, Mapping[str, float]]

    @property
    def is_loops(self) -> bool:
        return self.result.manifest.get("mode") == "loops"

    def count(self, verdict: Verdict) -> int:
        return sum(entry.verdict is verdict for entry in self.entries)

    @property
    def accepted(self) -> int:
        return sum(entry.accepted for entry in self.entries)

    def number(self, *path: str) -> float | None:
        """A measure of metrics.json by its path; None when it is not there."""
        value: Any = self.measured
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def headline(facts: Facts) -> str:
    """The one sentence that matters most."""
    if not facts.result.queries:
        return "The recording holds no picture on this topic."
    if not any(query.match for query in facts.result.queries):
        return "No picture could be answered."
    if not facts.truth.is_known:
        thing = "loops were accepted" if facts.is_loops else "pictures were localized"
        return f"{facts.accepted} {thing}; there is no ground truth to judge them by."
    right, wrong, missed = (facts.count(v) for v in (Verdict.RIGHT, Verdict.WRONG, Verdict.MISSED))
    of = f"{right + wrong} accepted {'loops' if facts.is_loops else 'answers'}"
    if not right + wrong:
        first = "Nothing was accepted" if not facts.accepted else "No accepted answer could be judged"
    elif not wrong:
        first = f"All {of} are right"
    else:
        first = f"{wrong} of {of} {'is' if wrong == 1 else 'are'} wrong"
    revisits = "revisit" if facts.is_loops else "known place"
    return f"{first}; {missed} {revisits}{'' if missed == 1 else 's'} {'was' if missed == 1 else 'were'} missed."


def tiles(facts: Facts) -> Iterator[Tile]:
    """The numbers, the most important first."""
    yield from _loop_tiles(facts) if facts.is_loops else _place_tiles(facts)
    recall = facts.number("places", "reranked", "recall_at_1")
    before = facts.number("places", "retrieval", "recall_at_1")
    if recall is not None:
        note = "" if before is None else f"{_percent(before)} % by retrieval alone"
        yield Tile("Recall@1", _percent(recall), "%", note)
    elif before is not None:
        yield Tile("Recall@1", _percent(before), "%", "retrieval alone")
    error = facts.number("places", "calibration_error")
    if error is not None:
        yield Tile("Calibration error", f"{error:.3f}", "", "0 is honest")
    total = facts.times.get("total")
    if total:
        yield Tile("Time per picture", f"{total['p50']:.0f}", "ms", f"99 % within {total['p99']:.0f} ms")
    drift = facts.number("trajectory", "odometry_ate_m")
    if drift is not None:
        yield Tile("Odometry error", f"{drift:.2f}", "m", "RMS after alignment (ATE)")


def pictures_line(result: Result) -> str:
    """What became of the pictures."""
    outcomes = Counter(query.outcome for query in result.queries)
    named = {
        Outcome.ANSWERED: "answered",
        Outcome.SKIPPED: "skipped as too near to a keyframe",
        Outcome.UNUSABLE: "unusable",
        Outcome.DROPPED: "dropped by the simulated live node",
    }
    parts = [f"{outcomes[outcome]} {text}" for outcome, text in named.items() if outcomes[outcome]]
    return f"{len(result.queries)} pictures" + (f": {', '.join(parts)}" if parts else "")


def protocol(facts: Facts) -> list[str]:
    """What right, wrong and missed mean here, in full sentences."""
    truth = facts.truth
    if not truth.is_known:
        return [NO_TRUTH]
    rules, loops = truth.protocol, truth.protocol.loops
    lines = []
    if rules.pairs is not None:
        lines.append("A place is right when the listed pairs name it.")
    elif rules.frame_tolerance is not None:
        lines.append(f"A place is right when its number is at most {rules.frame_tolerance} from the picture's.")
    else:
        turned = f" and turned by at most {rules.correct_deg:g}°" if loops.knows_rotation else ""
        lines.append(f"A place is right at most {rules.correct_m:g} m from where the picture was taken{turned}.")
    if facts.is_loops and truth.poses:
        if loops.knows_rotation:
            lines.append(
                f"A loop is wrong when its relative pose is off by more than {loops.false_m:g} m or "
                f"{loops.false_deg:g}°; one without scale, when its places are more than {loops.apart_m:g} m apart."
            )
        else:
            lines.append(f"A loop is wrong when its places are more than {loops.apart_m:g} m apart.")
        angle = f" and {loops.revisit_deg:g}°" if loops.knows_rotation else ""
        lines.append(
            f"A picture revisits a place within {loops.revisit_m:g} m{angle} of an earlier one that was not "
            "excluded; it is missed when no right loop was accepted for it."
        )
    else:
        lines.append("A picture is missed when the map shows its place and no answer was accepted.")
    lines.append("Recall@1 and calibration are of the first candidate of each picture, whether it was accepted or not.")
    return lines


def _loop_tiles(facts: Facts) -> Iterator[Tile]:
    rejected = sum(not entry.accepted and entry.match is not None for entry in facts.entries)
    yield Tile("Loops accepted", str(facts.accepted), "", f"{rejected} rejected")
    false, km = facts.count(Verdict.WRONG), facts.number("loops", "km")
    if facts.truth.poses:
        yield Tile("False loops", str(false), "", "" if not km else f"{false / km:.1f} per km in {km:.2f} km")
        revisits = len(facts.truth.revisits)
        missed = facts.count(Verdict.MISSED)
        if revisits:
            found = revisits - missed
            yield Tile("Revisits found", _percent(found / revisits), "%", f"{found} of {revisits}")
    off = facts.number("loops", "median_m")
    if off is not None:
        deg = facts.number("loops", "median_deg")
        note = "median" if deg is None else f"and {deg:.2f}°, medians"
        yield Tile("Relative poses off by", f"{100 * off:.1f}", "cm", note)
    if facts.agreement and not facts.truth.poses:
        metres, degrees, pairs = (facts.agreement[name] for name in ("metres", "degrees", "pairs"))
        note = f"and {degrees:.2f}°, median of {pairs:.0f} pairs, by odometry"
        yield Tile("Neighbouring loops differ by", f"{100 * metres:.1f}", "cm", note)
    support = [entry.support for entry in facts.entries if entry.accepted and entry.support is not None]
    if support and not facts.truth.poses:
        note = f"between {min(support)} and {max(support)} agree with an accepted loop"
        yield Tile("Supporting pictures", f"{statistics.median(support):g}", "", f"median; {note}")


def _place_tiles(facts: Facts) -> Iterator[Tile]:
    answered = [query.match.state for query in facts.result.queries if query.match is not None]
    states = Counter(answered)
    if answered:
        note = f"{states[State.LOCALIZED]} of {len(answered)} pictures"
        yield Tile("Localized", _percent(states[State.LOCALIZED] / len(answered)), "%", note)
        if states[State.AMBIGUOUS]:
            yield Tile("Ambiguous", str(states[State.AMBIGUOUS]), "", "several places explain the picture")
    if facts.truth.places is not None:
        right, wrong = facts.count(Verdict.RIGHT), facts.count(Verdict.WRONG)
        yield Tile("Wrong places", str(wrong), "", f"of {right + wrong} accepted and judged")
    precision, recall = (facts.number("places", "states", f"unknown_{name}") for name in ("precision", "recall"))
    if recall is not None:
        note = "of pictures of places not in the map"
        yield Tile("UNKNOWN recall", _percent(recall), "%", note)
    if precision is not None and recall is not None:
        yield Tile("UNKNOWN precision", _percent(precision), "%", "of the pictures called unknown")
    places = facts.measured.get("places")
    success = places.get("success") if isinstance(places, Mapping) else None
    for each in success if isinstance(success, list) else []:
        if isinstance(each, Mapping) and all(isinstance(each.get(name), int | float) for name in SUCCESS):
            label = f"Pose within {each['within_m']:g} m, {each['within_deg']:g}°"
            yield Tile(label, _percent(each["share"]), "%", "of the pictures with a true pose")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
