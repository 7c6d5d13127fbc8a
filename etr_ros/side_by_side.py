"""Small networks on several processor cores: each thread takes a part of the work and computes it alone.

The other way, all threads on every operator, makes each of hundreds of tiny operators wait for the slowest thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def in_parts(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], size: int) -> list[R]:
    """`work` on equal parts of the items, of at most `size`, by as many threads as torch may use; all results in order.

    The parts do not depend on the number of threads, so neither do the results. An error of one part is raised.
    """
    count = max(1, -(-len(items) // size))
    bounds = [len(items) * i // count for i in range(count + 1)]
    parts = [items[start:stop] for start, stop in pairwise(bounds)]
    threads = torch.get_num_threads()
    done = map(work, parts) if threads < 2 else _pool(threads).map(work, parts)
    return [result for of_part in done for result in of_part]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads of which each computes alone."""
    pool = ThreadPoolExecutor(threads, "etr", initializer=_compute_alone)
    all_there = Barrier(threads)
    list(pool.map(lambda _: all_there.wait(), range(threads)))
    torch.set_num_threads(threads)  # what a thread sets for itself, new threads take over; those here keep theirs
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # takes over what other threads use; after that the thread's own number counts
    torch.set_num_threads(1)
