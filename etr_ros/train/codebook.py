"""Fit the VLAD global descriptor: cluster the dense local descriptors, then whiten and project the residual sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import weights
from etr_ros.config import Config
from etr_ros.errors import DataError
from etr_ros.features.extractor import load_network, network_input
from etr_ros.features.global_descriptor import Vlad
from etr_ros.types import Frame


@dataclass(frozen=True)
class CodebookConfig:
    """Size of the descriptor. `power` is the whitening: 0 keeps the PCA variances, 0.5 makes them all one."""

    clusters: int = 128
    dim: int = 512
    power: float = 0.25
    samples_per_picture: int = 100
    iterations: int = 20
    seed: int = 0


def fit_vlad(frames: Iterable[Frame], config: Config, codebook: CodebookConfig) -> Vlad:
    """A VLAD head for the locals of `config`, from pictures that should look like those it will see.

    Raises DataError when there are fewer pictures than `codebook.dim`.
    """
    network, device, _ = load_network(config)
    dense: list[Tensor] = []
    with torch.inference_mode():
        for frame in frames:
            rgb = network_input([frame.image], config.extractor.max_side_px, network.size_multiple).to(device)
            dense.append(F.normalize(network.extract(rgb, 1).dense, dim=1).half().cpu())
    if len(dense) <= codebook.dim:
        raise DataError(
            f"{len(dense)} pictures cannot fit {codebook.dim} dimensions: give more pictures or fewer dimensions"
        )
    head = Vlad(codebook.clusters, network.descriptor_dim, codebook.dim)
    head.centres.copy_(torch.from_numpy(_cluster(dense, codebook)))
    sums = torch.cat([head.aggregate(x.float()) for x in dense]).numpy()  # (M, clusters * D)
    mean, projection = whitening(sums, codebook.dim, codebook.power)
    head.mean.copy_(torch.from_numpy(mean))
    head.projection.copy_(torch.from_numpy(projection))
    return head


def whitening(x: NDArray[np.float32], dim: int, power: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (D,) and projection (dim, D): the first principal axes of x (M, D), scaled by deviation ** (-2 power)."""
    mean = x.mean(axis=0)
    _, singular, axes = np.linalg.svd(x - mean, full_matrices=False)
    deviation = singular[:dim] / np.sqrt(len(x))
    return mean, (axes[:dim] / np.maximum(deviation[:, None], 1e-6) ** (2 * power)).astype(np.float32)


def save_vlad(head: Vlad, path: Path) -> None:
    """Write the head as safetensors; the projection, which is most of it, as 8-bit integers with a scale per row."""
    tensors = head.state_dict()
    projection = tensors.pop("projection")
    scale = projection.abs().amax(dim=1, keepdim=True) / 127
    tensors |= {"projection_int8": (projection / scale).round().to(torch.int8), "projection_scale": scale}
    weights.save_tensors(path, tensors, {"kind": "vlad"})


def _cluster(dense: list[Tensor], codebook: CodebookConfig) -> NDArray[np.float32]:
    rng = np.random.default_rng(codebook.seed)
    samples = []
    for x in dense:
        flat = x[0].flatten(1).t().float().numpy()  # (hw, D)
        samples.append(flat[rng.integers(0, len(flat), codebook.samples_per_picture)])
    points = np.concatenate(samples)
    kmeans = faiss.Kmeans(
        points.shape[1], codebook.clusters, niter=codebook.iterations, seed=codebook.seed + 1, spherical=True
    )
    kmeans.train(points)
    return kmeans.centroids.astype(np.float32)  # type: ignore[no-any-return]
