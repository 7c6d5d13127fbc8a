"""SuperPoint: keypoints and descriptors from one VGG network (DeTone et al., CVPR workshops 2018).

Reads both published weight layouts: that of the authors (convolutions called conv1a ... convDb, no batch norm) and that
of the open re-implementation (backbone, detector, descriptor, batch norm after each ReLU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros.errors import WeightsError
from etr_ros.features import keypoints as kp
from etr_ros.features.base import Extraction, LocalNetwork, to_gray

_OPEN_NAMES = {
    "conv1a": "backbone.0.0",
    "conv1b": "backbone.0.1",
    "conv2a": "backbone.1.0",
    "conv2b": "backbone.1.1",
    "conv3a": "backbone.2.0",
    "conv3b": "backbone.2.1",
    "conv4a": "backbone.3.0",
    "conv4b": "backbone.3.1",
    "convPa": "detector.0",
    "convPb": "detector.1",
    "convDa": "descriptor.0",
    "convDb": "descriptor.1",
}
_OPEN_BATCH_NORM_EPS = 1e-3
_OPEN_THRESHOLD = 0.005
_AUTHORS_THRESHOLD = 0.015


class Conv(nn.Conv2d):
    """Convolution with a lower bound for each output channel; a bound of zero is a ReLU.

    A batch norm with scale s > 0 and shift t after a ReLU is such a bound: s * max(c, 0) + t = max(s * c + t, t).
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, kernel_size=3, padding=1)
        self.floor: Tensor
        self.register_buffer("floor", torch.zeros(c_out, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp_min_(self.floor)


class SuperPoint(LocalNetwork):
    """256-d descriptors at 1/8 resolution, keypoints at pixel resolution."""

    descriptor_dim = 256
    size_multiple = 8
    nms_radius = 4
    border = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv1a, self.conv1b = Conv(1, 64), Conv(64, 64)
        self.conv2a, self.conv2b = Conv(64, 64), Conv(64, 64)
        self.conv3a, self.conv3b = Conv(64, 128), Conv(128, 128)
        self.conv4a, self.conv4b = Conv(128, 128), Conv(128, 128)
        self.convPa, self.convPb = Conv(128, 256), nn.Conv2d(256, 65, 1)
        self.convDa, self.convDb = Conv(128, 256), nn.Conv2d(256, 256, 1)
        self.threshold: Tensor
        self.register_buffer("threshold", torch.tensor(_AUTHORS_THRESHOLD))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Weights in either published layout, or this network's own `state_dict`.

        The detection threshold becomes the one that goes with the weights. Raises WeightsError for any other layout.
        """
        if f"{_OPEN_NAMES['conv1a']}.conv.weight" in state_dict:
            state_dict = _from_open_layout(state_dict)
        elif "conv1a.weight" not in state_dict:
            raise WeightsError("these are not SuperPoint weights in one of the two published layouts")
        buffers = {name: torch.zeros_like(buffer) for name, buffer in self.named_buffers()}
        buffers["threshold"].fill_(_AUTHORS_THRESHOLD)
        return super().load_state_dict(buffers | dict(state_dict), strict, assign)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> descriptors (B, 256, H/8, W/8), cell logits (B, 65, H/8, W/8)."""
        x = self.conv1b(self.conv1a(to_gray(rgb)))  # (B, 64, H, W)
        x = self.conv2b(self.conv2a(F.max_pool2d(x, 2)))  # (B, 64, H/2, W/2)
        x = self.conv3b(self.conv3a(F.max_pool2d(x, 2)))  # (B, 128, H/4, W/4)
        x = self.conv4b(self.conv4a(F.max_pool2d(x, 2)))  # (B, 128, H/8, W/8)
        return self.convDb(self.convDa(x)), self.convPb(self.convPa(x))

    def extract(self, rgb: Tensor, max_keypoints: int) -> Extraction:
        """Local features as in the paper, sections 3.2 and 3.3; the score is the keypoint probability."""
        height, width = rgb.shape[-2:]
        dense, logits = self.maps(rgb)
        heatmap = kp.cells_to_heatmap(logits)  # (B, H, W)
        found = kp.strongest(heatmap, self.nms_radius, max_keypoints, float(self.threshold), self.border)
        normalised = F.normalize(dense, dim=1)
        return Extraction(
            keypoints=[points for points, _ in found],
            scores=[scores for _, scores in found],
            descriptors=[
                kp.sample_descriptors(normalised[i], points, height, width) for i, (points, _) in enumerate(found)
            ],
            scales=[torch.zeros(len(scores), dtype=torch.uint8) for _, scores in found],
            dense=dense,
        )


def _from_open_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The open layout with each batch norm folded into its convolution and bound."""
    folded = {"threshold": torch.tensor(_OPEN_THRESHOLD)}
    try:
        for ours, theirs in _OPEN_NAMES.items():
            weight, bias = state[f"{theirs}.conv.weight"], state[f"{theirs}.conv.bias"]
            deviation = (state[f"{theirs}.bn.running_var"] + _OPEN_BATCH_NORM_EPS).sqrt()
            scale = state[f"{theirs}.bn.weight"] / deviation
            shift = state[f"{theirs}.bn.bias"] - scale * state[f"{theirs}.bn.running_mean"]
            if ours == "conv1a":
                weight = weight.sum(dim=1, keepdim=True)  # copies of the grey channel
            folded[f"{ours}.weight"] = weight * scale[:, None, None, None]
            folded[f"{ours}.bias"] = bias * scale + shift
            if ours not in ("convPb", "convDb"):
                if not (scale > 0).all():
                    raise WeightsError(f"the batch norm '{theirs}.bn' has a scale that is not positive")
                folded[f"{ours}.floor"] = shift[:, None, None]
    except KeyError as error:
        raise WeightsError(f"these SuperPoint weights have no {error}") from error
    return folded
