"""The authors' TensorFlow release of DELG -> weights of `DelgR50` or `DelgR101`.

The release is a SavedModel; where TensorFlow is installed, its variables become an .npz file with

    import numpy as np, tensorflow as tf
    reader = tf.train.load_checkpoint("r50delg_gldv2clean_20200914/variables/variables")
    arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    np.savez("delg.npz", **{name: array for name, array in arrays.items() if array.dtype == np.float32})

The trunk is found by the variable names of TF-Slim's ResNet v1, the heads by the shapes of their kernels, which occur
once; what only the training needs (decoder, classifiers, optimiser) is left out.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import weights
from etr_ros.errors import WeightsError
from etr_ros.features.delg import Delg, DelgR50, DelgR101

_NETWORKS: dict[str, tuple[str, Callable[[], Delg]]] = {
    "resnet_v1_50": ("delg-r50", DelgR50),
    "resnet_v1_101": ("delg-r101", DelgR101),
}
_HEAD_KERNELS = {  # ours -> input and output channels
    "attention.conv1": (1024, 512),
    "attention.conv2": (512, 1),
    "reduction": (1024, 128),
    "whitening": (2048, 2048),
}
_NORM_VARIABLES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_SLIM_BATCH_NORM_EPS = 1e-5
_GEM_POWER = 3.0


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file. Raises WeightsError when it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not an .npz file of plain arrays: {error}") from error


def convert(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, dict[str, Tensor]]:
    """The registered name ("delg-r50" or "delg-r101") of what the variables are, and its state dict.

    Raises WeightsError when a variable is missing, ambiguous or of the wrong shape.
    """
    arrays = {name.removesuffix(":0"): array for name, array in arrays.items()}
    trunk = _trunk_scope(arrays)
    name, network = _NETWORKS[trunk.rsplit("/", 1)[-1]]
    with torch.device("meta"):
        expected = network().state_dict()
    state = {"gem.p": torch.tensor(_GEM_POWER)}
    for ours in expected:
        if ours.endswith("num_batches_tracked"):
            state[ours] = torch.tensor(0)
        elif ours.startswith("backbone."):
            state[ours] = _tensor(arrays, f"{trunk}/{_slim_name(ours.removeprefix('backbone.'))}")
    for ours, channels in _HEAD_KERNELS.items():
        state[f"{ours}.weight"], state[f"{ours}.bias"] = _head(arrays, trunk, channels)
    state["whitening.weight"] = state["whitening.weight"].flatten(1)
    for ours, tensor in state.items():
        if tensor.shape != expected[ours].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[ours].shape)}"
            raise WeightsError(f"the variable that becomes '{ours}' has the shape {shapes}")
    return name, state


def convert_file(arrays_path: Path, output: Path) -> str:
    """Convert an .npz file into a .safetensors file; the registered name of what it holds. Raises WeightsError."""
    name, state = convert(read_arrays(arrays_path))
    try:
        weights.save_tensors(output, state)
    except OSError as error:
        raise WeightsError(f"cannot write {output}: {error}") from error
    return name


def _trunk_scope(arrays: Mapping[str, NDArray[Any]]) -> str:
    for name in arrays:
        if match := re.fullmatch(r"((?:.*/)?resnet_v1_(?:50|101))/conv1/weights", name):
            return match[1]
    raise WeightsError("no variable 'resnet_v1_50/conv1/weights' or 'resnet_v1_101/conv1/weights': not a DELG release")


def _slim_name(ours: str) -> str:
    """`layer3.5.bn2.running_var` -> `block3/unit_6/bottleneck_v1/conv2/BatchNorm/moving_variance`."""
    *modules, variable = ours.split(".")
    if modules[0].startswith("layer"):
        block, unit = modules[0].removeprefix("layer"), int(modules[1]) + 1
        modules = [f"block{block}", f"unit_{unit}", "bottleneck_v1", *modules[2:]]
    *scope, last = modules
    if last.isdigit():  # downsample.0 is the convolution, downsample.1 its norm
        scope, is_norm = [*scope[:-1], "shortcut"], last == "1"
    else:
        scope, is_norm = [*scope, last.replace("bn", "conv")], last.startswith("bn")
    if not is_norm:
        return "/".join([*scope, "weights"])
    theirs = next(theirs for theirs, name in _NORM_VARIABLES.items() if name == variable)
    return "/".join([*scope, "BatchNorm", theirs])


def _tensor(arrays: Mapping[str, NDArray[Any]], name: str) -> Tensor:
    """A variable in the axis order of PyTorch: output channels first."""
    if name not in arrays:
        raise WeightsError(f"the variable '{name}' is missing")
    array = np.asarray(arrays[name], np.float32)
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, tuple(range(array.ndim)))
    return torch.from_numpy(np.ascontiguousarray(array.transpose(order)))


def _head(arrays: Mapping[str, NDArray[Any]], trunk: str, channels: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer outside of the trunk with these channels, its batch norm folded in."""
    found = [
        name
        for name, array in arrays.items()
        if name.endswith(("/weights", "/kernel")) and array.shape in (channels, (1, 1, *channels))
        if not name.startswith(f"{trunk}/")
    ]
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise WeightsError(f"one kernel of {channels[0]} -> {channels[1]} channels is needed, there is: {names}")
    scope = found[0].rsplit("/", 1)[0]
    weight = _tensor(arrays, found[0])
    bias = torch.zeros(channels[1])
    for name in (f"{scope}/biases", f"{scope}/bias"):
        if name in arrays:
            bias = _tensor(arrays, name)
    if f"{scope}/BatchNorm/moving_mean" in arrays:
        gamma, beta, mean, variance = (_tensor(arrays, f"{scope}/BatchNorm/{name}") for name in _NORM_VARIABLES)
        scale = gamma / (variance + _SLIM_BATCH_NORM_EPS).sqrt()
        weight, bias = weight * scale.view(-1, *[1] * (weight.dim() - 1)), (bias - mean) * scale + beta
    return weight, bias
