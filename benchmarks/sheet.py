"""Ten queries that a re-ranker put right and ten that it got wrong, as one picture sheet each, with scores.

    python benchmarks/sheet.py --data DATA --work DIR --reranker etr-s --output DIR

Rows: the query, what retrieval put first, what the re-ranker put first, and a right place; of each place its match
probability, once geometry has confirmed the best, and the matches that agree with one motion.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.accuracy import CONFIRMED, scores
from benchmarks.reranking import Prepared, prepare
from benchmarks.test_sets import TestSet, test_sets
from etr_ros import rerank, verify
from etr_ros.config import Config

ROWS = 10
TILE = 300, 190  # width, height in pixels


def main() -> int:
    """Write right.png and wrong.png; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower and sf_streets")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures that are made, and maps")
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="default: test")
    parser.add_argument("--extractor", default="xfeat", help="local features (default: xfeat)")
    parser.add_argument("--reranker", default="etr-s", help="default: etr-s")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two pictures")
    args = parser.parse_args()
    config = Config().replace(**{"extractor.name": args.extractor})
    scorer = rerank.load(args.reranker, args.extractor, torch.device("cpu"))
    if not isinstance(scorer, rerank.EtrScorer):
        raise SystemExit(f"sheet: {args.reranker} is no ETR")
    args.output.mkdir(parents=True, exist_ok=True)
    sheets: dict[str, list[np.ndarray]] = {"right": [], "wrong": []}
    for test_set in test_sets(args.part, args.data, args.work):
        prepared = prepare(test_set, config, args.work / "maps" / args.part, 100)
        for kind, row in rows(test_set, prepared, scorer):
            sheets[kind].append(row)
    for kind, found in sheets.items():
        spread = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(ROWS, len(found))).astype(int))]
        cv2.imwrite(str(args.output / f"{kind}.png"), np.vstack(spread))
    return 0


def rows(test_set: TestSet, prepared: Prepared, scorer: rerank.EtrScorer):
    """A row for each query whose first place the re-ranker put right, or left or made wrong."""
    for case in prepared.cases:
        if not case.right.any():
            continue
        values = scores(scorer, CONFIRMED, case.query, [prepared.places[i] for i in case.candidates])
        probabilities = scorer.calibration.probabilities(values)
        right = np.flatnonzero(case.right)
        first, best_right = int(np.argmax(values)), int(right[np.argmax(values[right])])
        if case.doubtful[first] or (case.right[0] and case.right[first]):
            continue
        pictures = [(test_set.query / case.name, f"query {case.name}")]
        for title, k in (("retrieval", 0), ("re-ranked", first), ("right", best_right)):
            agreeing = len(verify.inliers(case.query, prepared.places[case.candidates[k]]))
            told = f"{title}: p {probabilities[k]:.2f}, {agreeing} matches agree"
            pictures.append((test_set.database / prepared.names[case.candidates[k]], told))
        yield ("right" if case.right[first] else "wrong"), np.hstack([tile(*picture) for picture in pictures])


def tile(file: Path, text: str) -> np.ndarray:
    """A picture with a line of text on it."""
    image = cv2.resize(cv2.imread(str(file)), TILE)
    cv2.rectangle(image, (0, 0), (TILE[0], 16), (255, 255, 255), -1)
    cv2.putText(image, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return image


if __name__ == "__main__":
    sys.exit(main())
