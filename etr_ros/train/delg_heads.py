"""Train the heads of DELG on the outputs of its frozen trunk (Cao et al., ECCV 2020, section 3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from etr_ros.features.delg import Attention, Delg
from etr_ros.train.pairs import PairSet

Show = Callable[[str, int, int, str], None]  # stage, step, of all, note


@dataclass(frozen=True)
class HeadsConfig:
    """How to train. `margin` is that of ArcFace, in radians, `temperature` what cosines are multiplied by.

    `whitening` is the power of the variances that the local codes are divided by: 0.5 makes them all one.
    """

    global_steps: int = 500
    global_batch: int = 128
    global_rate: float = 3e-4
    margin: float = 0.3
    temperature: float = 15.0
    whitening: float = 0.5
    attention_steps: int = 200
    attention_batch: int = 24
    attention_rate: float = 1e-3
    validate_every: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The pictures of a `PairSet` as P examples of K places.

    `of` (P,) is the place of each picture; `excluded` (P, K) marks the places that it may show as well, or of which it
    is not known that it does not: no loss pushes it away from those.
    """

    of: NDArray[np.int64]
    excluded: Tensor

    @property
    def count(self) -> int:
        return self.excluded.shape[1]


def places_of(pairs: PairSet) -> Places:
    """Each picture that is of no place yet founds one, with all its positives that are of none. Pictures of one source
    exclude each other's places, but for those that certainly differ, the look-alikes."""
    count = len(pairs.copies)
    of = np.full(count, -1, np.int64)
    founded = 0
    for p in range(count):
        if of[p] < 0:
            members = np.array([p, *(q for q in pairs.positives[p] if of[q] < 0)], np.int64)
            of[members] = founded
            founded += 1
    source_of_place = np.zeros(founded, np.int64)
    source_of_place[of] = pairs.sources
    excluded = torch.from_numpy(pairs.sources[:, None] == source_of_place[None])
    for p in range(count):
        excluded[p, of[pairs.lookalikes[p]]] = False
        excluded[p, of[np.concatenate([pairs.positives[p], pairs.doubtful[p]]).astype(np.int64)]] = True
        excluded[p, of[p]] = False
    return Places(of, excluded)


class MarginLoss(nn.Module):
    """Cross-entropy of cosines to the centres of K places, where the angle to the right one is taken as larger by
    `margin` (ArcFace, Deng et al., CVPR 2019)."""

    def __init__(self, dim: int, places: int, margin: float, temperature: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(places, dim) / math.sqrt(dim))
        self.margin, self.temperature = margin, temperature

    def forward(self, x: Tensor, of: Tensor, excluded: Tensor) -> Tensor:
        """Descriptors (B, D), their places (B,) and those that do not count (B, K) -> the mean loss."""
        cosines = F.normalize(x, dim=1) @ F.normalize(self.centres, dim=1).t()
        right = of[:, None]
        angle = cosines.gather(1, right).clamp(-1 + 1e-6, 1 - 1e-6).acos()
        logits = cosines.scatter(1, right, (angle + self.margin).clamp(max=math.pi).cos())
        return F.cross_entropy(self.temperature * logits.masked_fill(excluded, float("-inf")), of)


