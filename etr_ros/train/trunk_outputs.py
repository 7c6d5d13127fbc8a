"""What a frozen DELG trunk makes of pictures: computed once and kept, so that training the heads takes minutes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from etr_ros import weights
from etr_ros.config import Config
from etr_ros.datasets import image_folder
from etr_ros.errors import DataError
from etr_ros.features.delg import Delg, resize
from etr_ros.features.extractor import network_input
from etr_ros.train.pairs import COPY_MARK
from etr_ros.train.prepare import with_copies
from etr_ros.types import Frame

Progress = Callable[[int, int], None]  # pictures done, of all


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """M pictures at one image scale: their names, local maps (M, C, h, w) float16 and pooled global maps (M, G)."""

    names: list[str]
    maps: Tensor
    pooled: Tensor


def outputs_of_folder(
    folder: Path, cache: Path, network: Delg, config: Config, copies: int, seed: int, progress: Progress
) -> list[Level]:
    """The trunk's outputs for a folder of pictures, one level for each of `network.image_scales`, kept below `cache`.

    `copies` changed copies of each picture, "<name>#1" and so on, are seen at the smallest scale only: they teach what
    light and viewpoint do, which costs a quarter there. Raises DataError when the folder cannot be read.
    """
    source = image_folder(folder, None)
    made_from = repr((folder.resolve(), source.expected, copies, seed, config.extractor, network.image_scales))
    file = cache / f"{folder.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}.safetensors"
    if not file.is_file():
        total = (source.expected or 0) * (1 + copies)
        _save(file, compute(with_copies(source, copies, seed), network, config, lambda done: progress(done, total)))
    return _load(file, len(network.image_scales))


@torch.inference_mode()
def compute(frames: Iterable[Frame], network: Delg, config: Config, progress: Callable[[int], None]) -> list[Level]:
    """The outputs of a frozen `network`'s trunk. Raises DataError when the pictures differ in size."""
    found: list[list[tuple[str, Tensor, Tensor]]] = [[] for _ in network.image_scales]
    for done, frame in enumerate(frames, 1):
        x = network.backbone.normalise(
            network_input([frame.image], config.extractor.max_side_px, network.size_multiple)
        )
        for index, scale in enumerate(network.image_scales[:1] if COPY_MARK in frame.name else network.image_scales):
            local_map = network.backbone.local_map(resize(x, scale))
            pooled = network.gem(network.backbone.global_map(local_map))
            found[index].append((frame.name, local_map[0].half().contiguous(), pooled[0]))
        progress(done)
    if len({(index, of.shape) for index, level in enumerate(found) for _, of, _ in level}) != len(found):
        raise DataError("the pictures of a folder must be of one size to train on them")
    return [
        Level([name for name, *_ in level], torch.stack([x for _, x, _ in level]), torch.stack([g for *_, g in level]))
        for level in found
    ]


def _save(file: Path, levels: list[Level]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{kind}{i}": getattr(level, kind) for i, level in enumerate(levels) for kind in ("maps", "pooled")}
    weights.save_tensors(file, tensors, {"names": json.dumps([level.names for level in levels])})


def _load(file: Path, scales: int) -> list[Level]:
    with safetensors.safe_open(file, "pt") as opened:
        names = json.loads(opened.metadata()["names"])
    tensors = weights.load_tensors(file)
    return [Level(names[i], tensors[f"maps{i}"], tensors[f"pooled{i}"]) for i in range(scales)]
