from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros.features import keypoints as kp


def distinct_heatmap(seed: int, height: int, width: int) -> torch.Tensor:
    """(1, H, W) of positive values, no two the same."""
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    return (order.float() + 1).view(1, height, width)


def test_a_cell_s_channels_are_its_pixels_in_reading_order() -> None:
    logits = torch.full((1, 65, 2, 3), -20.0)
    logits[:, 64] = 0.0
    logits[0, 8 * 5 + 2, 1, 2] = 20.0  # row 5, column 2 of the cell in row 1, column 2
    heatmap = kp.cells_to_heatmap(logits)
    assert heatmap.shape == (1, 16, 24)
    assert torch.nonzero(heatmap > 0.9).tolist() == [[0, 8 + 5, 16 + 2]]


def test_a_cell_without_keypoint_has_no_probability_left() -> None:
    logits = torch.zeros(1, 65, 1, 1)
    assert torch.isclose(kp.cells_to_heatmap(logits).sum(), torch.tensor(64 / 65))
    logits[:, 64] = 50.0
    assert kp.cells_to_heatmap(logits).sum() < 1e-6


@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_peaks_are_apart_and_the_best_is_one(seed: int, height: int, width: int, radius: int) -> None:
    heatmap = distinct_heatmap(seed, height, width)
    is_peak = kp.peaks(heatmap, radius, 0.5)
    assert is_peak[heatmap == heatmap.max()].all()
    points = torch.nonzero(is_peak[0])
    apart = (points[:, None] - points[None]).abs().max(dim=2).values + 1000 * torch.eye(len(points))
    assert (apart > radius).all()


@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25), st.integers(1, 4), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_threshold_only_takes_peaks_away(seed: int, height: int, width: int, radius: int, share: float) -> None:
    heatmap = distinct_heatmap(seed, height, width)
    threshold = share * height * width
    assert torch.equal(kp.peaks(heatmap, radius, threshold), kp.peaks(heatmap, radius, 0.5) & (heatmap > threshold))


@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_peaks_are_those_of_the_gpu_s_pooling(seed: int, height: int, width: int, radius: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.randint(0, 12, (2, height, width), generator=generator) / 11  # with ties
    assert torch.equal(kp.peaks(heatmap, radius, 0.3), kp._peaks_on_gpu(heatmap, radius, 0.3))


def test_a_maximum_that_lost_to_a_suppressed_one_comes_back() -> None:
    heatmap = torch.zeros(1, 1, 9)
    heatmap[0, 0, [1, 3, 5]] = torch.tensor([3.0, 2.0, 1.0])  # 3 px suppresses 5 px, but is itself suppressed
    assert torch.nonzero(kp.peaks(heatmap, 2, 0.5)[0, 0]).flatten().tolist() == [1, 5]


def test_the_strongest_come_first_within_border_and_threshold() -> None:
    heatmap = torch.zeros(2, 10, 12)
    heatmap[0, 0, 5] = 9.0  # in the border
    heatmap[0, 4, 7] = 0.5
    heatmap[0, 6, 3] = 0.8
    heatmap[0, 5, 5] = 0.1  # not above the threshold
    (points, scores), (none, no_scores) = kp.strongest(heatmap, 0, 10, threshold=0.1, border=2)
    assert points.tolist() == [[3, 6], [7, 4]]
    assert torch.equal(scores, torch.tensor([0.8, 0.5]))
    assert none.shape == (0, 2)
    assert no_scores.shape == (0,)
    assert kp.strongest(heatmap, 0, 1, threshold=0.1, border=2)[0][0].tolist() == [[3, 6]]


def test_ties_go_to_the_upper_left() -> None:
    (points, _), *_ = kp.strongest(torch.ones(1, 3, 4), 0, 3, threshold=0.5, border=0)
    assert points.tolist() == [[0, 0], [1, 0], [2, 0]]


def test_a_map_smaller_than_its_border_has_no_keypoints() -> None:
    assert len(kp.strongest(torch.ones(1, 6, 6), 0, 3, threshold=0.5, border=4)[0][0]) == 0


@given(st.floats(4.0, 60.0), st.floats(4.0, 28.0))
@settings(deadline=None)
def test_sampling_is_exact_on_a_linear_map(x: float, y: float) -> None:
    height, width, cell = 32, 64, 8
    centres_x = torch.arange(width // cell) * cell + (cell - 1) / 2
    centres_y = torch.arange(height // cell) * cell + (cell - 1) / 2
    dense = torch.stack(
        [centres_x.expand(height // cell, -1), centres_y[:, None].expand(-1, width // cell), torch.ones(4, 8)]
    )
    x, y = min(x, float(centres_x[-1])), min(y, float(centres_y[-1]))
    sampled = kp.sample_descriptors(dense, torch.tensor([[x, y]]), height, width)
    expected = torch.nn.functional.normalize(torch.tensor([[x, y, 1.0]]), dim=1)
    assert torch.allclose(sampled, expected, atol=1e-4)


def test_sampled_descriptors_have_length_one() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(16, 4, 6, generator=generator)
    points = torch.rand(20, 2, generator=generator) * torch.tensor([47.0, 31.0])
    for mode in ("bilinear", "bicubic"):
        sampled = kp.sample_descriptors(dense, points, 32, 48, mode)
        assert sampled.shape == (20, 16)
        assert torch.allclose(sampled.norm(dim=1), torch.ones(20), atol=1e-5)
    assert kp.sample_descriptors(dense, torch.zeros(0, 2), 32, 48).shape == (0, 16)


def test_a_weight_is_that_of_the_whole_map_interpolated() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmap, weight = torch.rand(2, 48, 64, generator=generator), torch.rand(2, 1, 6, 8, generator=generator)
    whole = heatmap * F.interpolate(weight, (48, 64), mode="bilinear", align_corners=False)[:, 0]
    for i, (points, scores) in enumerate(kp.strongest(heatmap, 0, 40, 0.3, 0, weight)):
        xs, ys = points.long().T
        torch.testing.assert_close(scores, whole[i, ys, xs], atol=1e-6, rtol=0)
        above = whole[i][heatmap[i] > 0.3]
        torch.testing.assert_close(scores, above.sort(descending=True).values[:40], atol=1e-6, rtol=0)
