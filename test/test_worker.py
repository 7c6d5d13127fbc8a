"""The inference thread: newest item first, drops counted, nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from etr_ros.ros.worker import NewestWorker

TIMEOUT_S = 10.0


class Desk:
    """Work that stands still until told to go on, so that tests need no sleep."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.errors: list[Exception] = []
        self._at_work = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)
        self.worker = NewestWorker(self._work, self.errors.append)

    def _work(self, item: int) -> int:
        self.begun.append(item)
        self._at_work.release()
        assert self._go_on.acquire(timeout=TIMEOUT_S)
        if item < 0:
            raise ValueError(item)
        return 10 * item

    def wait_until_at_work(self) -> None:
        assert self._at_work.acquire(timeout=TIMEOUT_S)

    def go_on(self, times: int = 1) -> None:
        for _ in range(times):
            self._go_on.release()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.go_on(10)
    desk.worker.stop()


def test_newest_item_is_next_and_others_are_dropped(desk: Desk) -> None:
    desk.worker.offer(1)
    desk.wait_until_at_work()
    for item in (2, 3, 4):
        desk.worker.offer(item)
    answer = desk.worker.next_answer()
    desk.worker.offer(5)
    desk.go_on(2)
    assert answer.result(TIMEOUT_S) == 50
    assert desk.begun == [1, 5]
    assert desk.worker.dropped == 3


def test_answer_is_to_the_next_item_not_to_the_one_at_work(desk: Desk) -> None:
    desk.worker.offer(1)
    desk.wait_until_at_work()
    assert not desk.worker.is_asked
    answer = desk.worker.next_answer()
    assert desk.worker.is_asked
    desk.worker.offer(2)
    assert not desk.worker.is_asked
    desk.go_on(2)
    assert answer.result(TIMEOUT_S) == 20


def test_answer_moves_on_when_its_item_is_dropped(desk: Desk) -> None:
    desk.worker.offer(1)
    desk.wait_until_at_work()
    answer = desk.worker.next_answer()
    desk.worker.offer(2)
    desk.worker.offer(3)
    desk.go_on(2)
    assert answer.result(TIMEOUT_S) == 30


def test_error_reaches_the_asker_and_the_thread_lives_on(desk: Desk) -> None:
    bad = desk.worker.next_answer()
    desk.worker.offer(-1)
    desk.go_on()
    with pytest.raises(ValueError, match="-1"):
        bad.result(TIMEOUT_S)
    assert [str(error) for error in desk.errors] == ["-1"]
    good = desk.worker.next_answer()
    desk.worker.offer(2)
    desk.go_on()
    assert good.result(TIMEOUT_S) == 20


def test_who_gave_up_is_not_waited_for(desk: Desk) -> None:
    answer = desk.worker.next_answer()
    answer.cancel()
    assert not desk.worker.is_asked
    desk.worker.offer(1)
    desk.go_on()
    desk.worker.offer(2)
    last = desk.worker.next_answer()
    desk.worker.offer(3)
    desk.go_on(2)
    assert last.result(TIMEOUT_S) == 30


def test_stop_cancels_what_is_awaited(desk: Desk) -> None:
    desk.worker.offer(1)
    desk.wait_until_at_work()
    waiting = desk.worker.next_answer()
    desk.worker.offer(2)
    unheard = desk.worker.next_answer()
    desk.go_on()
    desk.worker.stop()
    late = desk.worker.next_answer()
    for future in (waiting, unheard, late):
        with pytest.raises(CancelledError):
            future.result(TIMEOUT_S)
