"""Matches and the summary that tokens are made of, against a slow and plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import tokens
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
def test_what_an_export_records_computes_the_same(monkeypatch: pytest.MonkeyPatch, hidden: int) -> None:
    a, b = pictures(3, 40, 0), pictures(3, 50, 1, hidden)
    plain = correlate(a, b, 16)
    monkeypatch.setattr(tokens, "is_traced", lambda: True)
    for ours, recorded in zip(plain, correlate(a, b, 16), strict=True):
        for name in ("rows", "partners", "mutual", "mask"):
            assert torch.equal(getattr(ours, name), getattr(recorded, name))
        torch.testing.assert_close(ours.cosines, recorded.cosines, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.summary, recorded.summary, atol=1e-5, rtol=0)
