"""Threads of the networks leave the processor to others while they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

VARIABLES = {"OMP_WAIT_POLICY": ("PASSIVE", "ACTIVE"), "OPENBLAS_NUM_THREADS": ("1", "2")}


@pytest.mark.parametrize("variable", list(VARIABLES))
def test_waiting_threads_leave_the_cores_unless_the_user_says_otherwise(variable: str) -> None:
    ours, others = VARIABLES[variable]
    for given, used in ((None, ours), (others, others)):
        environment = {name: value for name, value in os.environ.items() if name != variable}
        environment |= {} if given is None else {variable: given}
        show = [sys.executable, "-c", f"import etr_ros, os; print(os.environ['{variable}'])"]
        done = subprocess.run(show, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == used
