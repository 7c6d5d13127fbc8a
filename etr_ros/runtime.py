"""A network of convolutions in OpenVINO, where that is installed: the same maps as PyTorch's in two thirds of its time.

OpenVINO reads the network from PyTorch, which takes two seconds; what it read is kept in the user's cache. Whatever is
kept must give what PyTorch gives, else it is made anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import tempfile
import threading
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from etr_ros.errors import ConfigError
from etr_ros.weights import cache_dir

if TYPE_CHECKING:
    from openvino import Model

KEPT_SIZES = 4  # sizes of pictures that the network stays compiled for
TOLERANCE = 1e-3  # of the largest value of a map
PYTORCH = "PyTorch"
_MEMBERS = "model.xml", "model.bin"
_log = logging.getLogger(__name__)


def compiled(network: nn.Module, wish: str, key: str) -> OpenVinoMaps | None:
    """`network`, which maps (B, 3, H, W) on a CPU to a tuple of maps, in OpenVINO; None where it stays in PyTorch.

    `wish` is `compute.runtime`; `key` is a hash of the weights. Raises ConfigError when OpenVINO is asked for by name
    and not installed. Where it fails, a warning is logged.
    """
    if wish == "torch":
        return None
    if not is_installed():
        if wish == "openvino":
            raise ConfigError("compute.runtime is openvino, which is not installed: pip install openvino, or use auto")
        return None
    try:
        return _checked(network, key)
    except Exception as error:  # of a foreign library, on a processor that we do not know
        _log.warning("the extractor runs in PyTorch, as OpenVINO failed: %s", _first_line(error))
        return None


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoMaps:
    """Calls a network in OpenVINO, compiled for each size of pictures that comes; goes on in PyTorch if that fails."""

    def __init__(self, model: Model, network: nn.Module) -> None:
        import openvino

        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self._model, self._network = model, network
        self._core = openvino.Core()
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._alone = threading.Lock()

    def __call__(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Maps of `rgb` (B, 3, H, W) float32."""
        if self.name != PYTORCH:
            try:
                return self.infer(rgb)
            except RuntimeError as error:
                self.name = PYTORCH
                _log.warning("the extractor goes on in PyTorch, as OpenVINO failed: %s", _first_line(error))
        return self._network(rgb)  # type: ignore[no-any-return]

    def infer(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """As a call. Raises RuntimeError when OpenVINO fails."""
        pixels = rgb.permute(0, 2, 3, 1).contiguous().numpy()
        with self._alone:
            maps = self._request(pixels.shape).infer({0: pixels}, share_inputs=True)
            return tuple(torch.from_numpy(maps[i]).permute(0, 3, 1, 2) for i in range(len(maps)))

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            settings = {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,  # other processes want these cores too
            }
            self._requests[shape] = self._core.compile_model(model, "CPU", settings).create_infer_request()
        self._requests.move_to_end(shape)
        if len(self._requests) > KEPT_SIZES:
            self._requests.popitem(last=False)
        return self._requests[shape]


def _checked(network: nn.Module, key: str) -> OpenVinoMaps:
    """From the cache or made anew. Raises RuntimeError when OpenVINO's maps are not those of PyTorch."""
    import openvino

    versions = f"{key} {openvino.__version__} {torch.__version__}"
    kept = cache_dir() / "openvino" / f"{hashlib.sha256(versions.encode()).hexdigest()[:16]}.zip"
    if (model := _read(kept)) is not None:
        maps = OpenVinoMaps(model, network)
        if _agrees(maps, network):
            return maps
    model = _convert(network)
    maps = OpenVinoMaps(model, network)
    if not _agrees(maps, network):
        raise RuntimeError("its maps are not those of PyTorch")
    _keep(model, kept)
    return maps


def _agrees(maps: OpenVinoMaps, network: nn.Module) -> bool:
    rgb = torch.rand(1, 96, 160, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        pairs = list(zip(maps.infer(rgb), network(rgb), strict=True))
    return all(a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * b.abs().max()) for a, b in pairs)


def _convert(network: nn.Module) -> Model:
    import openvino

    example = torch.rand(1, 128, 192, 3)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        any_size = openvino.PartialShape([-1, -1, -1, 3])
        return openvino.convert_model(_ChannelsLast(network).eval(), example_input=example, input=[any_size])


class _ChannelsLast(nn.Module):
    """Takes pictures and gives maps as they lie in memory: (B, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Any:
        return tuple(each.permute(0, 2, 3, 1) for each in self.network(pixels.permute(0, 3, 1, 2)))


def _read(path: Path) -> Model | None:
    """The model that was kept in a file, or None when there is none or it is damaged."""
    import openvino

    try:
        with zipfile.ZipFile(path) as file:
            xml, weights = (file.read(name) for name in _MEMBERS)
        data = openvino.Tensor(np.frombuffer(weights, np.uint8).copy())
        return openvino.Core().read_model(xml, data)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
        return None


def _keep(model: Model, path: Path) -> None:
    """Write a model for `_read`, or nothing where that is not possible."""
    import openvino

    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(draft, "w") as file:
            openvino.save_model(model, Path(folder, _MEMBERS[0]), compress_to_fp16=False)
            for name in _MEMBERS:
                file.write(Path(folder, name), name)
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        _log.info("the network that OpenVINO read is not kept: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
