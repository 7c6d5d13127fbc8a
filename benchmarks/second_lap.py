"""Loops between a clip and a made-up second lap of it: pictures only, no intrinsics and no odometry.

    python benchmarks/second_lap.py FOLDER [FOLDER ...] [--together] [--set loop.min_support=3]

A clip is a sequence of pictures (file names that differ in the trailing number only), or with --together everything in
the folders, clip after clip. It is lap one; the same pictures under another light, blur, crop, tilt and with occluders
(`etr_ros.train.augment`) are lap two. The loop detector sees both as one drive, one picture a second. A loop is right
when its pictures are at most 3 numbers apart in one sequence, or when the unchanged pictures show the same place by
SIFT (`split_sequences.same_place`): a recording also comes back to places of its own. Any other accepted loop is wrong
and is listed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
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


@dataclass(frozen=True)
class Lap:
    """What a clip and its second lap came to; `found` pictures of lap two have a right accepted loop."""

    name: str
    pictures: int
    accepted: int
    wrong: int
    found: int


def main() -> int:
    """Print the result; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of pictures with numbered names")
    parser.add_argument("--together", action="store_true", help="all clips of all folders as one drive")
    parser.add_argument("--features", type=Path, metavar="DIR", help="keep features there for the next run")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    args = parser.parse_args()
    pictures = [picture for folder in args.folders for picture in pictures_of(folder)]
    clips = {"together": pictures}
    if not args.together:
        clips = {name: list(clip) for name, clip in groupby(pictures, lambda picture: picture.sequence)}
    config = config_from(args)
    torch.set_num_threads(config.compute.threads or torch.get_num_threads())
    networks = Networks.load(config)
    if args.features is not None:
        networks = remembering(networks, args.features)
    bar = tqdm(total=2 * len(pictures), desc="drive", unit="image")
    rows = [
        judged(name, clip, drive(LoopDetector(networks, config), clip, args.seed, bar), bar)
        for name, clip in clips.items()
    ]
    bar.close()
    print(table(rows), end="")
    return 0


def drive(detector: LoopDetector, clip: list[Picture], seed: int, bar: tqdm) -> list[LoopClosure]:
    """All loops of both laps; a picture without features has none."""
    loops: list[LoopClosure] = []
    for frame in laps(clip, seed):
        bar.update()
        try:
            answer = detector.answer(frame)
        except ImageError:
            continue
        loops += answer.loops if answer else ()
    return loops + list(detector.finish())


def laps(pictures: list[Picture], seed: int) -> Iterator[Frame]:
    """Both laps; the name of a frame is its position in lap one, and its lap."""
    for lap in (1, 2):
        for position, picture in enumerate(pictures):
            image = cv2.imread(str(picture.file)).astype(np.uint8, copy=False)
            if lap == 2:
                image = augment(image, np.random.default_rng((seed, position)))
            stamp_ns = ((lap - 1) * len(pictures) + position) * 10**9
            yield Frame(image, stamp_ns, f"{position}.{lap}")


def judged(name: str, clip: list[Picture], loops: Sequence[LoopClosure], bar: tqdm) -> Lap:
    """Count, and list the wrong loops."""
    accepted = [loop for loop in loops if loop.accepted]
    right = [loop for loop in accepted if is_right(clip, loop)]
    found = {loop.query.name for loop in right if loop.query.name.endswith(".2")}
    for loop in accepted:
        if loop not in right:
            query, match = (picture_of(clip, place) for place in (loop.query, loop.match))
            inliers = f"{loop.geometry.inliers} inliers, support {loop.support}"
            bar.write(f"wrong: {query.file.name} (lap {loop.query.name[-1]}) with {match.file.name}, {inliers}")
    return Lap(name, len(clip), len(accepted), len(accepted) - len(right), len(found))


def table(laps: Sequence[Lap]) -> str:
    """Markdown, a row per clip and one for all."""
    if len(laps) > 1:
        counts = (sum(getattr(lap, field) for lap in laps) for field in ("pictures", "accepted", "wrong", "found"))
        laps = [*laps, Lap("all", *counts)]
    columns = "clip", "pictures", "accepted", "wrong", "precision", "recall of lap two"
    rows = [
        (
            lap.name,
            str(lap.pictures),
            str(lap.accepted),
            str(lap.wrong),
            f"{1 - lap.wrong / lap.accepted:.3f}" if lap.accepted else "-",
            f"{lap.found / lap.pictures:.3f}",
        )
        for lap in laps
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ("---",) * len(columns), *rows))


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
