"""Matches and the summary that tokens are made of, against a slow and plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import tokens
from etr_ros.relations import TOLERANCES, Points, disagreement, relations, support
from etr_ros.tokens import GRID, Locals, correlate


def pictures(batch: int, length: int, seed: int, hidden: int = 0) -> Locals:
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.nn.functional.normalize(torch.randn(batch, length, 8, generator=generator), dim=-1)
    xy = torch.rand(batch, length, 2, generator=generator) * torch.tensor([2.0, 1.5]) - torch.tensor([1.0, 0.75])
    mask = torch.arange(length) < length - hidden
    vector = torch.nn.functional.normalize(torch.randn(batch, 6, generator=generator), dim=-1)
    return Locals(descriptors, xy, torch.zeros(batch, length, dtype=torch.long), mask.expand(batch, -1), vector)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 30), hidden=st.integers(0, 5))
def test_matches_are_those_of_the_full_matrix(seed: int, count: int, hidden: int) -> None:
    a, b = pictures(2, 20, seed, hidden), pictures(2, 24, seed + 1, hidden)
    of_a, of_b = correlate(a, b, count)
    for k in range(2):
        cosines = (a.descriptors[k] @ b.descriptors[k].T).numpy()[: 20 - hidden, : 24 - hidden]
        for matches, table in ((of_a, cosines), (of_b, cosines.T)):
            partner, back = table.argmax(axis=1), table.argmax(axis=0)
            is_mutual = back[partner] == np.arange(len(table))
            order = np.lexsort((-table.max(axis=1), ~is_mutual))[:count]
            kept = matches.mask[k].numpy()
            np.testing.assert_array_equal(matches.rows[k].numpy()[kept], order)
            np.testing.assert_array_equal(matches.partners[k].numpy()[kept], partner[order])
            np.testing.assert_array_equal(matches.mutual[k].numpy()[kept], is_mutual[order])
            largest = np.sort(table[order], axis=1)[:, ::-1][:, :2]
            np.testing.assert_allclose(matches.cosines[k].numpy()[kept], largest, atol=1e-6)


def test_a_match_of_the_largest_sees_both_sides_alike() -> None:
    a, b = pictures(1, 20, 0), pictures(1, 24, 1)
    of_a, of_b = correlate(a, b, 40)
    rows_a, partners_a, rows_b, partners_b = (x[0] for m in (of_a, of_b) for x in (m.rows, m.partners))
    mutual_a, mutual_b = of_a.mutual[0], of_b.mutual[0]
    from_a = set(zip(rows_a[mutual_a].tolist(), partners_a[mutual_a].tolist(), strict=True))
    from_b = set(zip(partners_b[mutual_b].tolist(), rows_b[mutual_b].tolist(), strict=True))
    assert from_a == from_b and from_a


def test_the_summary_counts_all_locals_by_cell() -> None:
    a, b = pictures(3, 50, 0, hidden=10), pictures(3, 50, 1)
    of_a, _ = correlate(a, b, 8)
    shares = of_a.summary[:, : GRID * GRID]
    torch.testing.assert_close(shares.sum(dim=1), torch.full((3,), float(GRID)))
    torch.testing.assert_close(of_a.summary[:, -1], (a.global_descriptor * b.global_descriptor).sum(dim=1))
    nothing = Locals(a.descriptors, a.xy, a.scales, torch.zeros_like(a.mask))
    of_nothing, _ = correlate(nothing, b, 8)
    assert not of_nothing.summary.any()


@pytest.mark.parametrize("hidden", [0, 6])
def test_what_a_gpu_computes_and_an_export_records_is_the_same(monkeypatch: pytest.MonkeyPatch, hidden: int) -> None:
    a, b = pictures(3, 40, 0), pictures(3, 50, 1, hidden)
    plain = correlate(a, b, 16)
    monkeypatch.setattr(tokens, "must_not_look", lambda _: True)
    for ours, recorded in zip(plain, correlate(a, b, 16), strict=True):
        for name in ("rows", "partners", "mutual", "mask"):
            assert torch.equal(getattr(ours, name), getattr(recorded, name))
        torch.testing.assert_close(ours.cosines, recorded.cosines, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.summary, recorded.summary, atol=1e-5, rtol=0)


@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_matches_are_found_in_single_precision_whatever_the_rest_is_in(
    monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: bool
) -> None:
    a, b = pictures(3, 40, 0), pictures(3, 50, 1)
    plain = correlate(a, b, 16)
    if as_on_a_gpu:
        monkeypatch.setattr(tokens, "must_not_look", lambda _: True)
    with torch.autocast("cpu", torch.bfloat16):
        half = correlate(a, b, 16)
    for ours, beside_half in zip(plain, half, strict=True):
        assert torch.equal(ours.partners, beside_half.partners) and torch.equal(ours.mutual, beside_half.mutual)
        torch.testing.assert_close(ours.cosines, beside_half.cosines, atol=1e-6, rtol=0)


def moved(points: torch.Tensor, zoom: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    return zoom * points @ turn.T + torch.tensor(shift)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    zoom=st.floats(0.7, 1.4),
    angle=st.floats(-1.0, 1.0),
    shift=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_disagreement_of_one_motion_is_that_of_its_turn_and_zoom(
    seed: int, zoom: float, angle: float, shift: tuple[float, float]
) -> None:
    own = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    points = Points(own, moved(own, zoom, angle, shift))
    off, distance = disagreement(points, points)
    expected = (1 + zoom**2 - 2 * zoom * np.cos(angle)) / (1 + zoom**2)  # |u - v|^2 / (|u|^2 + |v|^2), v = zoom * R u
    apart = torch.cdist(own, own) > 0.3
    torch.testing.assert_close(off[apart], torch.full_like(off[apart], expected), atol=2e-3, rtol=0)
    torch.testing.assert_close(distance, distance.transpose(1, 2), atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_disagreement_is_the_same_seen_from_either_picture(seed: int) -> None:
    own, matched = (torch.rand(1, 9, 2, generator=torch.Generator().manual_seed(s)) for s in (seed, seed + 1))
    there, back = (
        disagreement(Points(own, matched), Points(own, matched)),
        disagreement(Points(matched, own), Points(matched, own)),
    )
    for one, other in zip(there, back, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert (there[0] >= 0).all() and (there[0] <= 2 + 1e-4).all()


def test_disagreement_is_not_told_in_half_precision() -> None:
    own = torch.rand(1, 12, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    points = Points(own, own + torch.tensor([0.1, -0.2]))  # one shift: no disagreement at all
    with torch.autocast("cpu", torch.bfloat16):
        off, _ = disagreement(points, points)
    assert off.dtype == torch.float32 and off.max() < 1e-4


def test_support_counts_the_matches_that_move_alike() -> None:
    own = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    matched = own + torch.tensor([0.1, -0.2])
    matched[:, 15:] = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1  # five that do not
    points, weights = Points(own, matched), torch.ones(1, 20)
    weights[:, 14] = 0.0  # counts for nobody, and is counted for all the same
    counts = support(relations(points, points), 0, weights).expm1()[0]
    strict_anywhere = counts[:, 0]
    assert (strict_anywhere[:14] >= 13 - 0.01).all() and strict_anywhere[14] >= 14 - 0.01
    assert (strict_anywhere[15:] < 4).all()
    assert (counts[:, 1::2] <= counts[:, ::2] + 1e-3).all()  # nearby are some of all


def test_relations_are_told_of_both_sides_alike() -> None:
    own, matched = torch.rand(2, 6, 2), torch.rand(2, 6, 2)
    x, y = Points(own, own + 0.1), Points(matched - 0.2, matched)
    there = relations(x, y)
    back = relations(Points(y.matched, y.own), Points(x.matched, x.own))
    torch.testing.assert_close(there, back.transpose(2, 3), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(there[1], (-there[0] / TOLERANCES[0]).exp())


def test_points_in_front_relate_to_nothing_and_support_nothing() -> None:
    points = Points(torch.rand(2, 6, 2), torch.rand(2, 6, 2))
    plain, led = relations(points, points), relations(points.behind(2), points.behind(2), 2)
    assert led.shape == (3, 2, 8, 8)
    assert not led[:, :, :2].any() and not led[..., :2].any()
    torch.testing.assert_close(led[:, :, 2:, 2:], plain)
    weights = torch.rand(2, 6)
    torch.testing.assert_close(support(led, 2, weights), support(plain, 0, weights))
