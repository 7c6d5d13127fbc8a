"""What results depend on besides their input."""

from __future__ import annotations

import platform

import cv2
import faiss
import numpy as np
import torch

from etr_ros import __version__


def versions() -> dict[str, str]:
    """The versions of this package, Python and the libraries that compute, by name."""
    modules = {"torch": torch, "numpy": np, "faiss": faiss, "opencv": cv2}
    libraries = {name: str(module.__version__) for name, module in modules.items()}
    return {"etr_ros": __version__, "python": platform.python_version(), **libraries}
