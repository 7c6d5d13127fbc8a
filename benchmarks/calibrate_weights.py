"""Fit the match probability of ETR weights to what retrieval proposes on the validation places.

    python benchmarks/calibrate_weights.py RUN/etr.safetensors --data DATA --work DIR --output etr-s.safetensors

The pairs that training validates on are easier than a map: there, one looks for a place among many of the same
building. The weights stay as they are; their calibration is fitted anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etr_ros  # noqa: F401  # before torch is loaded: it says how threads wait

# isort: split
import torch
from tqdm import tqdm

from benchmarks.reranking import prepare
from benchmarks.test_sets import test_sets
from etr_ros import rerank
from etr_ros.config import Config
from etr_ros.train.calibrating import Judgement, calibrated, inliers_of_best


def main() -> int:
    """Fit and write; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ETR weights")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures that are made, and maps")
    parser.add_argument("--output", type=Path, required=True, help="weight file to write")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="sets whose name holds one of these")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scorer = rerank.EtrScorer.from_file(args.weights, torch.device("cpu"))
    extractor = scorer.model.config.extractor
    config = Config().replace(**{"extractor.name": extractor, "compute.threads": args.threads})
    judged = []
    for test_set in test_sets("validation", args.data, args.work):
        if not any(text in test_set.name for text in args.only):
            continue
        prepared = prepare(test_set, config, args.work / "maps" / "validation", config.retrieval.top_k)
        for case in tqdm(prepared.cases, test_set.name, unit="query"):
            places = [prepared.places[i] for i in case.candidates]
            scores = scorer(case.query, places).values
            inliers = inliers_of_best(case.query, [lambda place=place: place for place in places], scores)
            known = ~case.doubtful | case.right
            judged.append(Judgement(scores[known], inliers[known], case.right[known]))
    calibration = calibrated(judged)
    rerank.save(args.output, scorer.model, calibration, rerank.read_notes(args.weights))
    print(f"{len(judged)} queries: {calibration}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
