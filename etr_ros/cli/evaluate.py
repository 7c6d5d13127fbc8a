"""`etr evaluate`: measure recognition on folders of pictures, a map, or a sequence."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etr_ros.cli.options import SHORT_FORMS, add_config_options, config_from
from etr_ros.cli.progress import track
from etr_ros.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure recognition on folders of pictures, a map, or a sequence",
        description="Seek each query picture in a database, or each frame of a sequence among the frames before it.\n"
        "Writes predictions.csv, metrics.json and, for a sequence, loops.csv (frame_a: the query, frame_b: the earlier "
        "frame).\nWith one kind of ground truth, prints Recall@1/5/10 before and after re-ranking.",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--database", type=Path, metavar="DIR", help="folder of pictures, or a map")
    what.add_argument("--query", type=Path, metavar="DIR", help="folder of pictures sought in the database")
    what.add_argument("--sequence", type=Path, metavar="DIR", help="folder of pictures in the order of the drive")
    what.add_argument("--exclude-frames", type=int, metavar="N", help="frames just before the query that do not count")
    what.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    truth = parser.add_argument_group("ground truth (one of)")
    truth.add_argument("--ground-truth", type=Path, metavar="CSV", help="positive pairs, header query,database")
    truth.add_argument("--radius-m", type=float, metavar="R", help="places at most R metres away are correct")
    truth.add_argument("--frame-tolerance", type=int, metavar="N", help="frame numbers at most N apart are correct")
    poses = parser.add_argument_group("poses for --radius-m (TUM or CSV, see build-map)")
    poses.add_argument("--poses-database", type=Path, metavar="FILE", help="poses of the database folder")
    poses.add_argument("--poses-query", type=Path, metavar="FILE", help="poses of the query folder or of the sequence")
    add_config_options(parser, tuple(SHORT_FORMS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table. Raises EtrError."""
    _check(args)
    config = config_from(args)

    from etr_ros.evaluate import Request, evaluate

    request = Request(
        query=args.query if args.sequence is None else args.sequence,
        output=args.output,
        database=args.database,
        exclude_frames=args.exclude_frames or 0,
        ground_truth=args.ground_truth,
        poses_database=args.poses_database,
        poses_query=args.poses_query,
        radius_m=args.radius_m,
        frame_tolerance=args.frame_tolerance,
    )
    report = evaluate(request, config, track)
    for line in (*report.notes, *summary(report.metrics), f"results: {args.output}"):
        print(line)
    return 0


def summary(metrics: dict[str, Any]) -> Iterator[str]:
    """What metrics.json says, for people."""
    yield f"{metrics['queries']} queries, {metrics['places']} places"
    if "ground_truth" in metrics:
        unknown = metrics["queries_of_unknown_truth"]
        yield (
            f"correct are {metrics['ground_truth']}: {metrics['queries_with_positive']} queries have a correct place, "
            f"{metrics['queries_without_positive']} have none" + (f", {unknown} are not known" if unknown else "")
        )
        columns = [name for name in metrics["retrieval"] if name.startswith("recall_at_") and name[-1].isdigit()]
        yield " " * 10 + "".join(f"{'Recall@' + name.rpartition('_')[2]:>12}" for name in columns)
        for order in ("retrieval", "reranked"):
            if order in metrics:
                yield f"{order:10}" + "".join(f"{_percent(metrics[order][name]):>12}" for name in columns)
    if "accepted_pairs" in metrics:
        wrong = f", {metrics['accepted_pairs_wrong']} of them wrong" if "accepted_pairs_wrong" in metrics else ""
        yield f"accepted pairs: {metrics['accepted_pairs']}{wrong}"
    times = [f"{stage} {values['p50']:.1f} ms" for stage, values in metrics["timing"]["query_ms"].items()]
    if times:
        yield f"median time of a query: {', '.join(times)}"


def _check(args: argparse.Namespace) -> None:
    if args.sequence is not None:
        if args.database is not None or args.query is not None:
            raise ConfigError("give either --database and --query, or --sequence")
        if args.exclude_frames is None:
            raise ConfigError("--sequence needs --exclude-frames: how many frames before the query do not count")
    elif args.database is None or args.query is None:
        raise ConfigError("give --database and --query, or --sequence and --exclude-frames")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
