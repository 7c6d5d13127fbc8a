"""The part of `etr_ros.config` that says where the networks run."""

from __future__ import annotations

from dataclasses import dataclass

from etr_ros.options import option


@dataclass(frozen=True)
class ComputeConfig:
    """Where the networks run."""

    device: str = option(
        "auto", "Device of the networks; auto takes CUDA when there is one", choices=("auto", "cpu", "cuda")
    )
    threads: int = option(0, "CPU threads of the networks; 0 takes one per core", low=0, high=256)
    runtime: str = option(
        "auto",
        "What runs XFeat and SuperPoint on a CPU; auto takes OpenVINO where installed; features differ by rounding",
        choices=("auto", "torch", "openvino"),
    )
