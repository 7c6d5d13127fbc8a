"""`etr calibrate`: fit the match probability to recordings whose truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etr_ros.cli.options import SHORT_FORMS, add_config_options, config_from
from etr_ros.cli.progress import track
from etr_ros.cli.replay import add_replay_options, bag_writer, protocol_from, request_from, require_one_truth
from etr_ros.errors import ConfigError

if TYPE_CHECKING:
    from etr_ros.calibration import Calibration, Curve
    from etr_ros.samples import Samples

BAR = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit the match probability to your own recordings",
        description="From results of etr replay whose truth is known, or bags (which are replayed first, into "
        "FILE.results), fit how probable a match is by its scores, the best other place, its geometry and the pictures "
        "before it. The recordings must show both: places seen again, and places never seen.\nThe file is what "
        "decision.calibration takes. decision.max_false_loops_per_km then sets the threshold by what was measured.",
    )
    parser.add_argument("inputs", type=Path, nargs="+", metavar="BAG|RESULT", help="bag, or result of etr replay")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="calibration file to write")
    parser.add_argument(
        "--method",
        choices=("logistic", "isotonic"),
        help="how evidence becomes a probability (default: the better of both by cross-validation)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the reliability before and after")
    add_replay_options(parser)
    add_config_options(parser, tuple(SHORT_FORMS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, and say how good it is. Raises EtrError."""
    require_one_truth(args)
    if args.output.is_dir():
        raise ConfigError(f"{args.output} is a folder: --output is the calibration file to write")

    from etr_ros import calibration
    from etr_ros.calibration_fit import fit
    from etr_ros.reliability_picture import write_picture
    from etr_ros.samples import read_samples

    is_judged_anew = args.ground_truth is not None or args.frame_tolerance is not None
    given = protocol_from(args) if is_judged_anew else None
    samples = [read_samples(_result(path, args), given) for path in args.inputs]
    found = fit(samples, args.method or "")
    calibration.write(args.output, found)
    for line in summary(found, samples):
        print(line)
    if args.picture is not None:
        write_picture(args.picture, found)
        print(args.picture)
    print(f"calibration: {args.output} (use it with --set decision.calibration={args.output})")
    return 0


def _result(path: Path, args: argparse.Namespace) -> Path:
    """The result itself, or that of replaying the bag; one that is there already is not made again."""
    from etr_ros.bag_replay import replay_bag
    from etr_ros.result_files import MANIFEST

    if (path / MANIFEST).is_file():
        return path
    output: Path = args.output.with_name(args.output.name + ".results") / path.resolve().stem
    replay_bag(request_from(args, path, output), config_from(args), track, bag_writer()[0])
    return output


def summary(found: Calibration, samples: list[Samples]) -> Iterator[str]:
    """What stands behind a calibration, for people."""
    facts = found.facts
    yield f"fitted to {found.reranker}, {found.extractor}: {', '.join(facts['sources'])}"
    yield (
        f"{facts['pictures']} pictures, {facts['positives']} right and {facts['negatives']} wrong candidates; "
        f"{facts['folds']} parts, each judged by a fit to the others"
    )
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in facts["log_loss"].items())
    yield f"method: {found.method} (log loss: {losses})"
    yield "evidence read: " + ", ".join(found.models[-1].features)
    for name in ("before", "after"):
        error = facts[name]["calibration_error"]
        yield f"{name}: expected calibration error " + ("not known" if error is None else f"{error:.3f}")
        yield from _bars(facts[name]["bins"])
    for kind, curve in found.curves.items():
        yield from _rates(kind, curve)
    if not found.curves:
        yield "no way driven is known: decision.max_false_loops_per_km cannot be used with this calibration"


def _bars(bins: list[list[Any]]) -> Iterator[str]:
    for probability, share, count in bins:
        bar = "#" * round(BAR * share)
        yield f"  said {100 * probability:5.1f} %, right {100 * share:5.1f} % |{bar:{BAR}}| of {count}"


def _rates(kind: str, curve: Curve) -> Iterator[str]:
    yield f"false {kind} over {curve.km:.2f} km, by the least probability accepted:"
    for allowed in (0.0, 1.0, 10.0):
        least = curve.threshold(allowed)
        if least is None:
            yield f"  at most {allowed:g} per km: not reached"
            continue
        row = int((curve.thresholds < least).sum())
        counts = f"{curve.answers[row]} accepted, {curve.false[row]} false"
        yield f"  at most {allowed:g} per km: from {least:.3f} on, {counts}"
    yield f"  (rates below {3 / curve.km:.2g} per km cannot be told from none on so short a way)"
