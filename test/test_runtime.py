"""The extractor in OpenVINO: the same features, kept between starts, and PyTorch wherever that does not work."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from etr_ros import runtime
from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.features import Extractor
from test_extractor import textured

needs_openvino = pytest.mark.skipif(not runtime.is_installed(), reason="not installed: pip install openvino")


class Small(nn.Module):
    """Two maps of half the size."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 2, 1)
        self.eval()

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(rgb).relu()
        return x, self.second(x)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETR_WEIGHTS_DIR", str(tmp_path))
    return tmp_path / "openvino"


def rgb(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)


def load(network: nn.Module, key: str = "key") -> runtime.OpenVinoMaps:
    maps = runtime.compiled(network, "openvino", key)
    assert maps is not None
    return maps


@needs_openvino
def test_maps_of_any_size_and_number_are_those_of_the_network(cache: Path) -> None:
    network = Small(0)
    maps = load(network)
    with torch.inference_mode():
        for i in range(2 * runtime.KEPT_SIZES):
            x = rgb(32 + 8 * i, 40, 1 + i % 2)
            for a, b in zip(maps(x), network(x), strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert maps.name.startswith("OpenVINO 20")
    assert len(maps._requests) == runtime.KEPT_SIZES


@needs_openvino
def test_maps_outlive_the_next_picture(cache: Path) -> None:
    maps = load(Small(0))
    first = maps(rgb(32, 32))[0]
    before = first.clone()
    maps(1 - rgb(32, 32))
    assert torch.equal(first, before)


@needs_openvino
def test_a_network_is_read_from_pytorch_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(Small(0))(rgb(48, 64))
    monkeypatch.setattr(runtime, "_convert", lambda network: pytest.fail("it was kept"))
    for a, b in zip(load(Small(0))(rgb(48, 64)), expected, strict=True):
        assert torch.equal(a, b)


@needs_openvino
@pytest.mark.parametrize("damage", ["cut", "no zip", "bit", "other network"])
def test_what_is_kept_and_wrong_is_made_anew(cache: Path, damage: str) -> None:
    load(Small(1), "other")
    (other,) = cache.iterdir()
    load(Small(0))
    (kept,) = set(cache.iterdir()) - {other}
    data = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(data[: len(data) // 2])
    elif damage == "no zip":
        kept.write_bytes(b"nothing")
    elif damage == "bit":
        with zipfile.ZipFile(kept) as file:
            at = file.getinfo("model.bin").header_offset + 60
        data[at] ^= 1
        kept.write_bytes(data)
    else:
        kept.write_bytes(other.read_bytes())
    x = rgb(32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(load(Small(0))(x)[1], Small(0)(x)[1], atol=1e-5, rtol=0)
    assert runtime._read(kept) is not None


@needs_openvino
def test_nothing_can_be_kept(cache: Path) -> None:
    cache.parent.joinpath("openvino").write_text("a file where a folder should be")
    x = rgb(32, 32)
    assert load(Small(0))(x)[0].shape == (1, 8, 16, 16)


@needs_openvino
def test_a_failure_when_loading_leaves_pytorch(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(network: nn.Module) -> None:
        raise RuntimeError("no such instruction\nmore")

    monkeypatch.setattr(runtime, "_convert", broken)
    with caplog.at_level(logging.WARNING):
        assert runtime.compiled(Small(0), "auto", "key") is None
    assert caplog.messages == ["the extractor runs in PyTorch, as OpenVINO failed: no such instruction"]


@needs_openvino
def test_wrong_maps_leave_pytorch(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = runtime._convert(Small(1))
    monkeypatch.setattr(runtime, "_convert", lambda network: wrong)
    assert runtime.compiled(Small(0), "auto", "key") is None
    assert "its maps are not those of PyTorch" in caplog.text
    assert not cache.exists()


@needs_openvino
def test_a_failure_later_goes_on_in_pytorch_and_is_told_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = Small(0)
    maps = load(network)

    def broken(shape: tuple[int, ...]) -> None:
        raise RuntimeError("out of memory")

    maps._request = broken  # type: ignore[assignment, method-assign]
    x = rgb(32, 32)
    for _ in range(2):
        assert torch.equal(maps(x)[0], network(x)[0])
    assert caplog.messages == ["the extractor goes on in PyTorch, as OpenVINO failed: out of memory"]
    assert maps.name == "PyTorch"


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "is_installed", lambda: False)
    assert runtime.compiled(Small(0), "auto", "key") is None
    assert runtime.compiled(Small(0), "torch", "key") is None
    with pytest.raises(ConfigError, match="pip install openvino, or use auto"):
        runtime.compiled(Small(0), "openvino", "key")
    assert Extractor.load(Config()).runtime == "PyTorch"


@needs_openvino
@pytest.mark.parametrize("name", ["xfeat", "superpoint"])
def test_features_are_those_of_pytorch(name: str) -> None:
    image = textured(0)
    ours, theirs = (
        Extractor.load(Config.from_dict({"extractor.name": name, "compute.runtime": wish}))
        for wish in ("torch", "openvino")
    )
    assert ours.runtime == "PyTorch"
    assert theirs.runtime.startswith("OpenVINO")
    assert ours.spec == theirs.spec
    a, b = ours(image), theirs(image)
    points = [{tuple(point) for point in features.keypoints.tolist()} for features in (a, b)]
    assert len(points[0] & points[1]) >= 0.98 * len(a)
    assert a.global_descriptor @ b.global_descriptor > 0.999
    np.testing.assert_allclose(a.scores[:50], b.scores[:50], atol=1e-3)


@needs_openvino
def test_the_same_bits_with_any_number_of_threads(cache: Path) -> None:
    images = [textured(seed, 640, 480) for seed in (0, 1)]
    found = [
        Extractor.load(Config.from_dict({"compute.runtime": "openvino", "compute.threads": threads})).batch(images)
        for threads in (1, 2)
    ]
    for a, b in zip(*found, strict=True):
        for name in ("keypoints", "scores", "descriptors", "global_descriptor"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
