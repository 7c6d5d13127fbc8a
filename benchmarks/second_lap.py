"""Loops between a drive and a made-up second lap of it: pictures only, no intrinsics and no odometry.

    python benchmarks/second_lap.py FOLDER [FOLDER ...] [--set loop.min_support=3]

The pictures of all folders, in the order of their names, are lap one; the same pictures under another light, blur,
crop, tilt and with occluders (`etr_ros.train.augment`) are lap two. The loop detector sees both as one drive, one a
second. A loop from lap two is right when it leads to the same sequence (file names that differ in the trailing number
only), at most 3 numbers away; any other accepted loop, also one within lap one, is counted as wrong and is listed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros.cli.options import add_config_options, config_from
from etr_ros.errors import ImageError
from etr_ros.loops import LoopDetector
from etr_ros.train.augment import augment
from etr_ros.types import Frame, LoopClosure

NEAR_NUMBERS = 3


@dataclass(frozen=True)
class Picture:
    """A numbered picture of a sequence."""

    file: Path
    sequence: str
    number: int


def main() -> int:
    """Print the result; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of pictures with numbered names")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    args = parser.parse_args()
    pictures = [picture for folder in args.folders for picture in read(folder)]
    detector = LoopDetector.open(None, config_from(args))
    loops: list[LoopClosure] = []
    unused = 0
    for frame in tqdm(laps(pictures, args.seed), "drive", 2 * len(pictures), unit="image"):
        try:
            answer = detector.answer(frame)
        except ImageError:
            unused += 1
            continue
        loops += answer.loops if answer else ()
    loops += detector.finish()
    report(pictures, loops, unused)
    return 0


def read(folder: Path) -> Iterator[Picture]:
    """The pictures of a folder in the order of their names."""
    for file in sorted(folder.glob("*.jpg")):
        match = re.search(r"(\d+)$", file.stem)
        if match:
            yield Picture(file, f"{folder.name}/{file.stem[: match.start()]}", int(match.group(1)))


def laps(pictures: list[Picture], seed: int) -> Iterator[Frame]:
    """Both laps; the name of a frame is its position in lap one, and its lap."""
    for lap in (1, 2):
        for position, picture in enumerate(pictures):
            image = cv2.imread(str(picture.file)).astype(np.uint8, copy=False)
            if lap == 2:
                image = augment(image, np.random.default_rng((seed, position)))
            stamp_ns = ((lap - 1) * len(pictures) + position) * 10**9
            yield Frame(image, stamp_ns, f"{position}.{lap}")


def report(pictures: list[Picture], loops: list[LoopClosure], unused: int) -> None:
    """Print precision and recall, and the wrong loops."""
    accepted = [loop for loop in loops if loop.accepted]
    right = {loop.query.name for loop in accepted if is_right(pictures, loop)}
    wrong = [loop for loop in accepted if not is_right(pictures, loop)]
    for loop in wrong:
        query, match = (pictures[int(place.name.split(".")[0])] for place in (loop.query, loop.match))
        print(f"wrong: {query.file.name} (lap {loop.query.name[-1]}) with {match.file.name}")
    precision = (len(accepted) - len(wrong)) / len(accepted) if accepted else float("nan")
    print(
        f"{len(pictures)} pictures, {unused} unused; accepted {len(accepted)}, wrong {len(wrong)}, "
        f"precision {precision:.3f}; recall {len(right) / len(pictures):.3f} of the pictures of lap two"
    )


def is_right(pictures: list[Picture], loop: LoopClosure) -> bool:
    """Whether a loop leads from lap two to about the same picture of lap one."""
    (at, lap), (match_at, match_lap) = (map(int, place.name.split(".")) for place in (loop.query, loop.match))
    query, match = pictures[at], pictures[match_at]
    near = query.sequence == match.sequence and abs(query.number - match.number) <= NEAR_NUMBERS
    return lap == 2 and match_lap == 1 and near


if __name__ == "__main__":
    sys.exit(main())
