"""DELG: local and global features from one network.

Cao et al., "Unifying Deep Local and Global Features for Image Search", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros.errors import WeightsError
from etr_ros.features.backbones import Backbone, EfficientNetLite0, ResNet
from etr_ros.features.base import Extraction, LocalNetwork

_LEVEL_MULTIPLE = 4
_MIN_LEVEL_SIDE_PX = 32


class GeM(nn.Module):
    """Generalised mean over all positions, (B, C, h, w) -> (B, C), with a learned power (equation 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


class Attention(nn.Module):
    """How much each position matters, (B, C, h, w) -> (B, h, w), not negative (section 3.2)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(self.conv2(F.relu(self.conv1(x)))).squeeze(1)


class Delg(LocalNetwork):
    """The two heads over any backbone.

    Local descriptors are the code of the paper's autoencoder (its decoder only serves the training), one for each cell
    of the local map at each of seven image scales. The picture's best `max_keypoints` over all scales are kept, by
    attention and without suppression of neighbours, as in the authors' release. The global descriptor is the mean over
    the three middle scales. Small networks have fewer scales.
    """

    image_scales: tuple[float, ...] = (0.25, 0.5**1.5, 0.5, 0.5**0.5, 1.0, 2**0.5, 2.0)
    global_scales: tuple[float, ...] = (0.5**0.5, 1.0, 2**0.5)
    size_multiple = 32
    global_dim: int

    def __init__(self, backbone: Backbone, attention_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention = Attention(backbone.local_channels, attention_dim)
        self.reduction = nn.Conv2d(backbone.local_channels, self.descriptor_dim, 1)
        self.gem = GeM()
        self.whitening = nn.Linear(backbone.global_channels, self.global_dim)
        self.trained = False

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load all weights; until then `extract` refuses to work."""
        result = super().load_state_dict(state_dict, strict, assign)
        self.trained = True
        return result

    def local_features(self, local_map: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> attention (B, h, w), descriptors (B, D, h, w), not normalised."""
        return self.attention(local_map), self.reduction(local_map)

    def global_feature(self, local_map: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, G), L2-normalised."""
        return F.normalize(self.whitening(self.gem(self.backbone.global_map(local_map))), dim=1)

    def extract(self, rgb: Tensor, max_keypoints: int) -> Extraction:
        """Raises WeightsError when no weights were loaded."""
        if not self.trained:
            raise WeightsError("DELG has no weights yet: features of an untrained network mean nothing")
        x = self.backbone.normalise(rgb)
        points, scores, descriptors, scales, globals_ = [], [], [], [], []
        for index, scale in enumerate(self.image_scales):
            level = resize(x, scale)
            local_map = self.backbone.local_map(level)
            attention, reduced = self.local_features(local_map)
            points.append(self._centres(attention.shape[-2:], level.shape[-2:], rgb.shape[-2:]).to(rgb.device))
            scores.append(attention.flatten(1))  # (B, hw)
            descriptors.append(reduced.flatten(2).transpose(1, 2))  # (B, hw, D)
            scales.append(torch.full((len(points[-1]),), index, dtype=torch.uint8, device=rgb.device))
            if scale in self.global_scales:
                globals_.append(self.global_feature(local_map))
            if scale == 1.0:
                dense = reduced
        all_points, all_scales = torch.cat(points), torch.cat(scales)
        all_descriptors = F.normalize(torch.cat(descriptors, dim=1), dim=2)
        sorted_scores, order = torch.cat(scores, dim=1).sort(dim=1, descending=True, stable=True)
        best = order[:, :max_keypoints]  # (B, N)
        return Extraction(
            keypoints=[all_points[rows] for rows in best],
            scores=list(sorted_scores[:, :max_keypoints]),
            descriptors=[found[rows] for found, rows in zip(all_descriptors, best, strict=True)],
            scales=[all_scales[rows] for rows in best],
            dense=dense,
            global_descriptor=F.normalize(torch.stack(globals_).mean(dim=0), dim=1),
        )

    def _centres(self, cells: torch.Size, level: torch.Size, picture: torch.Size) -> Tensor:
        """(h * w, 2) x, y in pixels of the picture: the centres of what the cells of a local map see."""
        y, x = (
            (torch.arange(n) * self.backbone.local_stride + self.backbone.local_offset + 0.5) * (full / side) - 0.5
            for n, side, full in zip(cells, level, picture, strict=True)
        )
        return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=1)


class DelgR50(Delg):
    """The paper's ResNet-50 model."""

    descriptor_dim = 128
    global_dim = 2048

    def __init__(self) -> None:
        super().__init__(ResNet(50), attention_dim=512)


class DelgR101(Delg):
    """The paper's ResNet-101 model."""

    descriptor_dim = 128
    global_dim = 2048

    def __init__(self) -> None:
        super().__init__(ResNet(101), attention_dim=512)


class DelgLite(Delg):
    """The same heads over EfficientNet-Lite0, for small machines: at two scales, as seven cost eight times as much as
    one. A weight file may hold the heads alone; the trunk then is the published one."""

    trunk = "efficientnet-lite0"
    image_scales = (0.5**0.5, 1.0)
    global_scales = (0.5**0.5, 1.0)
    descriptor_dim = 64
    global_dim = 512

    def __init__(self) -> None:
        super().__init__(EfficientNetLite0(), attention_dim=128)


def resize(x: Tensor, scale: float) -> Tensor:
    """Pictures (B, 3, H, W) at another scale, sides rounded to what the trunks take."""
    height, width = (
        max(_MIN_LEVEL_SIDE_PX, round(side * scale / _LEVEL_MULTIPLE) * _LEVEL_MULTIPLE) for side in x.shape[-2:]
    )
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
