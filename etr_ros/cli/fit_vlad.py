"""`etr fit-vlad`: fit the global descriptor to your own pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from etr_ros.cli.options import add_config_options, config_from


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "fit-vlad",
        help="fit the global descriptor to your own pictures",
        description="Fit the VLAD codebook and projection over the local features of extractor.name. Needs no labels; "
        "the pictures should look like those the robot will see. Maps made with another codebook must be built again.",
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders of pictures")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take each Nth picture of a folder (default: 1)"
    )
    parser.add_argument("--clusters", type=int, default=128, help="words of the codebook (default: 128)")
    parser.add_argument("--dim", type=int, default=512, help="size of the descriptor (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of sampling and clustering (default: 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="weight file (.safetensors)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, write, and say how to use it. Raises EtrError."""
    config = config_from(args)

    from itertools import chain, islice

    from tqdm import tqdm

    from etr_ros.datasets import image_folder
    from etr_ros.train.codebook import CodebookConfig, fit_vlad, save_vlad

    sources = [image_folder(path) for path in args.images]
    total = sum(-(-(source.expected or 0) // args.every) for source in sources)
    frames = chain.from_iterable(islice(source, 0, None, args.every) for source in sources)
    codebook = CodebookConfig(clusters=args.clusters, dim=args.dim, seed=args.seed)
    head = fit_vlad(tqdm(frames, "pictures", total, unit="picture"), config, codebook)
    save_vlad(head, args.output)
    print(f"{args.output}: use it with --set extractor.global_weights={args.output}")
    return 0
