"""How long every stage takes on real pictures, beside what this machine can do at best and beside other re-rankers.

    make benchmark DATA=DATA

DATA holds `sf_streets` (database, query, ground_truth.csv). Writes docs/speed.json, docs/speed.svg and the tables in
docs/speed.md, after a comparison with the committed docs/speed.json; a stage that became slower by more than
`--slower` (in relation to the matrix products of the machine that it ran on) is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etr_ros  # noqa: F401  # before torch is loaded: it says how threads wait

# isort: split
import torch

from benchmarks import speed_page
from benchmarks.machine import Machine
from benchmarks.speed_node import measure_node
from benchmarks.speed_stages import Bench, measure_stages
from etr_ros.errors import EtrError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def main() -> int:
    """Measure, compare, write; exit code 0 unless a stage became slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sf_streets")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "benchmark_work", help="folder for a map (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=21, help="repetitions of short stages (default: 21)")
    parser.add_argument("--seconds", type=float, default=6.0, help="for one stage, three rounds at least (default: 6)")
    parser.add_argument("--pictures", type=int, default=398, help="of the database (default: all 398)")
    parser.add_argument("--queries", type=int, default=60, help="that accuracy is measured on (default: all 60)")
    parser.add_argument("--images", type=int, default=60, help="that the node is shown (default: 60; 0 leaves it out)")
    parser.add_argument("--no-lightglue", action="store_true", help="leave out ALIKED + LightGlue (a minute)")
    parser.add_argument("--slower", type=float, default=1.3, help="ratio that is too much (default: 1.3)")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of speed.md (default: docs)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    machine = Machine.measure(args.threads)
    print(f"{machine}", flush=True)
    bench = Bench(args.rounds, args.seconds)
    rows, accuracy = measure_stages(bench, args)
    try:
        rows += measure_node(args.data, args.work, args.images) if args.images else []
    except EtrError as error:  # the other stages are not lost
        print(f"the node is left out: {error}", file=sys.stderr)
    before = committed()
    slower = speed_page.compare(machine, rows, before, args.slower) if before else []
    speed_page.write(args.output, machine, rows, accuracy)
    print(speed_page.table(machine, rows))
    for line in slower:
        print(f"slower than before: {line}")
    return 1 if slower else 0


def committed() -> dict[str, object]:
    """docs/speed.json of the last commit; empty when there is none."""
    shown = subprocess.run(
        ["git", "show", "HEAD:docs/speed.json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return json.loads(shown.stdout) if shown.returncode == 0 else {}


if __name__ == "__main__":
    sys.exit(main())
