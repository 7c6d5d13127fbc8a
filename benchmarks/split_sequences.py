"""Make a database and queries out of picture sequences that pass each place once, for `etr evaluate`.

    python benchmarks/split_sequences.py FLOOR [FLOOR ...] --output DIR

Of every sequence (file names that differ in the trailing number only) each fourth picture goes into the database and
each fourth, two pictures later, is a query; `query_changed` holds the queries under another light, blur, crop and with
occluders. A database picture of the same sequence at most 2 numbers away shows the same place (`ground_truth.csv`).
Floors are mixed, so that look-alike corridors of other floors are there to be confused.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.train.augment import augment

STRIDE, SHIFT, TOLERANCE = 4, 2, 2


def main() -> int:
    """Write the folders; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("floors", type=Path, nargs="+", help="folders of pictures with numbered names")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    args = parser.parse_args()
    folders = {name: args.output / name for name in ("database", "query", "query_changed")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)

    numbered: dict[str, dict[int, Path]] = {}
    for file in sorted(file for floor in args.floors for file in floor.glob("*.jpg")):
        match = re.search(r"(\d+)$", file.stem)
        if match:
            numbered.setdefault(file.stem[: match.start()], {})[int(match.group(1))] = file
    truth = []
    for sequence in tqdm(numbered.values(), unit="sequence"):
        for number, file in sequence.items():
            if number % STRIDE == 0:
                shutil.copy(file, folders["database"] / file.name)
            elif number % STRIDE == SHIFT:
                shutil.copy(file, folders["query"] / file.name)
                seed = int.from_bytes(hashlib.sha256(f"{args.seed}/{file.name}".encode()).digest()[:8], "little")
                changed = augment(cv2.imread(str(file)).astype(np.uint8), np.random.default_rng(seed))
                cv2.imwrite(str(folders["query_changed"] / file.name), changed)
                near = range(number - TOLERANCE, number + TOLERANCE + 1)
                truth += [(file.name, sequence[n].name) for n in near if n in sequence and n % STRIDE == 0]
    with (args.output / "ground_truth.csv").open("w", newline="") as output:
        csv.writer(output).writerows([("query", "database"), *truth])
    print(f"{args.output}: {len({query for query, _ in truth})} queries have a place in the database")
    return 0


if __name__ == "__main__":
    sys.exit(main())
