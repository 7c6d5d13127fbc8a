"""What every local feature network has in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from etr_ros.runtime import OpenVinoMaps


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """Local features of a batch of B pictures, before they are brought to the original pixel grid.

    The lists have one tensor per picture, strongest first; N differs between pictures and may be 0.
    `dense` is the descriptor map that they were sampled from, not normalised.
    """

    keypoints: list[Tensor]  # B x (N, 2) x, y in pixels of the network's input, centre of the top left pixel = (0, 0)
    scores: list[Tensor]  # B x (N,)
    descriptors: list[Tensor]  # B x (N, D) L2-normalised
    scales: list[Tensor]  # B x (N,) index into `LocalNetwork.image_scales`
    dense: Tensor  # (B, C, h, w)
    global_descriptor: Tensor | None = None  # (B, G) L2-normalised, of networks that have a global head


class LocalNetwork(nn.Module):
    """Base of the extractors: a network without weights until `load_state_dict`; it never downloads."""

    descriptor_dim: int
    image_scales: tuple[float, ...] = (1.0,)
    size_multiple: int = 8
    trunk: str = ""  # registered name of the weights of `backbone`, where a weight file need not hold them
    compiled: OpenVinoMaps | None = None

    def maps(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """What `forward` gives, by the run time that was chosen."""
        return self(rgb) if self.compiled is None else self.compiled(rgb)

    def extract(self, rgb: Tensor, max_keypoints: int) -> Extraction:
        """Local features of `rgb` (B, 3, H, W) in [0, 1]; H and W are multiples of `size_multiple`."""
        raise NotImplementedError


def to_gray(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W) luma (ITU-R BT.601 weights)."""
    return weighted_channels(rgb, 0.299, 0.587, 0.114)


def mean_channel(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W), the mean of the channels."""
    return weighted_channels(rgb, 1 / 3, 1 / 3, 1 / 3)


def weighted_channels(rgb: Tensor, *weights: float) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W). Channel by channel, as torch is slow at sums over the innermost dimension."""
    red, green, blue = (rgb[:, i : i + 1] * weight for i, weight in enumerate(weights))
    return red + green + blue


def half_on_cuda(device: torch.device) -> torch.autocast:
    """Context in which networks on a CUDA device compute in half precision; on a CPU nothing changes."""
    return torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")


@torch.no_grad()
def freeze(network: nn.Module) -> nn.Module:
    """`network` ready for inference: evaluation mode, no gradients, channels-last weights, batch norms folded into the
    convolutions that they directly follow in an `nn.Sequential`, or as a module's own `fold_batch_norms` does it."""
    network = network.eval().requires_grad_(False)
    for module in network.modules():
        if fold := getattr(module, "fold_batch_norms", None):
            fold()
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    for i in range(len(sequence) - 1):
        convolution, norm = sequence[i], sequence[i + 1]
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            sequence[i], sequence[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
