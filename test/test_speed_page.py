"""The page of the speed benchmark: growth, shares of the ceilings, and what counts as slower."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import speed_page
from benchmarks.machine import Machine
from benchmarks.speed_stages import Bench, Row

MACHINE = Machine("a processor", 2, 100.0, 80.0, 10.0)
ROWS = [
    Row("extraction", "xfeat 320x240", 10.0, 12.0, 5, 1e9, 1e6),
    Row("extraction", "xfeat 640x480", 40.0, 44.0, 5, 4e9, 4e6),
    Row("re-ranking", "magsac top 20", 60.0, 70.0, 5),
    Row("re-ranking", "magsac top 100", 300.0, 310.0, 5),
    Row("re-ranking", "etr-s top 20", 10.0, 11.0, 5),
]


def test_the_table_tells_shares_of_the_ceilings_ratios_and_growth() -> None:
    table = speed_page.table(MACHINE, ROWS)
    assert "| extraction | xfeat 640x480 | 40 | 44 | 4 | 100 % | 4 | 1 % |  |" in table
    assert "| re-ranking | etr-s top 20 | 10 | 11 |  |  |  |  | 6 |" in table
    assert "xfeat with pixels 1.00" in table
    assert "magsac with candidates 1.00" in table


def test_slower_is_measured_in_matrix_products_of_each_machine() -> None:
    before = {"machine": dataclasses.asdict(MACHINE), "rows": [dataclasses.asdict(row) for row in ROWS]}
    assert speed_page.compare(MACHINE, ROWS, before, 1.3) == []
    faster = dataclasses.replace(MACHINE, gemm_gflops=200.0)  # and yet the same times
    assert len(speed_page.compare(faster, ROWS, before, 1.3)) == len(ROWS)
    slower = [dataclasses.replace(ROWS[0], median_ms=14.0), *ROWS[1:]]
    assert speed_page.compare(MACHINE, slower, before, 1.3) == ["xfeat 320x240: 1.40 times"]


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{speed_page.BEGIN}\nold\n{speed_page.END}\nafter\n")
    for _ in range(2):
        speed_page.write(tmp_path, MACHINE, ROWS, {"none": 0.3, "magsac": 0.5, "etr-s": 0.6})
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("magsac top 100") == 1
    assert json.loads((tmp_path / "speed.json").read_text())["recall_at_1"]["etr-s"] == pytest.approx(0.6)
    assert "<svg" in (tmp_path / "speed.svg").read_text()


def test_rounds_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    times = Bench(rounds=2, seconds=10).in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")})
    assert calls == ["a", "b"] * 3
    assert [len(each) for each in times.values()] == [2, 2]
