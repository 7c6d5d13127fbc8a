"""Memory-mapped arrays: what is read, and that no more stays in memory than the ceiling allows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from etr_ros.errors import MapError
from etr_ros.mapped import MappedArrays


def test_rows_are_read_as_written_and_what_follows_is_left_alone(tmp_path: Path) -> None:
    values = np.arange(1000, dtype="<f4").reshape(100, 10)
    (tmp_path / "a.f32").write_bytes(values.tobytes() + b"interrupted")
    for keeps_nothing in (False, True):
        arrays = MappedArrays(tmp_path, keeps_nothing)
        arrays.open("a.f32", np.dtype("<f4"), (100, 10))
        assert arrays.rows("a.f32") == 100
        np.testing.assert_array_equal(arrays.read("a.f32", slice(3, 5)), values[3:5])
        np.testing.assert_array_equal(arrays.read("a.f32", np.array([99, 0, 99])), values[[99, 0, 99]])
        np.testing.assert_array_equal(arrays.read("a.f32", slice(None)), values)


def test_an_array_without_rows_needs_no_file_content(tmp_path: Path) -> None:
    (tmp_path / "a.u8").write_bytes(b"")
    arrays = MappedArrays(tmp_path)
    arrays.open("a.u8", np.dtype("u1"), (0,))
    assert arrays.read("a.u8", slice(0, 0)).shape == (0,)


def test_a_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.u8").write_bytes(b"12")
    with pytest.raises(MapError, match=r"a\.u8"):
        MappedArrays(tmp_path).open("a.u8", np.dtype("u1"), (3,))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the memory figures of Linux")
def test_nothing_is_kept_when_asked(tmp_path: Path) -> None:
    """32 MB are read at random."""
    rows, row_bytes = 32768, 1024
    (tmp_path / "a.u8").write_bytes(os.urandom(row_bytes) * rows)
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from etr_ros.mapped import MappedArrays

        def resident():
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

        folder, keeps_nothing, rows, row_bytes = Path(sys.argv[1]), *map(int, sys.argv[2:])
        arrays = MappedArrays(folder, bool(keeps_nothing))
        arrays.open("a.u8", np.dtype("u1"), (rows, row_bytes))
        rng = np.random.default_rng(0)
        arrays.read("a.u8", np.arange(3))
        before, most = resident(), 0
        for _ in range(100):
            arrays.read("a.u8", np.sort(rng.integers(0, rows, 200)))
            start = int(rng.integers(0, rows - 60))
            arrays.read("a.u8", slice(start, start + 60))
            most = max(most, resident() - before)
        print(most)
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    most = [
        int(subprocess.check_output([sys.executable, "-c", script, tmp_path, *map(str, row)], env=environment))
        for row in ((1, rows, row_bytes), (0, rows, row_bytes))
    ]
    assert most[0] < 3_000_000 and most[1] > 10_000_000


def test_a_file_that_was_cut_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.u8").write_bytes(b"12345678")
    arrays = MappedArrays(tmp_path, keeps_nothing=True)
    arrays.open("a.u8", np.dtype("u1"), (8,))
    os.truncate(tmp_path / "a.u8", 4)
    with pytest.raises(MapError, match=r"a\.u8 was cut"):
        arrays.read("a.u8", slice(2, 6))
