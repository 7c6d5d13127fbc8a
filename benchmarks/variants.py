"""Train variants of ETR alike and compare them on the validation places.

    python benchmarks/variants.py --data DATA --work DIR --steps 600 --output docs/variants.md

All see the same batches (seed, steps); none is trained to the end, so read the table as which of them learns, and what
it costs. `rrt` is the architecture of Reranking Transformers under the same budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost import macs_per_pair
from benchmarks.rrt import RRT
from benchmarks.train_weights import training_sources
from etr_ros.config import Config
from etr_ros.etr import ETR, EtrConfig
from etr_ros.train import loop, pairs
from etr_ros.train.batches import in_single_precision
from etr_ros.train.prepare import open_sources
from etr_ros.train.settings import TrainConfig
from etr_ros.train.validation import validation_cases

SMALLER = {"max_locals": 256, "max_tokens": 48, "blocks": 1, "width": 32, "ffn_width": 64}
RAW = {"tokens": "descriptor", "pool": "average", "max_locals": 128, "max_tokens": 128}
VARIANTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {  # changes of the model and of the training
    "etr-s": ({}, {}),
    "etr-s-small": (SMALLER, {}),
    "not told which matches move alike": ({"consistent": False}, {}),
    "no summary of all matches": ({"summary": False}, {}),
    "average pooling, no gates": ({"pool": "average"}, {}),
    "gates not supervised": ({}, {"gate_weight": 0.0}),
    "pairs not varied": ({}, {"varied_share": 0.0}),
    "linear attention": ({"attention": "linear"}, {}),
    "one block": ({"blocks": 1}, {}),
    "128 tokens, 512 locals": ({"max_tokens": 128, "max_locals": 512}, {}),
    "raw descriptors (the paper's tokens)": (RAW, {}),
    "rrt": (RAW | {"blocks": 4}, {}),
}


def main() -> int:
    """Train and measure each variant, write the page; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower")
    parser.add_argument("--work", type=Path, required=True, help="folder for levels, features and checkpoints")
    parser.add_argument("--steps", type=int, default=600, help="of each variant (default: 600)")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--output", type=Path, required=True, help="page to write (Markdown)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = Config().replace(**{"compute.threads": 1})
    sets = []
    for part in ("train", "validation"):
        sources = open_sources(
            training_sources(part, args.data, args.work), args.work / "cache-xfeat", config, 1, 0, lambda *_: None
        )
        sets.append(pairs.collect(sources, 512, lambda *_: None, drop_aliased=part == "train"))
    folder = args.work / f"variants-{args.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in args.only:
        lines.append(measure(name, sets[0], sets[1], args.steps, folder))
        print(lines[-1], flush=True)
    args.output.write_text(page(lines, args), encoding="utf-8")
    return 0


def measure(name: str, train_set: pairs.PairSet, validation: pairs.PairSet, steps: int, folder: Path) -> str:
    """Train one variant and give its row of the table."""
    of_model, of_training = VARIANTS[name]
    shape = dataclasses.replace(EtrConfig(), **of_model)
    build: Callable[[EtrConfig], torch.nn.Module] = ETR
    if name == "rrt":
        build, shape = RRT, dataclasses.replace(shape, global_dim=train_set.globals.shape[1])
    schedule = TrainConfig(steps=steps, validate_every=steps // 3, patience=99)
    settings = dataclasses.replace(schedule, **of_training)
    seen = [dataclasses.replace(each, locals=cut(each, shape.max_locals)) for each in (train_set, validation)]
    checkpoint = folder / f"{name.replace(' ', '-')}.pt"
    model, report = loop.train(shape, *seen, settings, checkpoint, lambda *_: None, build=build)  # type: ignore[arg-type]
    best, count = report.best, sum(p.numel() for p in model.parameters())
    macs = "-" if name == "rrt" else f"{macs_per_pair(shape) / 1e6:.1f} M"
    cost = f"{count} | {macs} | {milliseconds(model, seen[1], settings):.0f}"
    detector = f"{best.average_precision:.3f} | {100 * best.recall_at_full_precision:.1f} %"
    return f"| {name} | {cost} | {100 * best.recall_at_1_etr:.1f} % | {detector} |"


def cut(pair_set: pairs.PairSet, count: int):
    """The strongest `count` locals of each picture."""
    x = pair_set.locals
    rows = slice(0, count)
    return dataclasses.replace(
        x, descriptors=x.descriptors[:, rows], xy=x.xy[:, rows], scales=x.scales[:, rows], mask=x.mask[:, rows]
    )


def milliseconds(model: torch.nn.Module, pair_set: pairs.PairSet, settings: TrainConfig) -> float:
    """Processor time of a hundred pairs, in batches of 20."""
    model.eval()
    case = validation_cases(pair_set, settings)[0]
    query = in_single_precision(pair_set.locals.select(slice(case.query, case.query + 1)))
    candidates = in_single_precision(pair_set.locals.select(torch.from_numpy(case.candidates)))
    times = []
    for _ in range(9):
        start = time.process_time()
        with torch.inference_mode():
            model(query.expand(len(candidates)), candidates)
        times.append(time.process_time() - start)
    return 1e5 * float(np.median(times)) / len(candidates)


def page(lines: list[str], args: argparse.Namespace) -> str:
    """The table as Markdown."""
    head = [
        "# Variants of ETR",
        "",
        f"Measured on {dt.date.today().isoformat()}, validation places, one core, seed 0, {args.steps} steps each, by",
        "",
        f"    python benchmarks/variants.py {shlex.join(sys.argv[1:])}",
        "",
        "| variant | parameters | MACs a pair | ms a top 100 | Recall@1 | average precision | at 100 % precision |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
