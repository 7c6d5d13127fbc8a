"""Processes, and Dask, that work on many items: order, and what a killed one does to the result."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from etr_ros.dask_workers import DaskPool
from etr_ros.errors import ConfigError, DataError
from etr_ros.workers import Pool


def start(marker: Path, deaths: int) -> Callable[[int], int]:
    """Squares; the item 5 kills the worker the first `deaths` times."""

    def square(item: int) -> int:
        if item == 5 and len(list(marker.iterdir())) < deaths:
            (marker / str(len(list(marker.iterdir())))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    return square


@pytest.mark.parametrize(("workers", "deaths"), [(1, 0), (3, 0), (1, 1), (2, 2)])
def test_results_come_in_order_once_each_whatever_dies(tmp_path: Path, workers: int, deaths: int) -> None:
    pool: Pool[int, int] = Pool(start, (tmp_path, deaths), workers)
    assert list(pool.map(range(20))) == [(i, i * i) for i in range(20)]
    assert len(list(tmp_path.iterdir())) == deaths


def test_an_item_that_kills_every_worker_is_an_error(tmp_path: Path) -> None:
    pool: Pool[int, int] = Pool(start, (tmp_path, 1000), 1)
    done = []
    with pytest.raises(DataError, match=r"died 4 times over one picture .* fewer --workers"):
        done.extend(pool.map(range(20)))
    assert done == [(i, i * i) for i in range(5)] and len(list(tmp_path.iterdir())) == 4


def test_no_items() -> None:
    pool: Pool[int, int] = Pool(start, (Path(), 0), 2)
    assert list(pool.map([])) == []


def test_dask_gives_the_same_results_whatever_dies(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pool: DaskPool[int, int] = DaskPool(start, (tmp_path, 1), "", 2)
    assert list(pool.map(range(20))) == [(i, i * i) for i in range(20)]
    assert len(list(tmp_path.iterdir())) == 1


def test_dask_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    pool: DaskPool[int, int] = DaskPool(start, (tmp_path, 0), "", 1)
    with pytest.raises(ConfigError, match="Dask is not installed: pip install distributed"):
        list(pool.map(range(3)))


def test_a_scheduler_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    pool: DaskPool[int, int] = DaskPool(start, (tmp_path, 0), "tcp://nowhere:8786")
    with pytest.raises(
        ConfigError, match=r"no Dask scheduler answers at 'tcp://nowhere:8786' \(timed out\): check --dask"
    ):
        list(pool.map(range(3)))
