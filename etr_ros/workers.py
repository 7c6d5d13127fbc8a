"""Work on many items at once, with the results in the order of the items."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from etr_ros.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3  # items for each worker that are read before the first result is taken
MAX_DEATHS = 3  # workers that may die on one item before it is given up

_function: Callable[[Any], Any] | None = None  # of this process, when it is a worker


@dataclass
class _Task(Generic[T, R]):
    item: T
    future: Future[R]
    deaths: int = field(default=0)


class Pool(Generic[T, R]):
    """Processes of this machine, each with a function of its own that `start(*arguments)` made once.

    All of it must be importable by a new process. A worker that dies (killed, or out of memory) is replaced, and what
    it worked on is worked on again: no result is lost or comes twice.
    """

    def __init__(self, start: Callable[..., Callable[[T], R]], arguments: tuple[Any, ...], workers: int) -> None:
        self._start, self._arguments, self._workers = start, arguments, workers

    def map(self, items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order. Raises DataError when workers die again and again on one item."""
        waiting: deque[_Task[T, R]] = deque()
        self._pool = self._new_pool()
        try:
            for item in items:
                waiting.append(_Task(item, self._submit(item)))
                if len(waiting) >= AHEAD * self._workers:
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _first(self, waiting: deque[_Task[T, R]]) -> tuple[T, R]:
        first = waiting[0]
        while isinstance(error := first.future.exception(), BrokenProcessPool):
            first.deaths += 1
            if first.deaths > MAX_DEATHS:
                raise DataError(
                    f"worker processes died {first.deaths} times over one picture (killed, or out of memory?): "
                    "use fewer --workers"
                ) from error
            self._start_again(waiting)
        waiting.popleft()
        return first.item, first.future.result()

    def _start_again(self, waiting: Iterable[_Task[T, R]]) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._new_pool()
        for task in waiting:
            future = task.future
            if not future.done() or future.cancelled() or future.exception() is not None:
                task.future = self._submit(task.item)

    def _submit(self, item: T) -> Future[R]:
        try:
            return self._pool.submit(_run, item)
        except BrokenProcessPool as error:  # told when the result is asked for
            future: Future[R] = Future()
            future.set_exception(error)
            return future

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, context, initializer=_begin, initargs=(self._start, self._arguments))


def _begin(start: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _function  # noqa: PLW0603
    _function = start(*arguments)


def _run(item: Any) -> Any:
    if _function is None:
        raise RuntimeError("this process is no worker")
    return _function(item)
