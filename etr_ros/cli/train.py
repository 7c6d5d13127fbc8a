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
        "and pairs.csv where known) or maps; each must show another environment, so that pictures of two sources "
        "never show the same place. The features are kept below OUTPUT/cache; an interrupted run goes on where it "
        "stopped.",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="SOURCE", help="environments to train on"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="environments to choose the weights on",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where weights, metrics and cache go")
    parser.add_argument(
        "--model", choices=("etr-s", "etr-s-small", "paper"), default="etr-s", help="size and tokens (default: etr-s)"
    )
    parser.add_argument("--start", metavar="WEIGHTS", help="start from these weights: a registered name or a file")
    parser.add_argument("--copies", type=int, default=1, help="changed copies of each picture (default: 1)")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default: 4000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and say what was reached. Raises EtrError."""
    from tqdm import tqdm

    from etr_ros.cli.options import config_from
    from etr_ros.train.run import Settings, train_etr

    with tqdm(unit="step", desc="train") as bar:

        def show(stage: str, done: int, total: int, note: str = "") -> None:
            if bar.desc != f"{stage}: ":
                bar.reset(total)
                bar.set_description(stage)
            bar.total = total
            bar.update(done - bar.n)
            if note:
                bar.set_postfix_str(note)

        settings = Settings(
            data=args.data,
            validation=args.validation,
            output=args.output,
            model=args.model,
            start=args.start,
            copies=args.copies,
            steps=args.steps,
            seed=args.seed,
        )
        result = train_etr(settings, config_from(args), show)
    best = result.report.best
    print(f"best step {result.report.best_step}, {best.queries} validation queries")
    print(f"Recall@1 before re-ranking {best.recall_at_1_retrieval:.3f}, after {best.recall_at_1_etr:.3f}")
    if best.recall_at_1_etr <= best.recall_at_1_retrieval:
        print("This is not better than the retrieval order: do not use these weights as they are.")
    print(f"weights: {result.weights}")
    return 0
