"""Fit a calibration on validation places, judge it on test places, and write it.

    python benchmarks/calibration.py --work DIR --fit MAP15 E1M9 --test E2M1 E4M6 \
        [--fit-pictures DIR] [--test-pictures DIR] --output calibration.json

Levels of the simulator are driven (with depth, odometry and truth) and replayed in loop mode without calibration; what
is in DIR already is not made again, but for replays with other weights. Folders of pictures are those that
`split_sequences.py` writes; candidates that it calls doubtful are left out. Printed for each: the share of first
candidates that are right, the expected calibration error (ECE), that of probabilities which are true on so few pictures
(mean of draws), average precision, recall at 100 % precision, and the wrong among those accepted at 0.9 - by the
re-ranker's own probability, and by fits to the levels, to the pictures, and to both, which is the one that is written.
Then, for levels, the false places and loops per km that `decision.max_false_loops_per_km` lets through.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros import calibration, ground_truth, metrics, rerank, result_files
from etr_ros.build import build_map
from etr_ros.calibration import LOOPS, METHODS, PLACES, Calibration
from etr_ros.calibration_fit import fit
from etr_ros.cli.calibrate import summary
from etr_ros.config import Config
from etr_ros.datasets import ImageFolder
from etr_ros.errors import DataError, ImageError
from etr_ros.measure import Protocol
from etr_ros.pipeline import PlaceRecognizer
from etr_ros.result import Outcome, Query, Result
from etr_ros.samples import Samples, collect, read_samples

ACCEPTED = 0.9
DRAWS = 500
COLUMNS = (
    *("places", "pictures", "right", "probability", "ECE", "ECE if true"),
    *("average precision", "recall at 100 % precision", "accepted at 0.9", "of them wrong"),
)
RATES = 1.0, 5.0, 10.0, 20.0  # false ones per km that are asked for
RATE_COLUMNS = "level", "probability", "what", "per km asked for", "threshold", "accepted", "false", "false per km"
PLAIN = Config().replace(**{"decision.calibration": ""})
SPACING = "keyframe.distance_m=1.0", "keyframe.angle_deg=30", "decision.calibration="
TOPICS = {
    "--image-topic": "/camera/image_raw/compressed",
    "--pose-topic": "/odom",
    "--truth-topic": "/ground_truth",
    "--camera-info-topic": "/camera/camera_info",
    "--depth-topic": "/camera/depth/image_raw",
}


def main() -> int:
    """Measure, and write the calibration; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for bags, results and maps")
    parser.add_argument("--fit", nargs="*", default=["MAP15", "E1M9"], metavar="LEVEL", help="validation levels")
    parser.add_argument("--test", nargs="*", default=["E2M1", "E4M6"], metavar="LEVEL", help="test levels")
    parser.add_argument("--fit-pictures", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--test-pictures", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--method", choices=METHODS, help="default: the better by cross-validation")
    parser.add_argument("--minutes", type=float, default=3.5, help="of each drive (default: 3.5)")
    parser.add_argument("--seed", type=int, default=5, help="of the drives (default: 5)")
    parser.add_argument("--output", type=Path, required=True, help="calibration file to write")
    args = parser.parse_args()

    drives, stills = [drive(level, args) for level in args.fit], [still(each, args.work) for each in args.fit_pictures]
    unseen = [drive(level, args) for level in args.test] + [still(each, args.work) for each in args.test_pictures]
    groups = {"levels": drives, "pictures": stills}
    if drives and stills:
        groups["both"] = drives + stills
    fits: dict[str, Calibration] = {}
    for name, seen in groups.items():
        if seen:
            found = fits[f"fit to {name}"] = fit(seen, args.method or "")
            print(f"# fit to {name}", *summary(found, seen), "", sep="\n")
            calibration.write(args.output, found)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for part in unseen:
        judge(part, fits)
    print(f"\n| {' | '.join(RATE_COLUMNS)} |\n|{' --- |' * len(RATE_COLUMNS)}")
    for part in unseen:
        if part.km > 0:
            judge_rates(part, fits)
    return 0


def drive(level: str, args: argparse.Namespace) -> Samples:
    """Samples of a drive through a level."""
    bag, result = args.work / "bags" / level, args.work / "results" / level
    if not bag.exists():
        options = ["--minutes", args.minutes, "--rate", 2, "--seed", args.seed, "--bag", "--output", bag]
        run("examples.simulator.record", level, *options)
    if not is_current(result):
        topics = [word for option in TOPICS.items() for word in option]
        settings = [word for value in SPACING for word in ("--set", value)]
        run("etr_ros.cli.main", "replay", bag, "--output", result, *topics, *settings)
    return read_samples(result)


