"""Threads of the networks leave the processor to others while they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINT_POLICY = "import etr_ros, os; print(os.environ['OMP_WAIT_POLICY'])"


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_POLICY], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == used
