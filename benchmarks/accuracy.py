"""Compare re-rankers on the same features and candidates: Recall@1/5/10, recall at 100 % precision, time.

    python benchmarks/accuracy.py --set NAME DATABASE QUERY GROUND_TRUTH [--set ...] --work DIR --output docs/results.md

Each set is a folder of database pictures, a folder of queries and a CSV of positive pairs (`query,database`). The map
of a set is built once and shared, so that all re-rankers see the same candidates.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.config import Config
from etr_ros.evaluate import Request, evaluate

RERANKERS = ("none", "magsac", "etr-s")


def main() -> int:
    """Measure, write the page; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set",
        action="append",
        nargs=4,
        required=True,
        dest="sets",
        metavar=("NAME", "DATABASE", "QUERY", "GROUND_TRUTH"),
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for maps and results")
    parser.add_argument("--output", type=Path, required=True, help="page to write (Markdown)")
    parser.add_argument("--top-k", type=int, default=20, help="candidates re-ranked (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    args = parser.parse_args()
    rows = []
    for name, database, query, truth in args.sets:
        place_map = Path(database)
        for reranker in RERANKERS:
            output = args.work / f"{name.replace(' ', '_')}-{reranker}"
            config = Config().replace(
                **{"rerank.name": reranker, "retrieval.top_k": args.top_k, "compute.threads": args.threads}
            )
            request = Request(database=place_map, query=Path(query), ground_truth=Path(truth), output=output)
            result = evaluate(request, config, lambda source, what: tqdm(source, what, source.expected)).metrics
            if (output / "map").is_dir():
                place_map = output / "map"
            rows.append((name, reranker, result))
    args.output.write_text(page(rows, args), encoding="utf-8")
    print(args.output.read_text(encoding="utf-8"))
    return 0


def page(rows: list[tuple[str, str, dict]], args: argparse.Namespace) -> str:  # type: ignore[type-arg]
    """The results as Markdown."""
    lines = [
        "# Measurements",
        "",
        f"Measured on {dt.date.today().isoformat()}, {args.threads} CPU threads, PyTorch {torch.__version__}, by",
        "",
        f"    python benchmarks/accuracy.py {shlex.join(sys.argv[1:])}",
        "",
        f"Re-ranking the same top {args.top_k} on identical features. Recall at 100 % precision: the share of queries",
        "that can be accepted by a threshold on the best score without one wrong match.",
        "",
        (
            "| test set | queries | re-ranking | Recall@1 | Recall@5 | Recall@10 | recall at 100 % precision "
            "| re-ranking, median ms |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, reranker, result in rows:
        ranked = result["reranked" if reranker != "none" else "retrieval"]
        values = " | ".join(f"{100 * ranked[f'recall_at_{at}']:.1f} %" for at in ("1", "5", "10", "full_precision"))
        milliseconds = result["timing"]["query_ms"]["rerank"]["p50"]
        lines.append(f"| {name} | {result['queries_with_positive']} | {reranker} | {values} | {milliseconds:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
