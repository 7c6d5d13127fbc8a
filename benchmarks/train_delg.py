"""Train the heads of DELG over EfficientNet-Lite0, on the floors and levels of `split.yaml`.

    python benchmarks/train_delg.py --data DATA --work DIR --output delg-lite-heads.safetensors

The trunk stays as it was published: what it makes of the pictures, and the XFeat features that tell which of them show
the same place, are computed once and kept below the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etr_ros  # noqa: F401  # before torch is loaded: it says how threads wait

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.train_weights import training_sources
from etr_ros import weights
from etr_ros.cli.progress import stages
from etr_ros.config import Config
from etr_ros.features.base import freeze
from etr_ros.features.delg import DelgLite
from etr_ros.features.extractor import TRUNK, trunk_tensors
from etr_ros.train.delg_heads import HeadsConfig, places_of, recall_at_1, train_global, train_locals
from etr_ros.train.pairs import COPY_MARK, PairSet, collect
from etr_ros.train.prepare import open_sources
from etr_ros.train.trunk_outputs import Level, outputs_of_folder

JUDGE = "xfeat"
COPIES = 1


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Training or validation pictures: pairs, and for each image scale the trunk's outputs and their originals."""

    pairs: PairSet
    levels: list[list[Level]]  # one list of levels for each source
    original: list[list[Tensor]]  # (M,) of each level

    def flat(self) -> tuple[Tensor, list[Tensor], Tensor]:
        """Pooled maps (R, C), local maps and originals (R,) of all pictures at all scales."""
        each = list(zip(chain(*self.levels), chain(*self.original), strict=True))
        maps = [one for level, _ in each for one in level.maps]
        return torch.cat([level.pooled for level, _ in each]), maps, torch.cat([of for _, of in each])


def main() -> int:
    """Train and write the heads and, beside them, what was reached as JSON; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ie_tower")
    parser.add_argument("--work", type=Path, required=True, help="folder for levels and features")
    parser.add_argument("--output", type=Path, required=True, help="weight file to write (.safetensors)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="floors and levels of the split (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = DelgLite()
    trunk = weights.resolve(network.trunk)
    network.load_state_dict(network.state_dict() | trunk_tensors(network, trunk))
    freeze(network)
    with stages() as show:
        parts = {part: load(part, network, args, show) for part in ("train", "validation")}
        reached = train(network, parts["train"], parts["validation"], HeadsConfig(seed=args.seed), show)
    heads = {key: x.half() for key, x in network.state_dict().items() if not key.startswith(TRUNK)}
    weights.save_tensors(args.output, heads, {"kind": "delg-heads", "seed": str(args.seed)})
    args.output.with_suffix(".json").write_text(json.dumps(reached, indent=1) + "\n", encoding="utf-8")
    print(f"{args.output}: {reached}")
    return 0


def load(part: str, network: DelgLite, args: argparse.Namespace, show) -> Part:  # type: ignore[no-untyped-def]
    """The pairs and the trunk's outputs of a part of the split."""
    folders = training_sources(part, args.data, args.work, args.only)
    config = Config().replace(**{"extractor.name": JUDGE, "compute.threads": args.threads})
    judged = open_sources(folders, args.work / f"cache-{JUDGE}", config, COPIES, 0, show)
    pairs = collect(judged, 1, show)
    levels, original = [], []
    config = config.replace(**{"extractor.name": "delg-lite"})
    for number, folder in enumerate(folders):
        copies = 0 if (folder / "pairs.csv").is_file() else COPIES
        stage = f"trunk on {folder.name}"
        found = outputs_of_folder(
            folder, args.work / "cache-delg-lite-trunk", network, config, copies, 0, lambda *at, s=stage: show(s, *at)
        )
        rows = {name: p for p, name in enumerate(pairs.names) if pairs.sources[p] == number}
        found = [_known(level, rows) for level in found]
        levels.append(found)
        original.append([torch.tensor([rows[_original(name)] for name in level.names]) for level in found])
    return Part(pairs, levels, original)


def train(network: DelgLite, learned: Part, held: Part, config: HeadsConfig, show) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Train both heads of a frozen network in place and say what they reach."""
    pooled, maps, picture = learned.flat()
    places = places_of(learned.pairs)
    count = len(held.pairs.copies)
    wanted = [p for p in range(count) if len(held.pairs.positives[p])]

    @torch.no_grad()
    def recalls(head: nn.Linear) -> tuple[float, float]:
        described = torch.zeros(count, network.global_dim)
        changed = torch.zeros(count, network.global_dim)
        for level, of in zip(chain(*held.levels), chain(*held.original), strict=True):
            is_copy = torch.tensor([COPY_MARK in name for name in level.names])
            vectors = F.normalize(head(level.pooled), dim=1)
            described.index_add_(0, of[~is_copy], vectors[~is_copy])
            changed.index_add_(0, of[is_copy], vectors[is_copy])
        described = F.normalize(described, dim=1)
        with_copy = changed.norm(dim=1, keepdim=True) > 0
        queries = torch.where(with_copy, changed, described)
        seen, later = (recall_at_1(described, x[wanted], held.pairs) for x in (described, queries))
        return seen, later

    train_global(network, pooled, picture, places, config, lambda head: sum(recalls(head)) / 2, show)
    kept = train_locals(network, maps, picture, places, config, show)
    freeze(network)
    plain, changed = recalls(network.whitening)
    return {
        "places": places.count,
        "pictures": len(learned.pairs.copies),
        "validation_recall_at_1": plain,
        "validation_recall_at_1_changed": changed,
        "variance_kept_by_autoencoder": kept,
    }


def _known(level: Level, rows: dict[str, int]) -> Level:
    """Without pictures that gave no XFeat features."""
    keep = [i for i, name in enumerate(level.names) if _original(name) in rows]
    return Level([level.names[i] for i in keep], level.maps[keep], level.pooled[keep])


def _original(name: str) -> str:
    return name.split(COPY_MARK, maxsplit=1)[0]


if __name__ == "__main__":
    sys.exit(main())
