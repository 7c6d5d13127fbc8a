"""Global descriptors: one L2-normalised vector a picture, for retrieval."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros import weights
from etr_ros.errors import WeightsError
from etr_ros.features.base import Extraction, LocalNetwork
from etr_ros.tokens import argmax


class GlobalHead(nn.Module):
    """Base of the global descriptors."""

    name: str
    dim: int

    @staticmethod
    def load(file: str, network: LocalNetwork) -> tuple[GlobalHead, list[Path]]:
        """The head over `network` from a weight file or registered name, and the files it read. Raises WeightsError."""
        raise NotImplementedError

    def forward(self, rgb: Tensor, found: Extraction) -> Tensor:
        """Descriptors (B, dim) of the pictures `rgb` (B, 3, H, W), of which `found` was extracted."""
        raise NotImplementedError


class Vlad(GlobalHead):
    """VLAD over the dense map of the local network, with intra-normalisation, then PCA with power whitening.

    Jegou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010. Costs no network of
    its own.
    """

    name = "vlad"
    centres: Tensor  # (K, D) L2-normalised
    mean: Tensor  # (K * D,)
    projection: Tensor  # (dim, K * D)

    def __init__(self, clusters: int, local_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("centres", torch.zeros(clusters, local_dim))
        self.register_buffer("mean", torch.zeros(clusters * local_dim))
        self.register_buffer("projection", torch.zeros(dim, clusters * local_dim))

    @staticmethod
    def load(file: str, network: LocalNetwork) -> tuple[GlobalHead, list[Path]]:
        path = weights.resolve(file)
        tensors = weights.load_tensors(path)
        try:
            tensors["projection"] = tensors.pop("projection_int8").float() * tensors.pop("projection_scale")
            clusters, local_dim = tensors["centres"].shape
            head = Vlad(clusters, local_dim, len(tensors["projection"]))
            head.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} is not a VLAD codebook: give a file that `etr fit-vlad` wrote") from error
        if head.centres.shape[1] != network.descriptor_dim:
            raise WeightsError(
                f"{path} was fitted to {head.centres.shape[1]}-d local features, these have {network.descriptor_dim}"
            )
        return head, [path]

    def aggregate(self, dense: Tensor) -> Tensor:
        """(B, D, h, w), not necessarily normalised -> residual sums (B, clusters * D), L2-normalised."""
        count, clusters = len(dense), len(self.centres)
        x = F.normalize(dense.float().flatten(2).transpose(1, 2), dim=2)  # (B, hw, D)
        nearest = argmax(x @ self.centres.t())  # (B, hw)
        rows = (nearest + clusters * torch.arange(count, device=x.device)[:, None]).flatten()  # of all B * K clusters
        sums = x.new_zeros(count * clusters, x.shape[2]).index_add_(0, rows, x.flatten(0, 1))
        members = rows.bincount(minlength=count * clusters).view(count, clusters, 1)
        sums = sums.view(count, clusters, -1) - members * self.centres  # (B, K, D)
        return F.normalize(F.normalize(sums, dim=2).flatten(1), dim=1)

    def forward(self, rgb: Tensor, found: Extraction) -> Tensor:
        return F.normalize((self.aggregate(found.dense) - self.mean) @ self.projection.t(), dim=1)


class NativeHead(GlobalHead):
    """The global descriptor that the local network computed itself (DELG)."""

    name = "delg"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @staticmethod
    def load(file: str, network: LocalNetwork) -> tuple[GlobalHead, list[Path]]:
        return NativeHead(network.global_dim), []  # type: ignore[arg-type]

    def forward(self, rgb: Tensor, found: Extraction) -> Tensor:
        if found.global_descriptor is None:
            raise WeightsError("this extractor has no global descriptor of its own: set extractor.global_name")
        return found.global_descriptor


GLOBAL_HEADS: dict[str, type[GlobalHead]] = {"vlad": Vlad, "delg": NativeHead}
