"""What the node recognised: counted, printed, drawn."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from etr_ros.database import PlaceMap
from etr_ros.errors import MapError
from etr_ros.types import Frame
from etr_ros_msgs.msg import PlaceCandidate, PlaceMatch
from examples.simulator.plot import JudgedMatch, plot_sheet

SHEET_PAIRS = 18
STATES = {
    PlaceMatch.STATE_UNKNOWN: "unknown",
    PlaceMatch.STATE_LOCALIZED: "localized",
    PlaceMatch.STATE_AMBIGUOUS: "ambiguous",
}


@dataclass(frozen=True, eq=False)
class Answer:
    """A published frame and the node's message about it; None when the node dropped the frame for a newer one."""

    frame: Frame
    match: PlaceMatch | None


@dataclass(frozen=True)
class Judge:
    """The true answers: which (query name, place id) show the same place."""

    true_pairs: frozenset[tuple[str, int]]

    def is_right(self, frame: Frame, place_id: int) -> bool:
        return (frame.name, place_id) in self.true_pairs

    def is_mapped(self, frame: Frame) -> bool:
        """Whether any place of the map shows what this frame shows."""
        return frame.name in {name for name, _ in self.true_pairs}


def report(answers: list[Answer], map_path: Path, output: Path, judge: Judge | None) -> list[JudgedMatch]:
    """Print and save the result; the accepted best matches, judged right or wrong when there is a `judge`."""
    place_map = PlaceMap(map_path)
    answered = [answer for answer in answers if answer.match is not None]
    dropped = len(answers) - len(answered)
    summary: dict[str, object] = {"images": len(answers), "answered": len(answered), "dropped": dropped}
    summary |= {"states": {name: sum(a.match.state == state for a in answered) for state, name in STATES.items()}}
    accepted = [(a, a.match.candidates[0]) for a in answered if a.match.candidates and a.match.candidates[0].accepted]
    matches = [_judged(answer, candidate, place_map, judge) for answer, candidate in accepted]
    if judge:
        summary |= _recall(answered, judge)
        summary |= {"accepted": len(matches), "accepted_wrong": sum(not match.is_right for match in matches)}
    else:
        summary |= {"accepted": len(matches)}
    summary |= {"stage_ms": _stages(answered)}
    _print(summary)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _write_csv(output / "matches.csv", answered)
    print(f"every answer:         {output / 'matches.csv'}")
    if matches:
        wrong = [m for m in matches if m.is_right is False][: SHEET_PAIRS // 2]  # always on the sheet
        right = [m for m in matches if m.is_right is not False]
        spread = np.unique(np.linspace(0, len(right) - 1, SHEET_PAIRS - len(wrong)).astype(int)) if right else []
        plot_sheet(output / "matches.png", wrong + [right[i] for i in spread])
        print(f"picture pairs:        {output / 'matches.png'}")
    return matches


def _judged(answer: Answer, candidate: PlaceCandidate, place_map: PlaceMap, judge: Judge | None) -> JudgedMatch:
    place = place_map.places[candidate.place_id]
    thumbnail = place_map.thumbnail(candidate.place_id)
    if thumbnail is None:
        raise MapError(f"the map has no thumbnail of place {candidate.place_id}: build it again")
    right = judge.is_right(answer.frame, candidate.place_id) if judge else None
    caption = f"{answer.frame.name}  ETR {candidate.etr_score:.1f}  p {candidate.probability:.2f}"
    recognised = Frame(thumbnail, place.stamp_ns, place.name, place.session, place.pose)
    return JudgedMatch(answer.frame, recognised, right, caption)


def _recall(answered: list[Answer], judge: Judge) -> dict[str, object]:
    mapped = [a for a in answered if judge.is_mapped(a.frame)]

    def recall(first: Callable[[Sequence[PlaceCandidate]], PlaceCandidate]) -> float:
        right = [judge.is_right(a.frame, first(a.match.candidates).place_id) for a in mapped]
        return float(np.mean(right)) if right else float("nan")

    return {
        "queries_in_the_map": len(mapped),
        "recall_at_1_before_etr": recall(lambda candidates: max(candidates, key=lambda c: c.retrieval_score)),
        "recall_at_1_after_etr": recall(lambda candidates: candidates[0]),
    }


def _stages(answered: list[Answer]) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {}
    for answer in answered:
        for stage in answer.match.stages:
            times.setdefault(stage.name, []).append(stage.duration_ms)
        times.setdefault("stamp to match", []).append(answer.match.age_ms)
    return {
        name: {"median": round(float(np.median(values)), 1), "p95": round(float(np.percentile(values, 95)), 1)}
        for name, values in times.items()
    }


def _print(summary: dict[str, object]) -> None:
    states = ", ".join(f"{count} {name}" for name, count in summary["states"].items())  # type: ignore[attr-defined]
    print(f"\nimages published:     {summary['images']} ({summary['dropped']} dropped for a newer one)")
    print(f"answers:              {summary['answered']}: {states}")
    if "queries_in_the_map" in summary:
        before, after = summary["recall_at_1_before_etr"], summary["recall_at_1_after_etr"]
        print(f"in the map:           {summary['queries_in_the_map']} queries show a mapped place")
        print(f"Recall@1 of these:    {before:.3f} retrieval order -> {after:.3f} after ETR")
        print(f"accepted matches:     {summary['accepted']}, of these wrong: {summary['accepted_wrong']}")
    else:
        print(f"accepted matches:     {summary['accepted']}")
    print("milliseconds:         " + f"{'stage':<16}{'median':>8}{'p95':>8}")
    for name, values in summary["stage_ms"].items():  # type: ignore[attr-defined]
        print(" " * 22 + f"{name:<16}{values['median']:>8}{values['p95']:>8}")
    print()


def _write_csv(path: Path, answered: list[Answer]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["query", "state", "rank", "place", "retrieval_score", "etr_score", "probability", "accepted", "reason"]
        )
        for answer in answered:
            for rank, c in enumerate(answer.match.candidates, 1):
                scores = [f"{value:.4f}" for value in (c.retrieval_score, c.etr_score, c.probability)]
                state = STATES[answer.match.state]
                writer.writerow([answer.frame.name, state, rank, c.name, *scores, c.accepted, c.reason])
