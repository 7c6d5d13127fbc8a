"""What this machine can do at best, measured: matrix products, convolutions, copies."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

SECONDS, ROUNDS = 1.0, 3  # that each ceiling is measured for, and how often in turn, as other processes come and go


@dataclass(frozen=True)
class Machine:
    """Ceilings: operations (a multiply-add counts as two) and bytes (read and written) per second."""

    processor: str
    threads: int
    gemm_gflops: float
    convolution_gflops: float
    copy_gb_s: float

    @staticmethod
    @torch.inference_mode()
    def measure(threads: int) -> Machine:
        """The best of some seconds each: float32, as the networks compute on a CPU."""
        torch.set_num_threads(threads)
        a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
        picture = torch.randn(1, 128, 60, 80).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)
        source, target = torch.randn(32 << 20), torch.empty(32 << 20)
        works = lambda: a @ b, lambda: F.conv2d(picture, kernel, padding=1), lambda: target.copy_(source)
        gemm_s, convolution_s, copy_s = map(
            min, zip(*([_best_s(work) for work in works] for _ in range(ROUNDS)), strict=True)
        )
        return Machine(
            _processor(),
            threads,
            2 * 1024**3 / gemm_s / 1e9,
            2 * 9 * 128 * 128 * 60 * 80 / convolution_s / 1e9,
            2 * source.nbytes / copy_s / 1e9,
        )


def _best_s(work: Callable[[], object]) -> float:
    best, end_s = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end_s or best == float("inf"):
        start_s = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start_s)
    return best


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
