"""Exported networks give what ours give, at sizes that they were not exported with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from etr_ros import export, weights
from etr_ros.config import Config
from etr_ros.errors import ConfigError

REASON = "not installed: pip install onnx onnxscript openvino"


def compare(exportable: export.Exportable, path: Path, inputs: tuple[torch.Tensor, ...], atol: float) -> None:
    """OpenVINO on `inputs`, and on those of the export, against the network itself."""
    openvino = pytest.importorskip("openvino", reason=REASON)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", precise)
    assert {name for port in model.inputs for name in port.names} >= set(exportable.input_names)
    for given in (exportable.inputs, inputs):
        with torch.inference_mode():
            ours = exportable.network(*given)
        feed = {name: x.numpy() for name, x in zip(exportable.input_names, given, strict=True)}
        theirs = model(feed)
        for a, name in zip([ours] if isinstance(ours, torch.Tensor) else ours, exportable.output_names, strict=True):
            np.testing.assert_allclose(theirs[name], a.numpy(), atol=atol)


@pytest.mark.timeout(600)  # a minute of processor time
def test_etr_with_other_numbers_of_pairs_and_locals(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason=REASON)
    exportable = export.reranker(Config())
    export.write(tmp_path / "etr.onnx", exportable)
    half = len(exportable.inputs) // 2
    descriptors, *_, vector = exportable.inputs[:half]
    sides = [export.example(5, 200, descriptors.shape[2], vector.shape[1], seed)[:half] for seed in (2, 3)]
    compare(exportable, tmp_path / "etr.onnx", (*sides[0], *sides[1]), atol=1e-4)


@pytest.mark.parametrize("name", ["xfeat", "superpoint"])
def test_extractor_at_another_size(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason=REASON)
    if weights.locate(weights.find(name)) is None:
        pytest.skip(f"the weights of {name} are not on this machine")
    exportable = export.extractor(Config().replace(**{"extractor.name": name}))
    export.write(tmp_path / "net.onnx", exportable)
    rgb = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    compare(exportable, tmp_path / "net.onnx", (rgb,), atol=1e-3)


def test_what_is_no_network_cannot_be_exported() -> None:
    with pytest.raises(ConfigError, match="magsac is no network; name an ETR"):
        export.reranker(Config().replace(**{"rerank.name": "magsac"}))
    with pytest.raises(ConfigError, match="delg-r50 cannot be exported; xfeat and superpoint can"):
        export.extractor(Config().replace(**{"extractor.name": "delg-r50"}))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    nothing = export.Exportable(torch.nn.Identity(), (torch.zeros(1),), ("x",), ("y",), ({},))
    with pytest.raises(ConfigError, match="pip install onnx onnxscript"):
        export.write(tmp_path / "net.onnx", nothing)
