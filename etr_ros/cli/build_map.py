"""`etr build-map`: make a map of a folder of pictures or of a bag."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from etr_ros.cli.bag_options import OF_BAG, add_bag_options, sensors_from
from etr_ros.cli.options import add_config_options, config_from
from etr_ros.cli.progress import size_text, track
from etr_ros.errors import ConfigError

if TYPE_CHECKING:
    from etr_ros.datasets import FrameSource
    from etr_ros.types import Frame


MAX_WORKERS = 256


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "build-map",
        help="make a map of a folder of pictures or of a bag",
        description="Make a map. Which pictures become places is set by keyframe.distance_m, keyframe.angle_deg and "
        "keyframe.period_s; without poses and with period 0, all do.\nA map that is at OUTPUT already is replaced when "
        "the new one is complete; with --add it is kept, and grows.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="folder of pictures (jpg, png, bmp, webp, tif)")
    source.add_argument("--bag", type=Path, metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument(
        "--poses",
        type=Path,
        metavar="FILE",
        help="poses of --images: TUM (stamp x y z qx qy qz qw), or CSV with the header "
        "file,x_m,y_m[,z_m][,qx,qy,qz,qw or ,yaw_rad][,stamp_ns]",
    )
    add_bag_options(parser, "--bag")
    parser.add_argument("--session", default="", metavar="NAME", help="name of the drive (default: that of the source)")
    parser.add_argument(
        "--map-frame",
        default="",
        metavar="NAME",
        help="what the map calls the frame of its poses; a map by odometry needs a frame of its own, as the odometry "
        "of the next run starts elsewhere (default: as the poses say)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="MAP", help="folder of the map")
    parser.add_argument(
        "--add",
        action="store_true",
        help="add the places to the map at OUTPUT, as if it had been built of all at once; needs the map's extractor.*",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="compute the features in N processes with one thread each (or compute.threads); the map is the same for "
        "any N (default: 0, in this process with all cores)",
    )
    parser.add_argument(
        "--dask",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="compute the features on the workers of the Dask scheduler at ADDRESS (tcp://host:8786), which need this "
        "package and the same weights; without ADDRESS on a Dask cluster of --workers processes on this machine",
    )
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the map and say what is in it. Raises EtrError."""
    config = config_from(args)
    if not 0 <= args.workers <= MAX_WORKERS:
        raise ConfigError(f"--workers must be between 0 and {MAX_WORKERS}, not {args.workers}")
    if args.map_frame and not (args.poses or args.pose_topic):
        raise ConfigError("--map-frame names the frame of poses: give --pose-topic or --poses, too")
    source = _source(args)
    source.enough_px = config.extractor.max_side_px

    from etr_ros.build import build_map
    from etr_ros.keyframes import select

    start = time.monotonic()
    frames = select(_in_frame(track(source, "map"), args.map_frame), config.keyframe)
    info = build_map(
        frames, args.output, config, skipped=source.reject, workers=args.workers, dask=args.dask, add=args.add
    )
    for note in source.notes():
        print(note)
    poses = f"with poses in frame {info.frame_id}" if info.has_poses else "without poses"
    places = f"{info.places} places" + (" now, with those" if args.add else "")
    print(
        f"{args.output}: {places} of {source.read} pictures, {poses}, {size_text(info.size_bytes)}, "
        f"built in {time.monotonic() - start:.1f} s"
    )
    return 0


def _in_frame(frames: Iterable[Frame], name: str) -> Iterator[Frame]:
    """The frames with the frame of their poses called `name`, where one is given."""
    for frame in frames:
        pose = dataclasses.replace(frame.pose, frame_id=name) if name and frame.pose else frame.pose
        yield dataclasses.replace(frame, pose=pose)


def _source(args: argparse.Namespace) -> FrameSource:
    if args.images is not None:
        wrong = ["--" + name.replace("_", "-") for name in OF_BAG if getattr(args, name)]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: for --bag, not for --images")
        from etr_ros.datasets import ImageFolder

        return ImageFolder(args.images, args.poses, args.session)
    if args.poses:
        raise ConfigError("--poses goes with --images; a bag has a --pose-topic")
    from etr_ros.bags import BagImages

    return BagImages(args.bag, args.image_topic or "", args.pose_topic, args.session, sensors_from(args))
