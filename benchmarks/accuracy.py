"""Compare re-rankers on the same features and candidates of places that no training saw.

    python benchmarks/accuracy.py --data DATA --work DIR --output accuracy.md

Of each test set the features are computed once; every re-ranker orders the same top 100. Recall@1 and recall at 100 %
precision come with a 95 % bootstrap interval over places; the re-rankers' times are taken in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from benchmarks.cost import macs_per_pair, parameters
from benchmarks.reranking import Judged, Prepared, Score, judge, prepare
from benchmarks.test_sets import TestSet, test_sets
from etr_ros import rerank, shortlist, weights
from etr_ros.config import Config, RerankConfig
from etr_ros.types import Features

PEERS: dict[str, Score | None] = {"none": None, "mutual": peers.mutual, "magsac": peers.magsac}
WITH_OWN_FEATURES = {"sift-ransac": peers.SiftRansac, "lightglue": peers.LightGlue}
VERIFIER = "magsac"  # what others are compared with
OURS = "etr-s", "etr-s-small", "etr-d"
# Behind the name of an ETR; a node does both
SHORTLISTED = "+shortlist"  # only the most promising candidates are re-ranked; a number behind it says how many
CONFIRMED = "+geometry"  # the best are confirmed by geometry
AS_A_NODE = SHORTLISTED + CONFIRMED
EXPLAINED = {
    "none": "the order of retrieval",
    "mutual": "number of mutual nearest neighbours",
    "magsac": "mutual nearest neighbours, fundamental matrix by MAGSAC++",
    "sift-ransac": "1000 SIFT keypoints of its own, ratio test, fundamental matrix by RANSAC",
    "lightglue": "512 ALIKED keypoints of its own, LightGlue, fundamental matrix by MAGSAC++",
}


def main() -> int:
    """Measure, write the page and, beside it, the numbers as JSON; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower and sf_streets")
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="default: test")
    parser.add_argument(
        "--extractors", nargs="+", default=["xfeat", "superpoint"], help="local features (default: xfeat superpoint)"
    )
    parser.add_argument(
        "--rerankers",
        nargs="+",
        default=["none", "mutual", "magsac", *(name + how for name in OURS for how in ("", CONFIRMED, AS_A_NODE))],
        metavar="NAME",
        help=f"{', '.join((*PEERS, *WITH_OWN_FEATURES))}, a registered ETR or a weight file; the last two also with "
        f"{SHORTLISTED} (or {SHORTLISTED}12), {CONFIRMED} or both behind. An ETR without weights for an extractor is "
        "left out there",
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures that are made, and maps")
    parser.add_argument("--output", type=Path, required=True, help="page to write (Markdown)")
    parser.add_argument("--top-k", type=int, default=100, help="candidates re-ranked (default: 100)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="sets whose name holds one of these")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for extractor in args.extractors:
        config = Config().replace(**{"extractor.name": extractor, "compute.threads": args.threads})
        for test_set in test_sets(args.part, args.data, args.work):
            if not any(text in test_set.name for text in args.only):
                continue
            prepared = prepare(test_set, config, args.work / "maps" / args.part, args.top_k)
            verifier = None
            for name in known(args.rerankers, extractor):
                judged = judge(prepared, scorer(name, extractor, test_set, prepared), short(name))
                verifier = judged if name == VERIFIER else verifier
                rows.append({"extractor": extractor} | summary(test_set.name, short(name), judged, verifier))
                shown = ", ".join(f"{key} {value:.3f}" for key, value in rows[-1].items() if isinstance(value, float))
                print(f"{extractor}, {test_set.name}, {name}: {shown}", flush=True)
    args.output.write_text(page(rows, args), encoding="utf-8")
    args.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def known(names: Sequence[str], extractor: str) -> list[str]:
    """Those that there are for the features of an extractor."""
    registered = {entry.name for entry in weights.REGISTRY}
    anywhere = (*PEERS, *WITH_OWN_FEATURES)
    etr = {name: plain(name) for name in names}
    return [
        name
        for name in names
        if name in anywhere or etr[name].endswith(".safetensors") or f"{etr[name]}-{extractor}" in registered
    ]


def scorer(name: str, extractor: str, test_set: TestSet, prepared: Prepared) -> Score | None:
    """The re-ranker `name` for the pictures of a set."""
    if name in PEERS:
        return PEERS[name]
    if name in WITH_OWN_FEATURES:
        return peers.of_pictures(prepared, test_set.database, test_set.query, WITH_OWN_FEATURES[name])
    loaded = rerank.load(plain(name), extractor, torch.device("cpu"))
    if not isinstance(loaded, rerank.EtrScorer):
        raise SystemExit(f"accuracy: {name} is no ETR")
    return lambda query, candidates: scores(loaded, name, query, candidates)


def shortlist_of(name: str) -> int | None:
    """How many candidates the way that a name ends with re-ranks, None for all."""
    found = re.search(re.escape(SHORTLISTED) + r"(\d*)", name)
    return int(found[1] or RerankConfig.shortlist) or None if found else None


def scores(scorer: rerank.EtrScorer, name: str, query: Features, candidates: Sequence[Features]) -> NDArray[np.float32]:
    """Scores (K,) in the way that the name ends with; those not on the shortlist follow, most promising first."""
    count = shortlist_of(name)
    if count is None or len(candidates) <= count:
        values = scorer(query, candidates).values
    else:
        order = np.argsort(-shortlist.promise(query, candidates), kind="stable")
        chosen, behind = order[:count], order[count:]
        values = np.empty(len(candidates), np.float32)
        values[chosen] = scorer(query, [candidates[i] for i in chosen]).values
        values[behind] = values[chosen].min() - 1 - np.arange(len(behind))
    if not name.endswith(CONFIRMED):
        return values
    best = np.argsort(-values, kind="stable")[: RerankConfig.confirmed]
    values[best] = scorer.confirm(query, [candidates[i] for i in best], values[best]).values
    return values


def short(name: str) -> str:
    """A name without folder and file type."""
    return Path(plain(name)).stem + name.removeprefix(plain(name))


def plain(name: str) -> str:
    """The name of an ETR without what stands behind it."""
    return re.sub(re.escape(SHORTLISTED) + r"\d*$", "", name.removesuffix(CONFIRMED))


def summary(set_name: str, name: str, judged: Judged, verifier: Judged | None) -> dict[str, object]:
    """The measures of one re-ranker on one set, plain values; against those of the verifier where it is known."""
    at_one: Callable[[np.ndarray], float] = lambda rows: judged.recall(1, rows)  # noqa: E731
    against: dict[str, object] = {}
    if verifier is not None and verifier is not judged:
        ahead: Callable[[np.ndarray], float] = lambda rows: judged.recall(1, rows) - verifier.recall(1, rows)  # noqa: E731
        against = {"ahead": ahead(np.arange(len(judged.ranks))), "ahead_interval": judged.interval(ahead)}
    return against | {
        "set": set_name,
        "reranker": name,
        "queries": int((~np.isnan(judged.ranks)).sum()),
        "recall_at_1": judged.recall(1),
        "recall_at_1_interval": judged.interval(at_one),
        "recall_at_5": judged.recall(5),
        "recall_at_10": judged.recall(10),
        "recall_at_full_precision": judged.recall_at_full_precision(),
        "recall_at_full_precision_interval": judged.interval(judged.recall_at_full_precision),
        "doubtful": int(judged.doubtful.sum()),
        "milliseconds": float(np.median(judged.milliseconds)),
    }


def page(rows: list[dict], args: argparse.Namespace) -> str:
    """The results as Markdown."""
    lines = [
        "# Re-ranking, measured",
        "",
        f"Measured on {dt.date.today().isoformat()}, {args.threads} CPU threads, seed 0, by",
        "",
        f"    python benchmarks/accuracy.py {shlex.join(sys.argv[1:])}",
        "",
        f"Each re-ranker orders the same {args.top_k} candidates. In brackets: 95 % bootstrap intervals over places,",
        "for the difference to magsac over the same draws. Times are of the processor, medians over the queries.",
    ]
    for extractor in args.extractors:
        lines += ["", f"## {extractor} features", "", *_table([row for row in rows if row["extractor"] == extractor])]
        lines += ["", "| re-ranking | what | parameters | multiply-adds a pair |", "| --- | --- | --- | --- |"]
        lines += [_described(name, extractor) for name in known(args.rerankers, extractor)]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict]) -> list[str]:
    lines = [
        "| test set | queries | re-ranking | Recall@1 | to magsac | R@5 | R@10 | recall at 100 % precision | ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            _percent(row["recall_at_1"], row["recall_at_1_interval"]),
            _difference(row["ahead"], row["ahead_interval"]) if "ahead" in row else "-",
            _percent(row["recall_at_5"]),
            _percent(row["recall_at_10"]),
            _percent(row["recall_at_full_precision"], row["recall_at_full_precision_interval"]),
            f"{row['milliseconds']:.0f}",
        ]
        lines.append(f"| {row['set']} | {row['queries']} | {row['reranker']} | {' | '.join(cells)} |")
    return lines


def _percent(value: float, interval: tuple[float, float] | None = None) -> str:
    around = f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else ""
    return f"{100 * value:.1f} %{around}"


def _difference(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:+.1f} ({100 * interval[0]:+.0f} to {100 * interval[1]:+.0f})"


def _described(name: str, extractor: str) -> str:
    if name in EXPLAINED:
        return f"| {name} | {EXPLAINED[name]} | - | - |"
    if name != plain(name):
        told = [f"of the {shortlist_of(name)} most promising"] * (SHORTLISTED in name)
        told += [f"the best {RerankConfig.confirmed} confirmed by geometry"] * name.endswith(CONFIRMED)
        return f"| {short(name)} | {short(plain(name))}, {', '.join(told)} | - | - |"
    config = rerank.load(name, extractor, torch.device("cpu")).model.config  # type: ignore[union-attr]
    shape = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("extractor", "local_dim", "scales")}
    told = ", ".join(f"{key} {value}" for key, value in shape.items())
    return f"| {short(name)} | {told} | {parameters(config)} | {macs_per_pair(config) / 1e6:.1f} M |"


if __name__ == "__main__":
    sys.exit(main())
