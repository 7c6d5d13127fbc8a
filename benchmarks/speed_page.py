"""The measured times as a table, a picture and JSON, and compared with those measured before."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.machine import Machine
from benchmarks.speed_stages import LIGHTGLUE, Row

mpl.use("Agg")
from matplotlib import pyplot as plt

BEGIN, END = "<!-- measured: made by make benchmark -->", "<!-- /measured -->"


def write(folder: Path, machine: Machine, rows: Sequence[Row], accuracy: Mapping[str, float]) -> None:
    """speed.json, speed.svg, and between its marks speed.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "date": dt.date.today().isoformat(),
        "machine": dataclasses.asdict(machine),
        "rows": [dataclasses.asdict(row) for row in rows],
        "recall_at_1": dict(accuracy),
    }
    (folder / "speed.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if accuracy:
        draw(folder / "speed.svg", rows, accuracy)
    page = folder / "speed.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:begin]}\n\n{table(machine, rows)}\n{text[end:]}", encoding="utf-8")


def table(machine: Machine, rows: Sequence[Row]) -> str:
    """Markdown: the ceilings, every row with its rates, and how cost grows."""
    ceilings = (
        f"Measured on {dt.date.today().isoformat()}, {machine.processor}, {machine.threads} threads, float32. At best "
        f"this machine does {machine.gemm_gflops:.0f} GFLOP/s in matrix products, {machine.convolution_gflops:.0f} in "
        f"convolutions, and copies {machine.copy_gb_s:.1f} GB/s."
    )
    lines = [
        ceilings,
        "",
        "| stage | input | median ms | p95 ms | GFLOP | of best GEMM | MB | of best copy | magsac / this |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    medians = {row.what: row.median_ms for row in rows}
    for row in rows:
        top = re.search(r"top \d+$", row.what)
        beside = medians.get(f"magsac {top[0]}") if top and row.stage == "re-ranking" else None
        cells = [
            *(row.stage, row.what, f"{row.median_ms:.3g}", f"{row.p95_ms:.3g}"),
            *_rate(row.operations, row.median_ms, machine.gemm_gflops),
            *_rate(row.bytes, row.median_ms, machine.copy_gb_s, 1e6),
            "" if beside is None else f"{beside / row.median_ms:.3g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", growth(rows)]) + "\n"


def _rate(amount: float | None, milliseconds: float, ceiling: float, unit: float = 1e9) -> tuple[str, str]:
    """The amount in its unit, and the share of a ceiling in 10^9 per second."""
    if amount is None:
        return "", ""
    return f"{amount / unit:.3g}", f"{100 * amount / (milliseconds / 1e3) / 1e9 / ceiling:.0f} %"


def growth(rows: Sequence[Row]) -> str:
    """The fitted exponents: cost ~ size ^ exponent."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if size := re.fullmatch(r"(\S+) (\d+)x(\d+)", row.what):
            if row.stage == "extraction":
                series.setdefault(f"{size[1]} with pixels", []).append((int(size[2]) * int(size[3]), row.median_ms))
        elif number := re.fullmatch(r"(.+) top (\d+)", row.what):
            series.setdefault(f"{number[1]} with candidates", []).append((int(number[2]), row.median_ms))
        elif number := re.fullmatch(r"(.+ top \d+), (\d+) locals", row.what):
            series.setdefault(f"{number[1]} with locals", []).append((int(number[2]), row.median_ms))
    fitted = [f"{name} {slope(points):.2f}" for name, points in series.items() if len(points) > 1]
    return "Cost grows as a power of the size; fitted exponents: " + ", ".join(fitted) + "."


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The exponent of the power that fits (size, cost) best."""
    sizes, costs = np.log(np.array(points)).T
    return float(np.polyfit(sizes, costs, 1)[0])


def compare(machine: Machine, rows: Sequence[Row], before: Mapping[str, Any], limit: float) -> list[str]:
    """The rows that take more than `limit` times what they took before, both measured in matrix products."""
    then = {(row["stage"], row["what"]): row["median_ms"] for row in before["rows"]}
    faster = machine.gemm_gflops / before["machine"]["gemm_gflops"]
    ratios = {row.what: row.median_ms * faster / then[row.stage, row.what] for row in rows
              if (row.stage, row.what) in then}  # fmt: skip
    return [f"{what}: {ratio:.2f} times" for what, ratio in ratios.items() if ratio > limit]


def draw(path: Path, rows: Sequence[Row], accuracy: Mapping[str, float]) -> None:
    """Recall@1 over the time for the top 20, logarithmic; LightGlue, whose accuracy is not measured here, as a line."""
    mpl.rcParams["svg.hashsalt"] = "etr_ros"
    medians = {row.what: row.median_ms for row in rows}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.axhline(100 * accuracy["none"], color="0.6", linestyle="--", label="retrieval alone")
    for name, share in accuracy.items():
        took = medians.get(f"{name} top 20")
        if took is not None:
            axes.plot(took, 100 * share, "o", markersize=8, label=name)
    if (took := medians.get(f"{LIGHTGLUE} top 20")) is not None:
        axes.axvline(took, color="tab:red", linestyle=":", label=f"{LIGHTGLUE} (time only)")
    axes.set(xscale="log", xlabel="ms to re-rank the top 20", ylabel="Recall@1, San Francisco streets (%)")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
