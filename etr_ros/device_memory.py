"""When a GPU has no memory for a batch: smaller batches, then the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches_that_fit(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], to_cpu: Callable[[], None], what: str
) -> list[Result]:
    """`work` on all items; in halves when the device runs out of memory; when one alone is too much, on the CPU.

    `to_cpu` moves the networks of `work` there for good; a RuntimeWarning then says so of `what`, once.
    """
    try:
        return work(items)
    except torch.cuda.OutOfMemoryError:
        pass  # what the failed work holds is let go of before it is tried again
    torch.cuda.empty_cache()
    if len(items) > 1:
        half = len(items) // 2
        first = in_batches_that_fit(work, items[:half], to_cpu, what)
        return first + in_batches_that_fit(work, items[half:], to_cpu, what)
    to_cpu()
    warnings.warn(f"the GPU has no memory left: {what} goes on on the CPU, slower", RuntimeWarning, stacklevel=2)
    return work(items)
