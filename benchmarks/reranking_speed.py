"""How long the re-rankers take for the same candidates, in turn, and the ratio to geometric verification.

    python benchmarks/reranking_speed.py MAP [--rerankers mutual etr-s] [--threads 2]

MAP is any map of at least two places; the query is its first place, the candidates are the others, repeated if there
are fewer than asked for. What a re-ranker reads is in memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etr_ros  # noqa: F401  # before torch is loaded: it says how threads wait

# isort: split
import numpy as np
import torch

from benchmarks import peers
from etr_ros import rerank
from etr_ros.database import PlaceMap


def main() -> int:
    """Measure and print a table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path, help="map whose pictures are the query and the candidates")
    parser.add_argument("--rerankers", nargs="+", default=["mutual", "etr-s"], metavar="NAME")
    parser.add_argument("--candidates", type=int, default=100, help="default: 100")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=11, help="default: 11")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    place_map = PlaceMap(args.map)
    query, *others = (place_map.view(i).features for i in range(min(len(place_map), args.candidates + 1)))
    candidates = [others[i % len(others)] for i in range(args.candidates)]
    extractor = place_map.info.extractor
    scorers = {name: getattr(peers, name, None) or load(name, extractor) for name in ("magsac", *args.rerankers)}
    wall: dict[str, list[float]] = {name: [] for name in scorers}
    cpu: dict[str, list[float]] = {name: [] for name in scorers}
    for turn in range(args.rounds + 1):
        for name, score in scorers.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            score(query, candidates)
            if turn:  # the first is a warm-up
                wall[name].append(1e3 * (time.perf_counter() - start))
                cpu[name].append(1e3 * (time.process_time() - start_cpu))
    print(f"top {args.candidates}, {args.threads} threads, {args.rounds} rounds in turn\n")
    print("| re-ranking | median ms | 95 % below, ms | processor ms | times faster than magsac |")
    print("| --- | --- | --- | --- | --- |")
    for name in scorers:
        ratio = np.median(np.array(wall["magsac"]) / np.array(wall[name]))
        high = np.percentile(wall[name], 95)
        print(f"| {name} | {np.median(wall[name]):.0f} | {high:.0f} | {np.median(cpu[name]):.0f} | {ratio:.1f} |")
    return 0


def load(name: str, extractor: str):  # type: ignore[no-untyped-def]
    """A registered re-ranker or a weight file."""
    return rerank.load(name, extractor, torch.device("cpu"))


if __name__ == "__main__":
    sys.exit(main())
