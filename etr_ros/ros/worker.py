"""One thread for the inference: it always takes the newest item, older ones that still wait are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass
class _Job(Generic[Item, Answer]):
    item: Item
    asked: list[Future[Answer]] = field(default_factory=list)


class NewestWorker(Generic[Item, Answer]):
    """Calls `work` on the newest item offered, on a thread of its own, until stopped.

    `failed` is called on that thread with whatever `work` raises; the thread lives on.
    """

    def __init__(self, work: Callable[[Item], Answer], failed: Callable[[Exception], None]) -> None:
        self.dropped = 0
        self._work, self._failed = work, failed
        self._wake = threading.Condition()
        self._waiting: _Job[Item, Answer] | None = None
        self._asked: list[Future[Answer]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Work on `item` next, instead of any item that still waits."""
        with self._wake:
            job = _Job[Item, Answer](item, self._asked)
            self._asked = []
            if self._waiting is not None:
                self.dropped += 1
                job.asked += self._waiting.asked
            self._waiting = job
            self._wake.notify()

    def next_answer(self) -> Future[Answer]:
        """The answer to the next item that will be offered, or to a newer one that takes its place.

        The future raises what `work` raised, and is cancelled when the worker is stopped.
        """
        future: Future[Answer] = Future()
        with self._wake:
            if self._stopping:
                future.cancel()
            else:
                self._asked.append(future)
        return future

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for the next item to be offered."""
        with self._wake:
            return any(not future.cancelled() for future in self._asked)

    def stop(self) -> None:
        """End the thread after the item it works on, and cancel all answers that are still awaited."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        for future in self._asked + (self._waiting.asked if self._waiting else []):
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping or self._waiting is None:
                    return
                job, self._waiting = self._waiting, None
            self._answer(job)

    def _answer(self, job: _Job[Item, Answer]) -> None:
        try:
            answer = self._work(job.item)
        except Exception as error:  # one bad item must not end the thread
            self._failed(error)
            for future in _still_wanted(job):
                future.set_exception(error)
        else:
            for future in _still_wanted(job):
                future.set_result(answer)


def _still_wanted(job: _Job[Item, Answer]) -> list[Future[Answer]]:
    return [future for future in job.asked if future.set_running_or_notify_cancel()]
