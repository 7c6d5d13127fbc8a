"""Make the training set and train the weights that ship, on the floors and levels of `split.yaml`.

    python benchmarks/train_weights.py --data DATA --work DIR --model etr-s --output DIR/etr-s

What is not there yet is made below the work folder: groups of views of each training and validation level of the
simulator, and the features of all pictures. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.test_sets import SPLIT
from etr_ros.cli.progress import stages
from etr_ros.config import Config
from etr_ros.train.run import Settings, train_etr
from examples.simulator.export import export_places

PLACES = 90  # of a level, three views each


def main() -> int:
    """Train; exit code 0 when the weights are better than retrieval on the validation places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower")
    parser.add_argument("--work", type=Path, required=True, help="folder for levels and features")
    parser.add_argument("--output", type=Path, required=True, help="folder for weights, metrics and curves")
    parser.add_argument("--model", default="etr-s", help="see `etr train --help` (default: etr-s)")
    parser.add_argument("--extractor", default="xfeat", help="local features (default: xfeat)")
    parser.add_argument("--start", help="weights to start from, also those of another extractor")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="floors and levels of the split (default: all)")
    parser.add_argument("--copies", type=int, default=1, help="changed copies of each picture (default: 1)")
    parser.add_argument("--steps", type=int, default=2500, help="default: 2500")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = Config().replace(**{"extractor.name": args.extractor, "compute.threads": args.threads})
    sources = {part: training_sources(part, args.data, args.work, args.only) for part in ("train", "validation")}
    settings = Settings(
        data=sources["train"],
        validation=sources["validation"],
        output=args.output,
        model=args.model,
        start=args.start,
        copies=args.copies,
        steps=args.steps,
        seed=args.seed,
        patience=0,
        cache=args.work / f"cache-{args.extractor}",
        judge="xfeat" if args.extractor.startswith("delg") else "",  # its locals are too coarse to verify with
    )
    with stages() as show:
        result = train_etr(settings, config, show)
    print(f"best step {result.report.best_step}: {result.after}")
    return 0 if result.is_better else 1


def training_sources(part: str, data: Path, work: Path, only: Sequence[str] | None = None) -> list[Path]:
    """The folders of pictures of a part of the split, or of `only` some; levels are made when they are not there."""
    every = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))[part]
    names = {kind: [name for name in found if not only or name in only] for kind, found in every.items()}
    levels = [work / "views" / level for level in names["levels"]]
    for folder in levels:
        if not (folder / "pairs.csv").is_file():
            export_places(folder.name, PLACES, 0, folder)
    return [data / "ie_tower" / floor for floor in names["floors"]] + levels


if __name__ == "__main__":
    sys.exit(main())