def principal(x: Tensor, dim: int, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), encoder (dim, C) and decoder (C, dim) of the autoencoder that loses least of x (M, C).

    That of a linear one is known: the first principal axes. The code is divided by variance ** power.
    """
    mean = x.mean(dim=0)
    variance, axes = torch.linalg.eigh(torch.cov((x - mean).t()))
    variance, axes = variance.flip(0)[:dim], axes.flip(1)[:, :dim]
    size = variance.clamp_min(float(variance[0]) * 1e-4).pow(power)
    return mean, (axes / size).t().contiguous(), axes * size


def train_global(
    network: Delg,
    pooled: Tensor,
    picture: Tensor,
    places: Places,
    config: HeadsConfig,
    recall: Callable[[nn.Linear], float],
    show: Show,
) -> float:
    """Train `network.whitening` on pooled maps (R, C) of the pictures (R,), from their principal axes on; the weights
    that `recall` finds best are kept, and what they reach is given back."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    mean, encoder, _ = principal(pooled, network.global_dim, 0.0)
    head = network.whitening.requires_grad_()
    with torch.no_grad():
        head.weight.copy_(encoder)
        head.bias.copy_(-encoder @ mean)
    loss_of = MarginLoss(network.global_dim, places.count, config.margin, config.temperature)
    of = torch.from_numpy(places.of)
    with torch.no_grad():  # the centres begin as the means of their places
        sums = torch.zeros(places.count, network.global_dim)
        loss_of.centres.copy_(sums.index_add_(0, of[picture], F.normalize(head(pooled), dim=1)))
    groups = [
        {"params": head.parameters(), "lr": config.global_rate},
        {"params": loss_of.parameters(), "lr": 10 * config.global_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.global_steps)
    best, kept = recall(head), copy.deepcopy(head.state_dict())
    for step in range(config.global_steps):
        rows = torch.from_numpy(rng.integers(len(pooled), size=config.global_batch))
        shown = picture[rows]
        loss = loss_of(head(pooled[rows]), of[shown], places.excluded[shown])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % config.validate_every == 0:
            reached = recall(head)
            if reached > best:
                best, kept = reached, copy.deepcopy(head.state_dict())
            show("global head", step + 1, config.global_steps, f"loss {loss.item():.3f}, recall {reached:.3f}")
    head.load_state_dict(kept)
    return best


def train_locals(
    network: Delg, maps: Sequence[Tensor], picture: Tensor, places: Places, config: HeadsConfig, show: Show
) -> float:
    """Fit `network.reduction` and train `network.attention` on local maps (C, h, w) of the pictures (R,).

    The attention learns to weight the decoded features such that their sum tells the place. Returns the share of the
    variance that the autoencoder keeps.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    cells = [x.float().flatten(1).t() for x in maps]  # R x (hw, C)
    sample = torch.cat([x[torch.from_numpy(rng.integers(len(x), size=100))] for x in cells])
    mean, encoder, decoder = principal(sample, network.descriptor_dim, config.whitening)
    with torch.no_grad():
        network.reduction.weight.copy_(encoder[:, :, None, None])
        network.reduction.bias.copy_(-encoder @ mean)  # type: ignore[union-attr]
    kept = 1 - ((sample - mean) - (sample - mean) @ encoder.t() @ decoder.t()).var() / (sample - mean).var()
    loss_of = MarginLoss(sample.shape[1], places.count, 0.0, config.temperature)
    of = torch.from_numpy(places.of)
    attention = network.attention.requires_grad_()
    optimizer = torch.optim.AdamW([*attention.parameters(), *loss_of.parameters()], config.attention_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.attention_steps)
    for step in range(config.attention_steps):
        drawn = rng.integers(len(cells), size=config.attention_batch)
        shown = picture[torch.from_numpy(drawn)]
        x = torch.cat([cells[i] for i in drawn])
        decoded = F.normalize(((x - mean) @ encoder.t()) @ decoder.t() + mean, dim=1)
        owner = torch.from_numpy(np.repeat(np.arange(len(drawn)), [len(cells[i]) for i in drawn]))
        weighted = decoded * attention_of(attention, x)[:, None]
        summed = torch.zeros(len(drawn), x.shape[1]).index_add(0, owner, weighted)
        loss = loss_of(summed, of[shown], places.excluded[shown])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        show("attention", step + 1, config.attention_steps, f"loss {loss.item():.3f}")
    return float(kept)


def attention_of(attention: Attention, cells: Tensor) -> Tensor:
    """The attention (N,) of the cells (N, C) of any number of maps."""
    return attention(cells.t()[None, :, :, None])[0, :, 0]  # type: ignore[no-any-return]


def recall_at_1(descriptors: Tensor, queries: Tensor, pairs: PairSet) -> float:
    """Recall@1 of `queries` (Q, G), of the originals that have a positive, in their order, among `descriptors` (P, G)
    of the originals. Pictures of its own source count where it is known what they share with the query."""
    with_positive = [p for p in range(len(pairs.copies)) if len(pairs.positives[p])]
    right = []
    for query, p in zip(queries, with_positive, strict=True):
        allowed = pairs.sources != pairs.sources[p]
        allowed[pairs.lookalikes[p]] = True
        allowed[pairs.positives[p]] = True
        rows = np.flatnonzero(allowed)
        nearest = rows[int((descriptors[rows] @ query).argmax())]
        right.append(nearest in pairs.positives[p])
    return float(np.mean(right))
