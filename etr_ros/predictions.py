"""The answers to a set of queries: measured against ground truth, and written to files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etr_ros import metrics
from etr_ros.errors import DataError
from etr_ros.ground_truth import GroundTruth
from etr_ros.types import Candidate

RECALL_AT = (1, 5, 10, 20)


@dataclass(frozen=True)
class Answer:
    """What came back for one query: candidates after re-ranking, best first; none when the picture was of no use."""

    query: str
    candidates: tuple[Candidate, ...] = ()
    stage_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def retrieved(self) -> tuple[Candidate, ...]:
        """The candidates before re-ranking."""
        return tuple(sorted(self.candidates, key=lambda c: (-c.retrieval_score, c.place.place_id)))


def measure(answers: Sequence[Answer], truth: GroundTruth | None) -> dict[str, Any]:
    """Counts and, with ground truth, the measures of the order before ("retrieval") and after ("reranked") re-ranking.

    Recall@K counts queries that have a correct place. Average precision and recall at 100 % precision judge the first
    candidate of every query whose truth is known: one for a query without a correct place is wrong. The confidence
    after re-ranking is the probability, else the ETR score, else the inliers: the first that was computed.
    """
    result: dict[str, Any] = {"queries": len(answers)}
    accepted = [
        (answer.query, candidate) for answer in answers for candidate in answer.candidates if candidate.accepted
    ]
    if _is_computed(answers, "probability"):
        result["accepted_pairs"] = len(accepted)
    if truth is None:
        return result
    if "accepted_pairs" in result:
        judged = [(candidate.place.place_id, truth.positives.get(query)) for query, candidate in accepted]
        result["accepted_pairs_wrong"] = sum(right is not None and place_id not in right for place_id, right in judged)
    known = [answer for answer in answers if answer.query in truth.positives]
    with_positive = sum(bool(truth.positives[answer.query]) for answer in known)
    result |= {
        "ground_truth": truth.source,
        "queries_with_positive": with_positive,
        "queries_without_positive": len(known) - with_positive,
        "queries_of_unknown_truth": len(answers) - len(known),
        "retrieval": _measure_order(known, truth, lambda answer: answer.retrieved, "retrieval_score"),
    }
    confidence = next((name for name in ("probability", "etr_score", "inliers") if _is_computed(answers, name)), None)
    if confidence:
        result["reranked"] = _measure_order(known, truth, lambda answer: answer.candidates, confidence)
    return result


def _measure_order(
    answers: Sequence[Answer],
    truth: GroundTruth,
    order: Callable[[Answer], tuple[Candidate, ...]],
    confidence: str,
) -> dict[str, float | None]:
    ranks, confidences, correct = [], [], []
    for answer in answers:
        positives, ranking = truth.positives[answer.query], order(answer)
        if positives:
            ranks.append(metrics.rank_of_first_positive([c.place.place_id for c in ranking], positives))
        if ranking:
            confidences.append(getattr(ranking[0], confidence))
            correct.append(ranking[0].place.place_id in positives)
    curve = metrics.precision_recall(confidences, correct, len(ranks))
    return {
        **{f"recall_at_{k}": metrics.recall_at_k(ranks, k) for k in RECALL_AT},
        "average_precision": curve.average_precision,
        "recall_at_full_precision": curve.recall_at_full_precision,
        "best_f1": curve.best_f1,
    }


def stage_times(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Percentiles of the milliseconds of each stage over all queries."""
    stages = dict.fromkeys(stage for answer in answers for stage in answer.stage_ms)
    return {
        stage: metrics.percentiles([answer.stage_ms[stage] for answer in answers if stage in answer.stage_ms])
        for stage in stages
    }


def write_results(output: Path, answers: Sequence[Answer], result: Mapping[str, Any], with_loops: bool) -> None:
    """predictions.csv, metrics.json and, `with_loops`, loops.csv; each replaced as a whole. Raises DataError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        _replace(output / "predictions.csv", _csv(_prediction_rows(answers)))
        if with_loops:
            _replace(output / "loops.csv", _csv(_loop_rows(answers)))
        _replace(output / "metrics.json", json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise DataError(f"cannot write the results to {output}: {error.strerror}") from error


def _prediction_rows(answers: Sequence[Answer]) -> Iterator[list[str]]:
    """One row per candidate, rank after re-ranking; columns that were never computed are left out."""
    columns = ["retrieval_score", *(c for c in ("etr_score", "inliers", "probability") if _is_computed(answers, c))]
    if "probability" in columns:
        columns.append("accepted")
    yield ["query", "rank", "database", *columns]
    for answer in answers:
        for rank, candidate in enumerate(answer.candidates, start=1):
            cells = [_cell(getattr(candidate, column)) for column in columns]
            yield [answer.query, str(rank), candidate.place.name, *cells]


def _loop_rows(answers: Sequence[Answer]) -> Iterator[list[str]]:
    """Accepted pairs: the query and the earlier frame that it was recognised as."""
    yield ["frame_a", "frame_b", "probability"]
    for answer in answers:
        for candidate in answer.candidates:
            if candidate.accepted:
                yield [answer.query, candidate.place.name, _cell(candidate.probability)]


def _is_computed(answers: Sequence[Answer], name: str) -> bool:
    return any(getattr(candidate, name) is not None for answer in answers for candidate in answer.candidates)


def _cell(value: float | bool | None) -> str:
    """Fractions with 6 digits, so that the same input gives the same bytes."""
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value).lower()


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
