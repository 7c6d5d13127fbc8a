"""Networks as ONNX files with dynamic shapes, for TensorRT and other run times on robots.

Only the networks: what comes before (resizing, padding) and after (suppression, sampling, calibration) stays with the
caller, see docs/onnx.md.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from etr_ros import rerank
from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.features.base import LocalNetwork
from etr_ros.features.extractor import load_network
from etr_ros.tokens import Locals

OPSET = 20
EXTRACTORS = {
    "xfeat": ("descriptors", "keypoint_logits", "reliability"),
    "superpoint": ("descriptors", "keypoint_logits"),
}
SIDE = ("descriptors", "xy", "scales", "mask")  # of each of the two pictures, with "global_descriptor" where it is read


@dataclass(frozen=True)
class Exportable:
    """A network with example inputs; `dynamic` says of each input which dimensions vary."""

    network: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic: tuple[dict[int, object], ...]


def write(path: Path, exportable: Exportable) -> None:
    """Write one ONNX file.

    Raises ConfigError when the packages that PyTorch exports with are missing, or the file cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX export needs {' and '.join(missing)}: pip install onnx onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    draft = path.with_name(path.name + ".part")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            exportable.network,
            exportable.inputs,
            input_names=list(exportable.input_names),
            output_names=list(exportable.output_names),
            dynamic_shapes={"inputs": exportable.dynamic},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        program.save(draft)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def extractor(config: Config) -> Exportable:
    """The local network of `config`: `rgb` (B, 3, H, W) in [0, 1], H and W multiples of its `size_multiple`, to maps of
    1/8 resolution. Raises ConfigError for one that has no such form, WeightsError when it has no weights."""
    name = config.extractor.name
    if name not in EXTRACTORS:
        raise ConfigError(f"extractor.name {name} cannot be exported; {' and '.join(EXTRACTORS)} can")
    network, _, _ = load_network(config.replace(**{"compute.device": "cpu"}))
    multiple = network.size_multiple
    height, width = (multiple * Dim(f"{side}_blocks", min=2, max=128) for side in ("height", "width"))
    dynamic: dict[int, object] = {0: Dim("batch", max=64), 2: height, 3: width}
    rgb = torch.rand(2, 3, 4 * multiple, 6 * multiple)
    plain = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Exportable(_Maps(plain), (rgb,), ("rgb",), EXTRACTORS[name], (dynamic,))


def reranker(config: Config) -> Exportable:
    """The ETR of `config`: both pictures' locals, padded to one length of at least `max_tokens`, to logits (B,).

    Raises ConfigError for a re-ranker that is no ETR, WeightsError when it has no weights.
    """
    scorer = rerank.load(config.rerank.name, config.extractor.name, torch.device("cpu"), config.rerank.max_locals)
    if not isinstance(scorer, rerank.EtrScorer):
        raise ConfigError(f"rerank.name {config.rerank.name} is no network; name an ETR")
    shape, count, pairs = scorer.model.config, scorer.max_locals, 3
    reads_globals = bool(shape.global_dim or getattr(shape, "summary", False))
    sides = [example(pairs, count, shape.local_dim, shape.global_dim or 512, seed) for seed in (0, 1)]
    kept = len(SIDE) + reads_globals
    batch = Dim("batch", max=1024)
    few = count < shape.max_tokens  # then all locals become tokens
    length = Dim("locals", min=2 if few else shape.max_tokens, max=shape.max_tokens - 1 if few else 4096)
    local: dict[int, object] = {0: batch, 1: length}
    whole: dict[int, object] = {0: batch}
    per_side = [local] * len(SIDE) + [whole] * reads_globals
    names = [*SIDE, "global_descriptor"][:kept]
    return Exportable(
        _Pairs(scorer.model, kept),
        (*sides[0][:kept], *sides[1][:kept]),
        tuple(f"{side}_{name}" for side in ("query", "candidate") for name in names),
        ("logits",),
        (*per_side, *per_side),
    )


class _Maps(nn.Module):
    def __init__(self, network: LocalNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        return self.network(*inputs)  # type: ignore[no-any-return]


class _Pairs(nn.Module):
    def __init__(self, model: nn.Module, per_side: int) -> None:
        super().__init__()
        self.model, self.per_side = model, per_side

    def forward(self, *inputs: Tensor) -> Tensor:
        a, b = inputs[: self.per_side], inputs[self.per_side :]
        return self.model(Locals(*a), Locals(*b))  # type: ignore[no-any-return]


def example(count: int, length: int, dim: int, global_dim: int, seed: int) -> tuple[Tensor, ...]:
    """Locals of `count` made-up pictures, the last eight of each being padding."""
    generator = torch.Generator().manual_seed(seed)
    descriptors = nn.functional.normalize(torch.randn(count, length, dim, generator=generator), dim=2)
    xy = torch.rand(count, length, 2, generator=generator) * 2 - 1
    mask = (torch.arange(length) < length - 8).expand(count, -1).contiguous()
    vector = nn.functional.normalize(torch.randn(count, global_dim, generator=generator), dim=1)
    return descriptors, xy, torch.zeros(count, length, dtype=torch.long), mask, vector
