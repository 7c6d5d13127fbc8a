"""XFeat: small and fast local features.

Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros.features import keypoints as kp
from etr_ros.features.base import Extraction, LocalNetwork, mean_channel


class ConvBlock(nn.Module):
    """Convolution, batch norm without affine part, ReLU; the module name `layer` is that of the published weights."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.layer = nn.Sequential(convolution, nn.BatchNorm2d(c_out, affine=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def _blocks(*shapes: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(*shape) for shape in shapes))


class XFeat(LocalNetwork):
    """Sparse XFeat: 64-d descriptors at 1/8 resolution, full-resolution keypoints from a parallel 8x8-cell branch."""

    descriptor_dim = 64
    size_multiple = 32
    detection_threshold = 0.05
    nms_radius = 2

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, stride=4), nn.Conv2d(1, 24, 1))
        self.block1 = _blocks((1, 4), (4, 8, 3, 2), (8, 8), (8, 24, 3, 2))
        self.block2 = _blocks((24, 24), (24, 24))
        self.block3 = _blocks((24, 64, 3, 2), (64, 64), (64, 64, 1))
        self.block4 = _blocks((64, 64, 3, 2), (64, 64), (64, 64))
        self.block5 = _blocks((64, 128, 3, 2), (128, 128), (128, 128), (128, 64, 1))
        self.block_fusion = nn.Sequential(ConvBlock(64, 64), ConvBlock(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(ConvBlock(64, 64, 1), ConvBlock(64, 64, 1), nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.keypoint_head = nn.Sequential(
            ConvBlock(64, 64, 1), ConvBlock(64, 64, 1), ConvBlock(64, 64, 1), nn.Conv2d(64, 65, 1)
        )

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):  # type: ignore[no-untyped-def]
        """The published file also carries a dense-matching head (`fine_matcher`), which sparse features do not use."""
        used = {key: value for key, value in state_dict.items() if not key.startswith("fine_matcher.")}
        return super().load_state_dict(used, strict, assign)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> descriptors (B, 64, H/8, W/8), cell logits (B, 65, ...), reliability (B, 1, ...)."""
        gray = _standardised(mean_channel(rgb))  # (B, 1, H, W)
        quarter = self.block2(self.block1(gray) + self.skip1(gray))  # (B, 24, H/4, W/4)
        eighth = self.block3(quarter)  # (B, 64, H/8, W/8)
        sixteenth = self.block4(eighth)
        thirtysecond = self.block5(sixteenth)
        size = eighth.shape[-2:]
        pyramid = eighth + _resize(sixteenth, size) + _resize(thirtysecond, size)
        descriptors = self.block_fusion(pyramid)
        cells = F.pixel_unshuffle(gray, 8)  # (B, 64, H/8, W/8)
        return descriptors, self.keypoint_head(cells), self.heatmap_head(descriptors)

    def extract(self, rgb: Tensor, max_keypoints: int) -> Extraction:
        """Score of a keypoint: its probability times the reliability of its descriptor (paper, section 3.3)."""
        height, width = rgb.shape[-2:]
        dense, logits, reliability = self.maps(rgb)
        heatmap = kp.cells_to_heatmap(logits)  # (B, H, W)
        found = kp.strongest(heatmap, self.nms_radius, max_keypoints, self.detection_threshold, 0, reliability)
        normalised = F.normalize(dense, dim=1)
        return Extraction(
            keypoints=[points for points, _ in found],
            scores=[scores for _, scores in found],
            descriptors=[
                kp.sample_descriptors(normalised[i], points, height, width, mode="bicubic")
                for i, (points, _) in enumerate(found)
            ],
            scales=[torch.zeros(len(scores), dtype=torch.uint8) for _, scores in found],
            dense=dense,
        )


def _standardised(x: Tensor) -> Tensor:
    """(B, 1, H, W): each picture with mean 0 and variance 1."""
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return (x - mean) * (variance + 1e-5).rsqrt()


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