def is_current(result: Path) -> bool:
    """Whether the weights are still those of the result."""
    try:
        return bool(result_files.read_manifest(result).get("reranker") == rerank.identity("etr-s", "xfeat"))
    except DataError:
        return False


def run(module: str, *arguments: object) -> None:
    """A command of this repository."""
    root = Path(__file__).resolve().parents[1]
    words = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(words, check=True, cwd=root, stdout=subprocess.DEVNULL)


def still(folder: Path, work: Path) -> Samples:
    """Samples of pictures that are no drive: `query` sought in `database`, judged by `ground_truth.csv`."""
    doubtful = set(ground_truth.read_pairs(folder / "doubtful.csv")) if (folder / "doubtful.csv").exists() else set()
    place_map = work / "maps" / folder.name
    if not place_map.exists():
        source = ImageFolder(folder / "database")
        build_map(tqdm(source, "database", source.expected), place_map, PLAIN, skipped=source.reject)
    recognizer, queries = PlaceRecognizer.open(place_map, PLAIN), []
    for frame in tqdm(ImageFolder(folder / "query"), folder.name):
        try:
            match = recognizer.query(frame)
        except ImageError:
            continue
        kept = tuple(each for each in match.candidates if (frame.name, each.place.name) not in doubtful)
        match = dataclasses.replace(match, candidates=kept)
        queries.append(Query(frame.name, frame.stamp_ns, Outcome.ANSWERED, "", len(queries), match=match))
    manifest = {
        "bag": {"name": folder.name},
        "config": PLAIN.to_dict(),
        "reranker": rerank.identity(PLAIN.rerank.name, PLAIN.extractor.name),
    }
    protocol = Protocol(pairs=tuple(ground_truth.read_pairs(folder / "ground_truth.csv")))
    return collect(Result(manifest, tuple(queries)), recognizer.places, protocol, is_drive=False)


def judge(part: Samples, fits: Mapping[str, Calibration]) -> None:
    """A row for the re-ranker's first candidate and probability, and one for the most probable candidate of each fit.

    Recall is of the pictures of which any of them finds the place.
    """
    pictures = np.array([row.picture for row in part.rows])
    rows_of = [np.flatnonzero(pictures == number) for number in np.unique(pictures)]
    own = np.array([row.before for row in part.rows])
    told = {"the re-ranker's own": (own, [int(rows[0]) for rows in rows_of])}
    for name, found in fits.items():
        probability = np.array(found.probabilities([row.evidence for row in part.rows]))
        told[name] = probability, [int(rows[probability[rows].argmax()]) for rows in rows_of]
    positives = max(int(part.right[rows].sum()) for _, rows in told.values())
    for name, (every, rows) in told.items():
        probability, right = every[rows], part.right[rows]
        curve = metrics.precision_recall(probability, right, positives)
        error = metrics.reliability(probability, right).calibration_error or 0.0
        accepted = probability >= ACCEPTED
        print(
            f"| {part.source} | {len(rows)} | {100 * right.mean():.1f} % | {name} | {error:.3f} "
            f"| {error_if_true(probability):.3f} | {curve.average_precision:.3f} "
            f"| {100 * curve.recall_at_full_precision:.1f} % | {accepted.sum()} | {(accepted & ~right).sum()} |"
        )


def judge_rates(part: Samples, fits: Mapping[str, Calibration]) -> None:
    """A row for each rate of false places, or of false loops, that a fit gives a threshold for."""
    for name, found in fits.items():
        best: dict[int, tuple[float, bool]] = {}
        for row, probability in zip(part.rows, found.probabilities([row.evidence for row in part.rows]), strict=True):
            best[row.picture] = max(best.get(row.picture, (-1.0, False)), (probability, not row.is_right))
        loops = part.loops or ()
        told = zip(found.probabilities([evidence for evidence, _ in loops]), (bad for _, bad in loops), strict=True)
        for kind, answers in ((PLACES, [*best.values()]), (LOOPS, [*told])):
            for allowed in RATES if kind in found.curves else ():
                least = found.curves[kind].threshold(allowed)
                kept = [is_false for probability, is_false in answers if least is not None and probability >= least]
                print(
                    f"| {part.source} | {name} | {kind} | {allowed:g} | {'none' if least is None else f'{least:.3f}'} "
                    f"| {len(kept)} | {sum(kept)} | {sum(kept) / part.km:.1f} |"
                )


def error_if_true(probability: NDArray[np.float64]) -> float:
    """The calibration error to expect by chance where every probability (Q,) is what it says."""
    rng = np.random.default_rng(0)
    drawn = (metrics.reliability(probability, rng.random(len(probability)) < probability) for _ in range(DRAWS))
    return float(np.mean([each.calibration_error or 0.0 for each in drawn]))


if __name__ == "__main__":
    sys.exit(main())
