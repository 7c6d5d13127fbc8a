"""Fit the match probability of ETR weights to what retrieval proposes on the validation places.

    python benchmarks/calibrate_weights.py RUN/etr.safetensors --data DATA --work DIR --output etr-s.safetensors

The pairs that training validates on are easier than a map: there, one looks for a place among many of the same
building, which may not have it: each query is asked in a map with its place and in one without. The weights stay as
they are; their calibration is fitted anew. --test prints of each test set the share of first candidates that are right,
the expected calibration error (ECE) of their probability, and how many are accepted and wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etr_ros  # noqa: F401  # before torch is loaded: it says how threads wait

# isort: split
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.reranking import prepare
from benchmarks.test_sets import test_sets
from etr_ros import metrics, rerank
from etr_ros.config import Config
from etr_ros.train.calibrating import Judgement, calibrated, in_and_outside_of_the_map

ACCEPTED = Config().decision.min_probability
COLUMNS = "places", "queries and maps", "right", "probability", "ECE", f"accepted at {ACCEPTED:g}", "of them wrong"


def main() -> int:
    """Fit and write; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ETR weights")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds ie_tower (and sf_streets, to --test)"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures that are made, and maps")
    parser.add_argument("--output", type=Path, required=True, help="weight file to write")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="fit to sets whose name holds one of these"
    )
    parser.add_argument(
        "--test", action="store_true", help="print how honest it is on the test places, before and after"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scorer = rerank.EtrScorer.from_file(args.weights, torch.device("cpu"))
    judged = [each for _, found in judgements("validation", args.only, scorer, args) for each in found]
    calibration = calibrated(judged)
    rerank.save(args.output, scorer.model, calibration, rerank.read_notes(args.weights))
    print(f"{len(judged)} queries and maps: {calibration}")
    if args.test:
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for name, found in judgements("test", [""], scorer, args):
            print(row(name, "before", found, scorer.calibration), row(name, "after", found, calibration), sep="\n")
    return 0


def judgements(
    part: str, only: Sequence[str], scorer: rerank.EtrScorer, args: argparse.Namespace
) -> Iterator[tuple[str, list[Judgement]]]:
    """Of each set of a part its name, and its queries in a map with their place and in one without."""
    config = Config().replace(**{"extractor.name": scorer.model.config.extractor, "compute.threads": args.threads})
    top_k = config.retrieval.top_k
    for test_set in test_sets(part, args.data, args.work):
        if not any(text in test_set.name for text in only):
            continue
        prepared, found = prepare(test_set, config, args.work / "maps" / part, 3 * top_k), list[Judgement]()
        for case in tqdm(prepared.cases, test_set.name, unit="query"):
            known = np.flatnonzero(~case.doubtful | case.right)
            places = [prepared.places[case.candidates[row]] for row in known]
            candidates = [lambda place=place: place for place in places]
            scores = scorer(case.query, places).values
            found += in_and_outside_of_the_map(case.query, candidates, scores, case.right[known], top_k)
        yield test_set.name, found


def row(name: str, when: str, judged: Sequence[Judgement], calibration: rerank.Calibration) -> str:
    """A row of the table: how the probability of the first candidate holds."""
    raised = [each.scores + calibration.per_inlier * each.inliers for each in judged]
    probability = calibration.probabilities(np.array([scores.max() for scores in raised], np.float32)).astype(float)
    right = np.array([each.right[scores.argmax()] for each, scores in zip(judged, raised, strict=True)])
    accepted = probability >= ACCEPTED
    error = metrics.reliability(probability, right).calibration_error or 0.0
    told = (
        name,
        len(judged),
        f"{100 * right.mean():.1f} %",
        when,
        f"{error:.3f}",
        accepted.sum(),
        (accepted & ~right).sum(),
    )
    return f"| {' | '.join(map(str, told))} |"


if __name__ == "__main__":
    sys.exit(main())
