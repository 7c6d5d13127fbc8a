"""The maths of the transformer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etr_ros import etr, tokens
from etr_ros.etr import ETR, EtrConfig
from etr_ros.tokens import Locals

SMALL = EtrConfig(local_dim=8, max_locals=24, max_tokens=12, width=16, heads=2, ffn_width=24, blocks=2)
PAPER = dataclasses.replace(SMALL, tokens="descriptor", max_tokens=24)
WITH_GLOBAL = dataclasses.replace(PAPER, global_dim=6, scales=7)
CONFIGS = [
    pytest.param(dataclasses.replace(base, attention=attention), id=f"{name}-{attention}")
    for name, base in (("correlation", SMALL), ("descriptor", PAPER), ("global", WITH_GLOBAL))
    for attention in ("full", "linear")
]


def pictures(batch: int, length: int, seed: int = 0) -> Locals:
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.nn.functional.normalize(torch.randn(batch, length, 8, generator=generator), dim=-1)
    xy = torch.rand(batch, length, 2, generator=generator) * 2 - 1
    scales = torch.randint(0, 7, (batch, length), generator=generator)
    global_descriptor = torch.randn(batch, 6, generator=generator)
    return Locals(descriptors, xy, scales, torch.ones(batch, length, dtype=torch.bool), global_descriptor)


def model_of(config: EtrConfig) -> ETR:
    torch.manual_seed(1)
    return ETR(config).eval()


def scales_for(config: EtrConfig, x: Locals) -> Locals:
    return dataclasses.replace(x, scales=x.scales.clamp_max(config.scales - 1))


def pair(config: EtrConfig, batch: int = 3, length: int = 20) -> tuple[Locals, Locals]:
    return scales_for(config, pictures(batch, length, 0)), scales_for(config, pictures(batch, length, 1))


@pytest.mark.parametrize("config", CONFIGS)
def test_one_logit_for_each_pair(config: EtrConfig) -> None:
    score = model_of(config)(*pair(config, batch=5))
    assert score.shape == (5,)
    assert torch.isfinite(score).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_on_a_gpu_the_processor_waits_for_no_number(config: EtrConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (etr, tokens):
        monkeypatch.setattr(module, "must_not_look", lambda _: True)
    nowhere = torch.device("meta")  # tensors without numbers: whoever asks for one fails
    a, b = (x.to(nowhere) for x in pair(config, batch=5))
    assert model_of(config).to(nowhere)(a, b).shape == (5,)


@pytest.mark.parametrize("config", CONFIGS)
def test_score_is_symmetric(config: EtrConfig) -> None:
    model, (a, b) = model_of(config), pair(config)
    torch.testing.assert_close(model(a, b), model(b, a))


@pytest.mark.parametrize("config", CONFIGS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_order_of_the_locals_leaves_the_score(config: EtrConfig, seed: int) -> None:
    model, (a, b) = model_of(config), pair(config)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    shuffled = Locals(
        a.descriptors[:, order], a.xy[:, order], a.scales[:, order], a.mask[:, order], a.global_descriptor
    )
    torch.testing.assert_close(model(shuffled, b), model(a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("side", ["a", "b"])
def test_padding_leaves_the_score(config: EtrConfig, side: str) -> None:
    model, (a, b) = model_of(config), pair(config)

    def padded(x: Locals) -> Locals:
        junk = scales_for(config, pictures(3, 4, seed=9))
        return Locals(
            torch.cat([x.descriptors, junk.descriptors], 1),
            torch.cat([x.xy, junk.xy], 1),
            torch.cat([x.scales, junk.scales], 1),
            torch.cat([x.mask, torch.zeros(3, 4, dtype=torch.bool)], 1),
            x.global_descriptor,
        )

    after = model(padded(a), b) if side == "a" else model(a, padded(b))
    torch.testing.assert_close(after, model(a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_pair_scores_the_same_alone_and_in_a_batch(config: EtrConfig) -> None:
    model, (a, b) = model_of(config), pair(config)
    alone = torch.cat([model(a.select(slice(i, i + 1)), b.select(slice(i, i + 1))) for i in range(3)])
    torch.testing.assert_close(alone, model(a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients_reach_every_parameter(config: EtrConfig) -> None:
    model, (a, b) = model_of(config).train(), pair(config)
    model(a, b).square().sum().backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # keys have a bias that softmax cancels
    assert not [name for name in silent if "key_value.bias" not in name]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_block_counts(config: EtrConfig) -> None:
    model, (a, b) = model_of(config), pair(config)
    before = model(a, b)
    for block in model.blocks:
        saved = {name: p.clone() for name, p in block.state_dict().items()}
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        assert (model(a, b) - before).abs().max() > 1e-4
        block.load_state_dict(saved)
    torch.testing.assert_close(model(a, b), before)


@pytest.mark.parametrize("config", CONFIGS)
def test_pictures_without_locals_give_a_finite_score(config: EtrConfig) -> None:
    model, (a, b) = model_of(config), pair(config)
    empty = dataclasses.replace(a, mask=torch.zeros_like(a.mask))
    assert torch.isfinite(model(empty, b)).all()
    assert torch.isfinite(model(b, empty)).all()


def test_fewer_locals_than_best_matches() -> None:
    model, (a, b) = model_of(SMALL), pair(SMALL)
    one = Locals(b.descriptors[:, :1], b.xy[:, :1], b.scales[:, :1], b.mask[:, :1])
    assert torch.isfinite(model(a, one)).all()


def test_the_paper_configurations_have_the_published_size() -> None:
    s, d = ETR(EtrConfig.paper_s()), ETR(EtrConfig.paper_d())
    assert len(s.blocks) == len(d.blocks) == 3
    tokens = d.tokens(*(paper_d_pictures() for _ in range(2)))
    assert tokens.values.shape == (2, 6, 128)  # of each picture the global token and 5 locals
    assert tokens.mask.shape == (2, 6)


def paper_d_pictures() -> Locals:
    return Locals(
        descriptors=torch.randn(1, 5, 128),
        xy=torch.zeros(1, 5, 2),
        scales=torch.tensor([[0, 1, 2, 5, 6]]),
        mask=torch.ones(1, 5, dtype=torch.bool),
        global_descriptor=torch.randn(1, 2048),
    )


def test_a_missing_global_descriptor_is_an_error() -> None:
    a, b = pair(WITH_GLOBAL)
    with pytest.raises(ValueError, match="global descriptor"):
        model_of(WITH_GLOBAL)(dataclasses.replace(a, global_descriptor=None), b)


@pytest.mark.parametrize(
    "changes", [{"width": 30, "heads": 4}, {"tokens": "pixels"}, {"attention": "none"}, {"blocks": 0}]
)
def test_impossible_shapes_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(SMALL, **changes)
