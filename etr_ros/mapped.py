"""Arrays on disk: opened in no time, read row by row, and none of it kept in memory where memory is short."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import MapError

Rows = slice | NDArray[np.int64]


class MappedArrays:
    """The arrays of one folder by file name. Opening reads nothing; `read` copies rows.

    Slices are memory-mapped: what was read stays in memory while there is room. With `keeps_nothing` they are read
    from the files each time, so that the process never holds more than the rows it asked for. Rows that lie apart are
    always read from the files, as mapping each would keep all that surrounds it.
    """

    def __init__(self, folder: Path, keeps_nothing: bool = False) -> None:
        self._folder, self._keeps_nothing = folder, keeps_nothing
        self._shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._mapped: dict[str, NDArray[Any]] = {}
        self._files: dict[str, int] = {}

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def open(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Take the first rows of a file, whatever follows them. Raises MapError for a file that is shorter."""
        path, size = self._folder / name, math.prod(shape) * dtype.itemsize
        self._shapes[name] = dtype, shape
        try:
            if path.stat().st_size < size:
                raise MapError(f"{path} is too short: copy the map whole or build it again")
            self._files[name] = file = os.open(path, os.O_RDONLY)
            if size and not self._keeps_nothing:
                mapped = mmap.mmap(file, size, access=mmap.ACCESS_READ)
                self._mapped[name] = np.frombuffer(mapped, dtype).reshape(shape)
        except OSError as error:
            raise MapError(f"cannot open {path} ({error.strerror}): build the map again") from error

    def rows(self, name: str) -> int:
        """How many rows an array has."""
        return self._shapes[name][1][0]

    def read(self, name: str, rows: Rows) -> NDArray[Any]:
        """A copy of some rows. Raises MapError when the file was cut since it was opened."""
        if not isinstance(rows, slice):
            return self._rows_of_file(name, rows.tolist(), 1)
        if name in self._mapped:
            return self._mapped[name][rows].copy()
        start, stop, _ = rows.indices(self.rows(name))
        return self._rows_of_file(name, [start], max(0, stop - start))

    def _rows_of_file(self, name: str, starts: Sequence[int], count: int) -> NDArray[Any]:
        """`count` rows from each of the `starts` on, one behind the other."""
        dtype, shape = self._shapes[name]
        values = np.empty((len(starts) * count, *shape[1:]), dtype)
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size, into = count * row_bytes, values.reshape(-1).view(np.uint8).data
        for number, start in enumerate(starts):
            if os.preadv(self._files[name], [into[number * size : (number + 1) * size]], start * row_bytes) != size:
                raise MapError(f"{self._folder / name} was cut: copy the map whole or build it again")
        return values
