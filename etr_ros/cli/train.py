"""`etr train`: train the re-ranker on your own places."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    from etr_ros.cli.options import add_config_options

    parser = subparsers.add_parser(
        "train",
        help="train the re-ranker on your own places",
        description="Train ETR on pictures of several environments. Sources are folders of pictures (with poses.csv "
        "and pairs.csv where known), bags or maps; each must show another environment, so that pictures of two "
        "sources never show the same place. The features are kept below OUTPUT/cache; an interrupted run goes on "
        "where it stopped.\nThe exit code is 0 when the new weights are better on places they never saw, else 1.",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="SOURCE", help="environments to train on"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="environments to choose the weights on (default: a fifth of the sequences of --data is held out)",
    )
    parser.add_argument(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="environments to judge the result on, which neither of the others shows (default: as --validation)",
    )
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="of sources that are bags")
    parser.add_argument("--pose-topic", metavar="TOPIC", help="of sources that are bags")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where weights, metrics and cache go")
    parser.add_argument(
        "--model",
        choices=("etr-s", "etr-s-small", "etr-d", "paper"),
        default="etr-s",
        help="size and tokens; etr-d reads the global descriptor of DELG too (default: etr-s)",
    )
    parser.add_argument(
        "--start",
        metavar="WEIGHTS",
        help="start from these weights: a registered name or a file; those of another extractor will do",
    )
    parser.add_argument("--copies", type=int, default=1, help="changed copies of each picture (default: 1)")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default: 4000)")
    parser.add_argument(
        "--patience",
        type=int,
        default=8,
        metavar="N",
        help="end early after N validations, 250 steps each, without a better one; 0: never (default: 8)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and say what was reached. Raises EtrError."""
    from etr_ros.cli.options import config_from
    from etr_ros.cli.progress import stages
    from etr_ros.train.run import Settings, train_etr

    with stages() as show:
        settings = Settings(
            data=args.data,
            validation=args.validation,
            test=args.test,
            output=args.output,
            model=args.model,
            start=args.start,
            copies=args.copies,
            steps=args.steps,
            seed=args.seed,
            patience=args.patience,
            topics=(args.image_topic, args.pose_topic),
        )
        result = train_etr(settings, config_from(args), show)
    print(f"best step {result.report.best_step}; weights: {result.weights}")
    print(f"{result.tested_on} places, {result.after.queries} queries:")
    print(f"  retrieval      Recall@1 {result.after.recall_at_1_retrieval:.3f}")
    for name, measured in (("start weights", result.before), ("new weights", result.after)):
        if measured is not None:
            print(
                f"  {name:14} Recall@1 {measured.recall_at_1_etr:.3f}, average precision "
                f"{measured.average_precision:.3f}, at 100 % precision {measured.recall_at_full_precision:.3f}"
            )
    if not result.is_better:
        print("These weights are not better than what was there: do not use them.")
    return 0 if result.is_better else 1
