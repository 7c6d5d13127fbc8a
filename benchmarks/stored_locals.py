"""What it costs in accuracy to store fewer or smaller local features (`memory.locals`, `memory.descriptors`).

    python benchmarks/stored_locals.py --data DATA --work DIR --output stored_locals.md

The features of benchmarks/accuracy.py; those of the places are stored and restored in each way, those of the queries
are not. Every way re-ranks the same candidates.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.accuracy import scorer
from benchmarks.reranking import Judged, judge, prepare
from benchmarks.test_sets import test_sets
from etr_ros.config import Config
from etr_ros.local_codes import TRAINING_LOCALS, LocalCodes
from etr_ros.types import Features

WAYS = (("half", 512), ("int8", 512), ("pq", 512), ("half", 256))


def stored(places: Sequence[Features], kind: str, count: int) -> tuple[list[Features], float]:
    """The features as a map gives them back, and the bytes of descriptors a place."""
    cut = [place.strongest(count) for place in places]
    codes = LocalCodes(kind, cut[0].descriptors.shape[1])
    if not codes.is_trained:
        codes = codes.train(np.concatenate([place.descriptors for place in cut])[:TRAINING_LOCALS])
    coded = [codes.encode(place.descriptors) for place in cut]
    restored = [dataclasses.replace(p, descriptors=codes.decode(c)) for p, c in zip(cut, coded, strict=True)]
    return restored, float(np.mean([each.nbytes for each in coded]))


def main() -> int:
    """Measure, write the page and, beside it, the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower and sf_streets")
    parser.add_argument("--part", choices=("test", "validation"), default="validation", help="default: validation")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures that are made, and maps")
    parser.add_argument("--output", type=Path, required=True, help="page to write (Markdown)")
    parser.add_argument("--top-k", type=int, default=20, help="candidates re-ranked (default: 20)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="sets whose name holds one of these")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config, rows = Config().replace(**{"compute.threads": 1}), []
    for test_set in test_sets(args.part, args.data, args.work):
        if not any(text in test_set.name for text in args.only):
            continue
        prepared = prepare(test_set, config, args.work / "maps" / args.part, args.top_k)
        score = scorer("etr-s", "xfeat", test_set, prepared)
        before: Judged | None = None
        for kind, count in WAYS:
            places, size = stored(prepared.places, kind, count)
            judged = judge(dataclasses.replace(prepared, places=places), score, f"{kind} {count}")
            before = before or judged
            rows.append(
                {
                    "set": test_set.name,
                    "way": f"{count} locals, {kind}",
                    "bytes": size,
                    "queries": int((~np.isnan(judged.ranks)).sum()),
                    "recall_at_1": judged.recall(1),
                    "recall_at_full_precision": judged.recall_at_full_precision(),
                    "score_difference": float(np.median(np.abs(judged.confidence - before.confidence))),
                }
            )
            print(rows[-1], flush=True)
    lines = [
        f"Measured on {dt.date.today().isoformat()} by",
        "",
        f"    python benchmarks/stored_locals.py {shlex.join(sys.argv[1:])}",
        "",
        "| set | queries | stored | descriptor bytes | Recall@1 | recall at 100 % precision | best score changed by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['set']} | {row['queries']} | {row['way']} | {row['bytes']:.0f} | {100 * row['recall_at_1']:.1f} % "
        f"| {100 * row['recall_at_full_precision']:.1f} % | {row['score_difference']:.3f} |"
        for row in rows
    ]
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    args.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
