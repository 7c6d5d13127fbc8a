"""What a replay says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etr_ros import metrics
from etr_ros.result import Result


def summary(result: Result, output: Path) -> Iterator[str]:
    """Counts, measures with the protocol that they follow, times, and the hash."""
    counts, manifest = result.manifest["counts"], result.manifest
    outcomes = ", ".join(f"{count} {name}" for name, count in counts["outcomes"].items() if count)
    yield f"{counts['pictures']} pictures: {outcomes or 'none'}"
    if manifest["mode"] == "loops":
        yield f"loops: {counts['loops_accepted']} accepted, {counts['loops_rejected']} rejected"
    yield "answers: " + ", ".join(f"{count} {name}" for name, count in counts["states"].items())
    if (output / "metrics.json").exists():
        measured: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
        yield from _places(measured["places"])
        yield from _loops(measured.get("loops"))
        yield from _path(measured.get("trajectory") or {})
    yield from _times(result)
    yield f"result: {output}, hash {manifest['hash'][:16]}"


def _places(places: dict[str, Any]) -> Iterator[str]:
    yield (
        f"correct are {places['ground_truth']}: {places['queries_with_positive']} pictures have a correct place, "
        f"{places['queries_without_positive']} have none"
    )
    for name in ("retrieval", "reranked"):
        found = places.get(name)
        if found is None or found["recall_at_1"] is None:
            continue
        recalls = ", ".join(f"{100 * found[f'recall_at_{k}']:.1f}" for k in (1, 5, 10, 20))
        yield (
            f"  {name}: Recall@1/5/10/20 {recalls} %; average precision {found['average_precision']:.3f}, "
            f"{100 * found['recall_at_full_precision']:.1f} % recall at 100 % precision, F1 {found['best_f1']:.3f}"
        )
    states = places["states"]
    for name in ("localized", "ambiguous", "unknown"):
        if states[f"{name}_precision"] is not None:
            recall = states.get(f"{name}_recall")
            also = "" if recall is None else f"; {100 * recall:.1f} % of the pictures without a place found out"
            yield f"  {name}: {100 * states[f'{name}_precision']:.1f} % of {states[name]} right{also}"
    if places["calibration_error"] is not None:
        yield f"  expected calibration error {places['calibration_error']:.3f}"
    success = places.get("success", ())
    shares = [f"{each['within_m']:g} m, {each['within_deg']:g} deg: {100 * each['share']:.1f} %" for each in success]
    if shares:
        yield "  pose published within " + "; ".join(shares)


def _loops(loops: dict[str, Any] | None) -> Iterator[str]:
    if not loops:
        return
    recall = "" if loops["recall"] is None else f", {100 * loops['recall']:.1f} % of {loops['revisits']} revisits"
    rate = "" if loops["false_per_km"] is None else f" ({loops['false_per_km']:.3g} per km)"
    yield f"false loops: {len(loops['false_loops'])} of {loops['accepted']} in {loops['km']:.2f} km{rate}{recall}"
    if loops.get("drift_removed_per_loop_m") is not None:
        yield (
            f"  a loop removes {loops['drift_removed_per_loop_m']:.2f} m of the {loops['odometry_off_m']:.2f} m that "
            "the odometry is off by"
        )


def _path(path: dict[str, Any]) -> Iterator[str]:
    if "odometry_ate_m" in path:
        relative = path.get("odometry_rpe_m_per_m")
        also = "" if relative is None else f", RPE {relative:.3f} m over 1 m"
        yield f"odometry: ATE {path['odometry_ate_m']:.2f} m{also} ({path['poses']} poses)"


def _times(result: Result) -> Iterator[str]:
    """Of the answers, by the networks and geometry alone; those that were read from an interrupted replay included."""
    totals = [sum(query.match.stage_ms.values()) for query in result.queries if query.match and query.match.stage_ms]
    if totals:
        found = metrics.percentiles(totals)
        yield "an answer took " + ", ".join(f"{value:.0f} ms ({name})" for name, value in found.items())
