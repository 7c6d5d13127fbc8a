"""Fit a calibration on validation places, judge it on test places, and write it.

    python benchmarks/calibration.py --work DIR --fit MAP15 E1M9 --test E2M1 E4M6 \
        [--fit-pictures DIR] [--test-pictures DIR] --output calibration.json

Levels of the simulator are driven (with depth, odometry and truth) and replayed in loop mode without calibration; what
is in DIR already is not made again, but for replays with other weights. Folders of pictures are those that
`split_sequences.py` writes. Printed for each: the share of first candidates that are right, the expected calibration
error, average precision, recall at 100 % precision, and the wrong among those accepted at 0.9 - by the re-ranker's own
probability, and calibrated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros import calibration, ground_truth, metrics, rerank, result_files
from etr_ros.build import build_map
from etr_ros.calibration import METHODS, Calibration
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
    parser.add_argument("--fit", nargs="+", default=["MAP15", "E1M9"], metavar="LEVEL", help="validation levels")
    parser.add_argument("--test", nargs="+", default=["E2M1", "E4M6"], metavar="LEVEL", help="test levels")
    parser.add_argument("--fit-pictures", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--test-pictures", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--method", choices=METHODS, help="default: the better by cross-validation")
    parser.add_argument("--minutes", type=float, default=3.5, help="of each drive (default: 3.5)")
    parser.add_argument("--seed", type=int, default=5, help="of the drives (default: 5)")
    parser.add_argument("--output", type=Path, required=True, help="calibration file to write")
    args = parser.parse_args()

    seen, unseen = (
        [drive(level, args) for level in levels] + [still(folder, args.work) for folder in folders]
        for levels, folders in ((args.fit, args.fit_pictures), (args.test, args.test_pictures))
    )
    found = fit(seen, args.method or "")
    calibration.write(args.output, found)
    print(*summary(found, seen), sep="\n")
    print("\n| places | pictures | right | probability | ECE | AP | recall at 100 % precision | accepted | wrong |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for part in unseen:
        judge(part, found)
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
        queries.append(Query(frame.name, frame.stamp_ns, Outcome.ANSWERED, "", len(queries), match=match))
    manifest = {
        "bag": {"name": folder.name},
        "config": PLAIN.to_dict(),
        "reranker": rerank.identity(PLAIN.rerank.name, PLAIN.extractor.name),
    }
    protocol = Protocol(pairs=tuple(ground_truth.read_pairs(folder / "ground_truth.csv")))
    return collect(Result(manifest, tuple(queries)), recognizer.places, protocol, is_drive=False)


def judge(part: Samples, found: Calibration) -> None:
    """Two rows: the first candidate by score with the re-ranker's probability, the most probable one calibrated."""
    own = np.array([row.before for row in part.rows])
    calibrated = np.array(found.probabilities([row.evidence for row in part.rows]))
    pictures = np.array([row.picture for row in part.rows])
    first = [int(np.flatnonzero(pictures == number)[0]) for number in np.unique(pictures)]
    best = [int(max(np.flatnonzero(pictures == number), key=lambda i: calibrated[i])) for number in np.unique(pictures)]
    positives = max(int(part.right[first].sum()), int(part.right[best].sum()))
    for name, probability, rows in (("own", own, first), ("calibrated", calibrated, best)):
        right, told = part.right[rows], probability[rows]
        curve = metrics.precision_recall(told, right, positives)
        error = metrics.reliability(told, right).calibration_error or 0.0
        accepted = told >= ACCEPTED
        print(
            f"| {part.source} | {len(rows)} | {100 * right.mean():.1f} % | {name} | {error:.3f} "
            f"| {curve.average_precision:.3f} | {100 * curve.recall_at_full_precision:.1f} % "
            f"| {accepted.sum()} | {(accepted & ~right).sum()} |"
        )


if __name__ == "__main__":
    sys.exit(main())
