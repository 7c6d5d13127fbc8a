"""The work of `etr_ros.workers` on the workers of a Dask scheduler. Dask is optional: `pip install distributed`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from etr_ros.errors import ConfigError, DataError
from etr_ros.workers import AHEAD, MAX_DEATHS

T = TypeVar("T")
R = TypeVar("R")

_functions: dict[str, Callable[[Any], Any]] = {}  # of this process, when it is a worker
_lock = threading.Lock()


class DaskPool(Generic[T, R]):
    """Workers of the scheduler at `address`, or with an empty one of a cluster of `workers` processes on this machine.

    Each makes its function once, by `start(*arguments)`. What a worker that dies worked on is worked on again.
    """

    def __init__(
        self, start: Callable[..., Callable[[T], R]], arguments: tuple[Any, ...], address: str, workers: int = 0
    ) -> None:
        self._start, self._arguments, self._address, self._workers = start, arguments, address, workers

    def map(self, items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order.

        Raises ConfigError when Dask is missing or no scheduler answers, DataError when workers die again and again.
        """
        client = self._connect()
        try:
            from distributed import KilledWorker

            width = AHEAD * max(1, sum(client.nthreads().values()))
            waiting: deque[tuple[T, Any]] = deque()
            for item in items:
                waiting.append((item, client.submit(_call, self._start, self._arguments, item, pure=False)))
                if len(waiting) >= width:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except KilledWorker as error:
            raise DataError(
                f"Dask workers died {MAX_DEATHS + 1} times over one picture (killed, or out of memory?)"
            ) from error
        finally:
            client.close()

    def _connect(self) -> Any:
        try:
            import dask
            from distributed import Client
        except ImportError as error:
            raise ConfigError("Dask is not installed: pip install distributed, or use --workers alone") from error
        dask.config.set({"distributed.scheduler.allowed-failures": MAX_DEATHS})
        try:
            if self._address:
                return Client(self._address, timeout="10s")
            return Client(n_workers=self._workers or None, threads_per_worker=1, dashboard_address=None)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no Dask scheduler answers at '{self._address}' ({error}): check --dask") from error


def _call(start: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], item: Any) -> Any:
    key = repr((start, arguments))
    with _lock:
        if key not in _functions:
            _functions[key] = start(*arguments)
    return _functions[key](item)
