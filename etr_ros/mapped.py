"""Arrays on disk: opened in no time, read row by row, and none of it kept in memory where memory is short."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import MapError

Rows = slice | NDArray[np.int64]


class MappedArrays:
    """The arrays of one folder by file name. Opening reads nothing; `read` copies rows.

    They are memory-mapped: what was read stays in memory while there is room. With `keeps_nothing` they are read
    from the files each time, so that the process never holds more than the rows it asked for.
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
            if not size:
                self._mapped[name] = np.empty(shape, dtype)
            elif self._keeps_nothing:
                self._files[name] = os.open(path, os.O_RDONLY)
            else:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                self._mapped[name] = np.frombuffer(mapped, dtype).reshape(shape)
        except OSError as error:
            raise MapError(f"cannot open {path} ({error.strerror}): build the map again") from error

    def rows(self, name: str) -> int:
        """How many rows an array has."""
        return self._shapes[name][1][0]

    def read(self, name: str, rows: Rows) -> NDArray[Any]:
        """A copy of some rows. Raises MapError when the file was cut since it was opened."""
        if name in self._mapped:
            found = self._mapped[name][rows]
            return found.copy() if isinstance(rows, slice) else found  # single rows are copied already
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.rows(name))
            return self._rows_of_file(name, start, max(0, stop - start))
        dtype, shape = self._shapes[name]
        values = np.empty((len(rows), *shape[1:]), dtype)
        for number, row in enumerate(rows.tolist()):
            values[number] = self._rows_of_file(name, row, 1)[0]
        return values

    def _rows_of_file(self, name: str, start: int, count: int) -> NDArray[Any]:
        dtype, shape = self._shapes[name]
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        data = os.pread(self._files[name], count * row_bytes, start * row_bytes)
        if len(data) != count * row_bytes:
            raise MapError(f"{self._folder / name} was cut: copy the map whole or build it again")
        return np.frombuffer(data, dtype).reshape(count, *shape[1:])
