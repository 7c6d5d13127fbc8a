"""A picture in, its features out: resizing, the local network, the global descriptor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etr_ros import runtime, weights
from etr_ros.config import Config, ExtractorConfig
from etr_ros.database import FeatureSpec
from etr_ros.device_memory import in_batches_that_fit
from etr_ros.errors import ConfigError, ImageError
from etr_ros.features.base import LocalNetwork, freeze, half_on_cuda
from etr_ros.features.delg import DelgLite, DelgR50, DelgR101
from etr_ros.features.global_descriptor import GLOBAL_HEADS, GlobalHead
from etr_ros.features.superpoint import SuperPoint
from etr_ros.features.xfeat import XFeat
from etr_ros.types import Features

LOCAL_NETWORKS: dict[str, type[LocalNetwork]] = {
    "xfeat": XFeat,
    "superpoint": SuperPoint,
    "delg-lite": DelgLite,
    "delg-r50": DelgR50,
    "delg-r101": DelgR101,
}
FOR_RUNTIMES = ("xfeat", "superpoint")  # all their work is in `forward`
MIN_KEYPOINTS = 8
MIN_CONTRAST = 2.0  # standard deviation of the pixels; below it a detector only finds its own noise
MIN_SIDE_PX = 32
TRUNK = "backbone."  # names of a trunk's tensors begin so


class Extractor:
    """Computes the features of pictures with one configuration."""

    def __init__(self, network: LocalNetwork, head: GlobalHead, spec: FeatureSpec, device: torch.device) -> None:
        self.network = network
        self.head = freeze(head).to(device)
        self.spec, self.device = spec, device

    @property
    def runtime(self) -> str:
        """What runs the local network."""
        return runtime.PYTORCH if self.network.compiled is None else self.network.compiled.name

    @staticmethod
    def load(config: Config) -> Extractor:
        """Build the networks of `config` and load their weights.

        Raises WeightsError when a weight file is missing or wrong, ConfigError when there is no such device.
        """
        extractor = config.extractor
        network, device, local_files = load_network(config)
        if device.type == "cpu" and extractor.name in FOR_RUNTIMES:
            network.compiled = runtime.compiled(network, config.compute.runtime, weights.fingerprint(local_files[0]))
        head, head_files = load_head(extractor, network)
        spec = FeatureSpec(
            extractor=extractor.name,
            global_descriptor=head.name,
            max_keypoints=extractor.max_keypoints,
            max_side_px=extractor.max_side_px,
            local_dim=network.descriptor_dim,
            global_dim=head.dim,
            weights=fingerprint([*local_files, *head_files]),
        )
        return Extractor(network, head, spec, device)

    def __call__(self, image: NDArray[np.uint8]) -> Features:
        """Features of one (H, W, 3) BGR picture. Raises ImageError when it is too small or shows too little."""
        return self.batch([image])[0]

    @torch.inference_mode()
    def batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """Features of pictures of one common size. Raises ImageError for the first one that cannot be used."""
        height, width = images[0].shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            raise ImageError(f"a picture of {width}x{height} is too small: {MIN_SIDE_PX} pixels a side are needed")
        for image in images:
            if contrast(image) < MIN_CONTRAST:
                raise ImageError(
                    "the picture shows too little: it is of one brightness all over (lens covered, or too dark?)"
                )
        return in_batches_that_fit(self._features, images, self._to_cpu, "extraction")

    def _features(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        height, width = images[0].shape[:2]
        rgb = network_input(images, self.spec.max_side_px, self.network.size_multiple).to(self.device)
        net_height, net_width = rgb.shape[-2:]
        with half_on_cuda(self.device):
            found = self.network.extract(rgb, self.spec.max_keypoints)
        global_descriptors = self.head(rgb, found).float().cpu().numpy()
        scale = np.array([width / net_width, height / net_height], np.float32)
        features = []
        for i, keypoints in enumerate(found.keypoints):
            if len(keypoints) < MIN_KEYPOINTS:
                raise ImageError(
                    f"the picture shows too little: {len(keypoints)} local features, {MIN_KEYPOINTS} are needed "
                    "(dark, blurred, or a bare wall?)"
                )
            features.append(
                Features(
                    keypoints=(to_numpy(keypoints) + 0.5) * scale - 0.5,
                    scores=to_numpy(found.scores[i]),
                    descriptors=to_numpy(found.descriptors[i]),
                    scales=found.scales[i].cpu().numpy(),
                    image_size=(width, height),
                    global_descriptor=global_descriptors[i],
                )
            )
        return features

    def _to_cpu(self) -> None:
        self.device = torch.device("cpu")
        self.network.to(self.device)
        self.head.to(self.device)


def load_network(config: Config) -> tuple[LocalNetwork, torch.device, list[Path]]:
    """The local network of `config` with its weights, on its device, and the files these came from.

    Raises WeightsError when a file is missing or fits another network, ConfigError when there is no such device.
    """
    device = choose_device(config.compute.device)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    name = config.extractor.name
    network = LOCAL_NETWORKS[name]()
    files = [weights.resolve(config.extractor.weights or name)]
    tensors = weights.load_tensors(files[0])
    if network.trunk and not any(key.startswith(TRUNK) for key in tensors):
        files.append(weights.resolve(network.trunk))
        tensors |= trunk_tensors(network, files[1])
    weights.load_tensors_into(network, tensors, files[0])
    return freeze(network).to(device), device, files  # type: ignore[return-value]


def trunk_tensors(network: LocalNetwork, file: Path) -> dict[str, Tensor]:
    """What the trunk of `network` takes of a weight file of its own, by the network's names. Raises WeightsError."""
    wanted = network.state_dict().keys()
    found = {f"{TRUNK}{key}": tensor for key, tensor in weights.load_tensors(file).items()}
    return {key: tensor for key, tensor in found.items() if key in wanted}


