"""Loops between a drive and a made-up second lap of it: pictures only, no intrinsics and no odometry.

    python benchmarks/second_lap.py FOLDER [FOLDER ...] [--set loop.min_support=3]

The pictures of all folders, in the order of their names, are lap one; the same pictures under another light, blur,
crop, tilt and with occluders (`etr_ros.train.augment`) are lap two. The loop detector sees both as one drive, one a
second. A loop is right when its pictures are at most 3 numbers apart in one sequence (file names that differ in the
trailing number only), or when the unchanged pictures show the same place by SIFT (`split_sequences.same_place`): a
recording also comes back to places of its own. Any other accepted loop is wrong and is listed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.split_sequences import Picture, pictures_of, same_place
from etr_ros.cli.options import add_config_options, config_from
from etr_ros.errors import ImageError
from etr_ros.journal import remembering
from etr_ros.loops import LoopDetector
from etr_ros.pipeline import Networks
from etr_ros.train.augment import augment
from etr_ros.types import Frame, LoopClosure, Place

NEAR_NUMBERS = 3


def main() -> int:
    """Print the result; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of pictures with numbered names")
    parser.add_argument("--features", type=Path, metavar="DIR", help="keep features there for the next run")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    args = parser.parse_args()
    pictures = [picture for folder in args.folders for picture in pictures_of(folder)]
    config = config_from(args)
    networks = Networks.load(config)
    if args.features is not None:
        networks = remembering(networks, args.features)
    detector = LoopDetector(networks, config)
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
    right = [loop for loop in accepted if is_right(pictures, loop)]
    found = {loop.query.name for loop in right if loop.query.name.endswith(".2")}
    for loop in accepted:
        if loop not in right:
            query, match = (picture_of(pictures, place) for place in (loop.query, loop.match))
            inliers = f"{loop.geometry.inliers} inliers, support {loop.support}"
            print(f"wrong: {query.file.name} (lap {loop.query.name[-1]}) with {match.file.name}, {inliers}")
    precision = len(right) / len(accepted) if accepted else float("nan")
    print(
        f"{len(pictures)} pictures, {unused} unused; accepted {len(accepted)}, wrong {len(accepted) - len(right)}, "
        f"precision {precision:.3f}; recall {len(found) / len(pictures):.3f} of the pictures of lap two"
    )


def is_right(pictures: list[Picture], loop: LoopClosure) -> bool:
    """Whether the two pictures of a loop show the same place."""
    query, match = (picture_of(pictures, place) for place in (loop.query, loop.match))
    is_near = query.sequence == match.sequence and abs(query.number - match.number) <= NEAR_NUMBERS
    return is_near or same_place(query, match) or same_place(match, query)


def picture_of(pictures: list[Picture], place: Place) -> Picture:
    """The unchanged picture of a place."""
    return pictures[int(place.name.split(".")[0])]


if __name__ == "__main__":
    sys.exit(main())
