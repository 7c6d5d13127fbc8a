"""The convolutional trunks under DELG: ResNet-50/101 and EfficientNet-Lite0, each cut where the two heads tap it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from etr_ros.errors import WeightsError


class Backbone(nn.Module):
    """A trunk with two taps.

    What the cell in row i and column j of the local map sees is centred on the input pixel
    x = `local_stride` * j + `local_offset`, y = `local_stride` * i + `local_offset`.
    """

    local_channels: int
    local_stride: int
    local_offset: float
    global_channels: int

    def normalise(self, rgb: Tensor) -> Tensor:
        """[0, 1] -> the range that the trunk was trained with."""
        raise NotImplementedError

    def local_map(self, x: Tensor) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, local_channels, H / local_stride, W / local_stride)."""
        raise NotImplementedError

    def global_map(self, local_map: Tensor) -> Tensor:
        """What `local_map` returned -> (B, global_channels, H / 32, W / 32)."""
        raise NotImplementedError


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (He et al., CVPR 2016, figure 5); the 3x3 one has the stride."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = 4 * width
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(c_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample: nn.Module | None = None
        if c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if self.downsample else x[:, :, :: self.stride, :: self.stride]
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


class ResNet(Backbone):
    """ResNet v1 (He et al., CVPR 2016) with the parameter names of torchvision.

    The strides are where TF-Slim, with which the authors of DELG trained, has them: in the last block of a stage, so
    that the output of the third stage ("conv4") already has stride 32. Input sizes are multiples of 4.
    """

    local_channels = 1024
    local_stride = 32
    local_offset = 2.0
    global_channels = 2048

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], stride=2)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=1)

    def normalise(self, rgb: Tensor) -> Tensor:
        return rgb * (255 / 128) - 1

    def local_map(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (B, 64, H/4, W/4)
        return self.layer3(self.layer2(self.layer1(x)))  # type: ignore[no-any-return]

    def global_map(self, local_map: Tensor) -> Tensor:
        return self.layer4(local_map)  # type: ignore[no-any-return]


def _stage(c_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shapes = [(c_in if i == 0 else 4 * width, width, stride if i == blocks - 1 else 1) for i in range(blocks)]
    return nn.Sequential(*(Bottleneck(*shape) for shape in shapes))


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 (Tan and Le, ICML 2019; its variant without squeeze-and-excitation) from its package.

    Raises WeightsError when the package `efficientnet-lite-pytorch` is not installed.
    """

    local_channels = 112
    local_stride = 16
    local_offset = 15.0
    global_channels = 1280
    _LOCAL_BLOCKS = 11

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise WeightsError("EfficientNet-Lite0 needs a package: pip install efficientnet-lite-pytorch") from error
        net: Any = EfficientNet.from_name("efficientnet-lite0")
        self._conv_stem, self._bn0 = net._conv_stem, net._bn0
        self._blocks = net._blocks
        self._conv_head, self._bn1 = net._conv_head, net._bn1
        for block in self._blocks:
            block._swish = nn.ReLU6(inplace=True)

    def fold_batch_norms(self) -> None:
        """Bring the batch norms, where there still are any, into the convolutions before them: for inference only."""
        pairs = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
        inside = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        for module, names in ((self, pairs), *((block, inside) for block in self._blocks)):
            for convolution, norm in names:
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                    setattr(module, convolution, fused)
                    setattr(module, norm, nn.Identity())

    def normalise(self, rgb: Tensor) -> Tensor:
        return rgb * (255 / 128) - 127 / 128

    def local_map(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks[: self._LOCAL_BLOCKS]:
            x = block(x)
        return x

    def global_map(self, local_map: Tensor) -> Tensor:
        x = local_map
        for block in self._blocks[self._LOCAL_BLOCKS :]:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))