def load_head(config: ExtractorConfig, network: LocalNetwork) -> tuple[GlobalHead, list[Path]]:
    """The global head that `config` asks for, with its weights, and the files these came from."""
    kind = GLOBAL_HEADS[default_global(config.name) if config.global_name == "auto" else config.global_name]
    return kind.load(config.global_weights or f"{kind.name}-{config.name}", network)


def default_global(extractor: str) -> str:
    """The global descriptor that goes with the locals of `extractor`: DELG has its own."""
    return "delg" if extractor.startswith("delg") else "vlad"


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises ConfigError when CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, but PyTorch sees no CUDA device: use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def network_size(width: int, height: int, max_side: int, multiple: int) -> tuple[int, int]:
    """The size a picture is brought to: longer side at most `max_side`, both sides rounded to `multiple`."""
    scale = min(1.0, max_side / max(width, height))
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (width, height))  # type: ignore[return-value]


def network_input(images: Sequence[NDArray[np.uint8]], max_side: int, multiple: int) -> Tensor:
    """Pictures of one size -> (B, 3, H, W) RGB float32 in [0, 1] at the network's size, channels last."""
    height, width = images[0].shape[:2]
    size = network_size(width, height, max_side, multiple)
    return torch.stack([to_rgb(image, *size) for image in images]).permute(0, 3, 1, 2).float().div_(255.0)


def to_rgb(image: NDArray[np.uint8], width: int, height: int) -> Tensor:
    """(H, W, 3) BGR uint8 -> (height, width, 3) RGB uint8."""
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def contrast(image: NDArray[np.uint8]) -> float:
    """Standard deviation of all values of a (H, W, 3) picture."""
    means, deviations = cv2.meanStdDev(image)
    return float(np.sqrt((deviations**2).mean() + means.var()))


def to_numpy(x: Tensor) -> NDArray[np.float32]:
    """A float32 array on the CPU."""
    return x.float().cpu().numpy()


def fingerprint(files: Sequence[Path]) -> str:
    """One short hash over several weight files."""
    return hashlib.sha256("".join(weights.fingerprint(file) for file in files).encode()).hexdigest()[:16]
