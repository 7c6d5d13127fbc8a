"""Work in parts on several threads: the same results whatever their number."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import make_features
from etr_ros import shortlist
from etr_ros.etr import ETR, EtrConfig
from etr_ros.rerank import Calibration, EtrScorer
from etr_ros.side_by_side import in_parts


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 12))
def test_results_are_in_order_and_parts_small_and_even(items: list[int], size: int) -> None:
    sizes: list[int] = []

    def work(part: Sequence[int]) -> list[int]:
        sizes.append(len(part))
        return [2 * item for item in part]

    assert in_parts(work, items, size) == [2 * item for item in items]
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1


def test_every_thread_computes_alone_and_the_caller_keeps_its_threads() -> None:
    torch.set_num_threads(3)
    both = threading.Barrier(2, timeout=30)

    def work(part: Sequence[int]) -> list[tuple[int, int]]:
        both.wait()  # the two parts are worked on at the same time
        return [(threading.get_ident(), torch.get_num_threads())]

    (one, of_one), (other, of_other) = in_parts(work, [0, 1], 1)
    assert len({one, other, threading.get_ident()}) == 3
    assert of_one == of_other == 1
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == later[0] == 3


def test_an_error_of_a_part_is_raised() -> None:
    torch.set_num_threads(2)

    def work(part: Sequence[int]) -> list[int]:
        return [1 // item for item in part]

    with pytest.raises(ZeroDivisionError):
        in_parts(work, [1, 0], 1)


def test_scores_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    config = EtrConfig(local_dim=8, max_locals=32, max_tokens=16, width=16, heads=2, ffn_width=16, blocks=1)
    scorer = EtrScorer(ETR(config), Calibration(), torch.device("cpu"))
    query, candidates = make_features(0), [make_features(i, count=60 - i) for i in range(1, 56)]
    scores, promises = [], []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        scores.append(scorer(query, candidates).values.tolist())
        promises.append(shortlist.promise(query, candidates).tolist())
    assert scores[0] == scores[1] == scores[2]
    assert promises[0] == promises[1] == promises[2]
