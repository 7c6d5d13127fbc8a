"""What is wrong at the moment, for diagnostics and for the log."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from etr_ros.errors import CameraError, EtrError

T = TypeVar("T")

QUIET_S = 30.0


class Problems:
    """One line for each thing that is wrong, under a key. Thread-safe."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._lines: dict[str, tuple[str, float]] = {}  # with the end of its time
        self._unread: set[str] = set()
        self._seen_s: dict[str, float] = {}
        self._new: list[str] = []

    def report(self, key: str, line: str, hold_s: float = math.inf) -> None:
        """Show `line` until it is replaced or cleared, or for `hold_s` seconds (an event), and at least once."""
        with self._lock:
            now_s = self._clock_s()
            self._lines[key] = (line, now_s + hold_s)
            self._unread.add(key)
            if now_s - self._seen_s.get(key, -math.inf) > QUIET_S:
                self._new.append(line)
            self._seen_s[key] = now_s

    def clear(self, key: str) -> None:
        """The problem is over."""
        with self._lock:
            self._lines.pop(key, None)

    def known(self, key: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; None, with the problem reported, when it raises an EtrError."""
        try:
            value = read()
        except EtrError as error:
            self.report(key, str(error))
            return None
        self.clear(key)
        return value

    def lines(self) -> list[str]:
        """All that is wrong now, oldest first."""
        with self._lock:
            now_s, unread = self._clock_s(), self._unread
            kept = {key: each for key, each in self._lines.items() if each[1] > now_s or key in unread}
            self._lines, self._unread = kept, set()
            return [line for line, _ in self._lines.values()]

    def take_new(self) -> list[str]:
        """Lines to log: those of problems that were not there in the last 30 s, each once."""
        with self._lock:
            new, self._new = self._new, []
            return new


@contextmanager
def about(what: str) -> Iterator[None]:
    """Say in front of an error what is missing because of it; raises CameraError."""
    try:
        yield
    except EtrError as error:
        raise CameraError(f"{what}: {error}") from error
